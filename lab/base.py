"""Networks that several notebooks share by name, so that a network is trained once for all of them."""

import torch

from lab import runs
from lab.training import fit
from litrev import data, device
from litrev.diffusion.schedules import LinearChain
from litrev.nets.laptop_unet import LaptopUNet
from litrev.presets import preset

CHAIN = LinearChain(1000)


def ddpm_mnist() -> runs.Run:
    """The DDPM on MNIST that notebook 03 trains and explains; its denoiser is `from_network(run.net, CHAIN, "v")`.

    The shipped run or this machine's; where there is neither, it is trained here just as there: L_simple
    E |eps - eps_hat|^2 with eps_hat = alpha F + sigma x_t, t uniform on 1..1000 (DDPM, eq. 14), 4,000 steps of 128.
    """
    steps, batch = preset(laptop=4000, smoke=6), preset(laptop=128, smoke=8)
    return shared("ddpm_mnist", LaptopUNet, steps) or fit(
        LaptopUNet,
        simple_loss,
        (data.mnist("train")[0],),
        name="ddpm_mnist",
        steps=steps,
        batch=batch,
        optimiser="muon",
        expect="loss about 0.023 after about 12 minutes on two CPU cores",
    )


def shared(name: str, build, steps: int) -> runs.Run | None:
    """Return the run `name` of that many steps whatever notebook trained it, the shipped one first; None without one.

    Raises RuntimeError where the weights do not fit the network `build()`.
    """
    for path in reversed(runs.kept(name)):
        key = runs.facts(path).get("key", "")
        if (found := runs.find(name, key)) and found[1]["description"]["steps"] == steps:
            return runs.restore(build(), *found)
    return None


def simple_loss(net, batch, generator):
    """E |eps - eps_hat|^2 of DDPM for a network whose output F is v; `batch` is a tuple with x0 [B, 1, 28, 28]."""
    x0 = batch[0]
    t = torch.randint(1, CHAIN.T + 1, (len(x0),), generator=generator)
    eps = device.randn(x0.shape, generator, x0.device)
    xt = CHAIN.add_noise(x0, t, eps)
    alpha, sigma = CHAIN.levels(t, x0)
    time = CHAIN.network_time(t).float().to(x0.device)
    return (eps - alpha * net(xt, time) - sigma * xt).square().mean()

"""Networks that several notebooks share by name, so that a network is trained once, properly, for all of them."""

import math

import torch

from lab import probe, runs
from lab.training import fit
from litrev import data, device
from litrev.diffusion.schedules import CosineVP, LinearChain
from litrev.nets.laptop_unet import LaptopUNet
from litrev.presets import preset

CHAIN = LinearChain(1000)
COSINE = CosineVP()
CLASSES = 10  # labels are 0..9; 10 stands for no label
DROPPED = 0.1  # the share of labels that training hides, for classifier-free guidance
CENTRE, SPREAD = 1.5, 1.3  # of sigma / alpha in `class_loss`: about as t uniform on [0, 1], a little noisier


def ddpm_mnist() -> runs.Run:
    """The base "DDPM on MNIST", 1.77M parameters; its denoiser is `from_network(run.net, CHAIN, "v")`.

    The shipped run or this machine's; where there is neither, it is trained by `simple_loss`, 60,000 steps of 128.
    """
    return fit(
        network,
        simple_loss,
        (data.mnist("train")[0],),
        name="base_ddpm_mnist",
        steps=preset(laptop=60_000, smoke=6),
        batch=preset(laptop=128, smoke=8),
        lr=4e-3,
        optimiser="muon",
        expect="loss about 0.022 after about five hours of a fast CPU core",
    )


def digits_by_class() -> runs.Run:
    """The base "digits by class", 1.77M parameters; its denoiser is `from_network(run.net, COSINE, "v")`, called with
    label=..., of which `CLASSES` is none.

    The shipped run or this machine's; where there is neither, it is trained by `class_loss`, 60,000 steps of 128.
    """
    return fit(
        labelled_network,
        class_loss,
        data.mnist("train"),
        name="base_digits_by_class",
        steps=preset(laptop=60_000, smoke=6),
        batch=preset(laptop=128, smoke=8),
        lr=4e-3,
        optimiser="muon",
        expect="loss about 0.105 after about five hours of a fast CPU core",
    )


def ddpm_mnist_brief() -> runs.Run:
    """The DDPM on MNIST that notebook 03 trains and explains, 0.97M parameters, in the time that a reader has: 4,000
    steps of 128, or that run of the notebook's own; its denoiser is that of `ddpm_mnist`."""
    steps, batch = preset(laptop=4000, smoke=6), preset(laptop=128, smoke=8)
    digits = (data.mnist("train")[0],)
    return shared("ddpm_mnist", LaptopUNet, simple_loss, digits, steps, batch) or fit(
        LaptopUNet,
        simple_loss,
        digits,
        name="ddpm_mnist",
        steps=steps,
        batch=batch,
        optimiser="muon",
        expect="loss about 0.023 after about 12 minutes on two CPU cores",
    )


def shared(name: str, build, loss, examples, steps: int, batch: int) -> runs.Run | None:
    """Return the run `name` of that many steps whatever notebook trained it, the shipped one first; None where there is
    none, or where `loss` does not answer as its own did."""
    for path in reversed(runs.kept(name)):
        about = runs.facts(path)
        if about.get("description", {}).get("steps") == steps:
            for tensors, was, source in runs.candidates(name, about["key"]):
                run = runs.restore(build(), tensors, was, source)
                if probe.agree(was.get("probe", []), probe.take(run.net, loss, examples, batch, seed=0), probe.CLOSE):
                    return runs.say_loaded(run)
    return None


def network() -> LaptopUNet:
    """The network of the base "DDPM on MNIST"."""
    return LaptopUNet(width=64, middle=4, heads=0)


def labelled_network() -> LaptopUNet:
    """The network of the base "digits by class"."""
    return LaptopUNet(width=64, middle=4, heads=0, classes=CLASSES)


def simple_loss(net, batch, generator):
    """E |eps - eps_hat|^2, t uniform on 1..1000, for a network whose output F is v: eps_hat = alpha F + sigma x_t.

    `batch` is a tuple with x0 [B, 1, 28, 28]. DDPM, eq. 14.
    """
    x0 = batch[0]
    t = torch.randint(1, CHAIN.T + 1, (len(x0),), generator=generator)
    eps = device.randn(x0.shape, generator, x0.device)
    xt = CHAIN.add_noise(x0, t, eps)
    alpha, sigma = CHAIN.levels(t, x0)
    time = CHAIN.network_time(t).float().to(x0.device)
    return (eps - alpha * net(xt, time) - sigma * xt).square().mean()


def class_loss(net, batch, generator):
    """E |v - v_hat|^2, v = alpha eps - sigma x0, on `COSINE`, log(sigma / alpha) ~ N(log CENTRE, SPREAD^2); each label
    is hidden with probability `DROPPED`.

    `batch` is (x0 [B, 1, 28, 28], label [B]). Classifier-free guidance, algorithm 1; progressive distillation, app. D.
    """
    x0, label = batch
    hidden = torch.rand(len(x0), generator=generator) < DROPPED
    label = torch.where(hidden.to(label.device), CLASSES, label)
    ratio = (math.log(CENTRE) + SPREAD * torch.randn(len(x0), generator=generator)).exp()
    t = ratio.atan() * 2 / math.pi
    eps = device.randn(x0.shape, generator, x0.device)
    alpha, sigma = COSINE.levels(t, x0)
    time = COSINE.network_time(t).float().to(x0.device)
    answer = net(alpha * x0 + sigma * eps, time, label=label)
    return (answer - (alpha * eps - sigma * x0)).square().mean()

"""The networks that the notebooks on text and images share: each is trained once, properly, for all of them."""

import math

import torch

from lab import runs
from lab.training import fit
from litrev import device
from litrev.data import captions, scenes
from litrev.diffusion.denoiser import clip_x0, from_network, given
from litrev.diffusion.grids import karras_grid
from litrev.diffusion.guidance import classifier_free
from litrev.diffusion.samplers import final, sde_dpm_solver
from litrev.diffusion.schedules import RectifiedFlow
from litrev.nets import autoencoder as autoencoders
from litrev.nets.autoencoder import LaptopAutoencoder
from litrev.nets.mmdit import CaptionMMDiT
from litrev.presets import preset

FLOW = RectifiedFlow()
HIDDEN = 0.1  # the share of captions that training hides, for classifier-free guidance
CENTRE, SPREAD = 5.0, 1.4  # of sigma / alpha: high, where the picture can't say yet what the caption says


def scenes_by_caption() -> runs.Run:
    """The base "scenes by caption", scenes of one digit, 1.29M parameters; its denoiser, of `scenes.standardized`
    pixels, is `from_network(run.net, FLOW, "flow")`, called with text=ids, `null_tokens()` for none.

    The shipped run or this machine's; where there is neither, it is trained by `flow_loss`, 20,000 steps of 64, half of
    them with exact captions, half with partial ones.
    """
    return fit(
        CaptionMMDiT,
        flow_loss,
        exact_and_partial,
        name="base_scenes_by_caption",
        steps=preset(laptop=20_000, smoke=6),
        batch=preset(laptop=64, smoke=8),
        lr=5e-3,
        optimiser="muon",
        expect="loss about 0.18 after about an hour and a half of a CPU core",
    )


def autoencoder() -> runs.Run:
    """The base "autoencoder of scenes", f = 4, latents [4, 8, 8], 0.88M parameters, for scenes of one digit and two.

    The shipped run or this machine's; where there is neither, it is trained by `autoencoder_loss`, 2,000 steps of 64.
    """
    return fit(
        LaptopAutoencoder,
        autoencoder_loss,
        pictures,
        name="base_autoencoder",
        steps=preset(laptop=2000, smoke=6),
        batch=preset(laptop=64, smoke=8),
        lr=4e-3,
        optimiser="muon",
        expect="loss about 0.0013 after about an hour of a CPU core",
    )


def pictures(n: int, generator: torch.Generator) -> torch.Tensor:
    """x [n, 3, 32, 32] of scenes of the split 'seen', three in ten with two digits."""
    return scenes.Scenes(two=0.3).batch(n, generator).x


def autoencoder_loss(net, x, generator):
    """|x - x_hat|^2 + 0.1 |x - x_hat| + 1e-4 KL(q(z | x) || N(0, 1)), each summed over an image and divided by its
    number of values; z is drawn from q. LDM, supplement G, with the squared error in the place of LPIPS."""
    mean, log_variance = net.encode(x)
    z = autoencoders.draw(mean, log_variance, device.randn(mean.shape, generator, x.device))
    error = x - net.decode(z)
    kl = autoencoders.kl_to_standard(mean, log_variance).mean() / x[0].numel()
    return error.square().mean() + 0.1 * error.abs().mean() + 1e-4 * kl


def two_digits_by_caption() -> runs.Run:
    """The base "two digits by caption", 1.29M parameters; its denoiser, of `scenes.standardized` pixels, is
    `from_network(run.net, FLOW, "flow")`, called with text=ids, `null_tokens()` for none.

    The shipped run or this machine's; where there is neither, it is trained by `flow_loss`, 5,000 steps of 64.
    """
    return fit(
        CaptionMMDiT,
        flow_loss,
        pairs,
        name="base_two_digits",
        steps=preset(laptop=5000, smoke=6),
        batch=preset(laptop=64, smoke=8),
        lr=5e-3,
        optimiser="muon",
        expect="loss about 0.20 after about 25 minutes of a CPU core",
    )


def pairs(n: int, generator: torch.Generator):
    """(x [n, 3, 32, 32], ids [n, 20]) of scenes of two digits of the split 'seen', with exact captions."""
    batch = scenes.Scenes(two=1.0, drop=0.0).batch(n, generator)
    return batch.x, batch.tokens


def hide(text: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Captions' ids [B, 20], each row replaced by `null_tokens()` with probability `HIDDEN`."""
    hidden = (torch.rand(len(text), 1, generator=generator) < HIDDEN).to(text.device)
    return torch.where(hidden, captions.null_tokens().to(text.device), text)


def flow_loss(net, batch, generator):
    """E |u - u_hat|^2, u = eps - x0 of standardized scenes on the straight path `FLOW`, whose sigma / alpha is
    t / (1 - t), log(t / (1 - t)) ~ N(log CENTRE, SPREAD^2); each caption is hidden with probability `HIDDEN`.

    `batch` is (x [B, 3, 32, 32] in [-1, 1], ids [B, 20]). SD3, sec. 2 and 3.1, with more noise.
    """
    x, text = batch
    text = hide(text, generator)
    t = torch.sigmoid(math.log(CENTRE) + SPREAD * torch.randn(len(x), generator=generator))
    x0, eps = scenes.standardized(x), device.randn(x.shape, generator, x.device)
    time = FLOW.network_time(t).float().to(x0.device)
    return (net(FLOW.add_noise(x0, t, eps), time, text=text) - (eps - x0)).square().mean()


def exact_and_partial(n: int, generator: torch.Generator):
    """(x [n, 3, 32, 32], ids [n, 20]) of scenes of the split 'seen': the first half with exact captions, in the second
    each attribute but the digit is left out with probability 0.6."""
    halves = [scenes.Scenes(drop=drop).batch(k, generator) for drop, k in ((0.0, n - n // 2), (0.6, n // 2))]
    return torch.cat([half.x for half in halves]), torch.cat([half.tokens for half in halves])


def draw(net, text: torch.Tensor, generator: torch.Generator, scale: float = 3.0, steps: int = 25) -> torch.Tensor:
    """A scene for each caption, pixels in [-1, 1] [n, 3, 32, 32], by a base of captions: ids `text` [n, 20].

    Classifier-free guidance at `scale`, which asks the network twice a step; the solver with noise on `karras_grid`; 64
    captions at a time. Noise comes from `generator`.
    """
    guided = classifier_free(from_network(net, FLOW, "flow"), scale, {"text": captions.null_tokens()})
    denoiser, times = clip_x0(guided, *scenes.RANGE), karras_grid(FLOW, steps, 0.988, 0.004)
    made = []
    for ids in text.to(device.device()).split(64):
        xT = device.randn((len(ids), 3, 32, 32), generator, ids.device)
        made.append(final(sde_dpm_solver(given(denoiser, text=ids), xT, times, generator)))
    return scenes.pixels(torch.cat(made)).cpu()

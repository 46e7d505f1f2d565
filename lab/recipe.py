"""The fastest way we know to train a small diffusion model on a laptop: one function, and every part can be left out.

`tools/bazel run //bench -- quality` measures what each part gives; bench/README.md shows its table.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.runs import Run
from lab.training import fit
from litrev import checks
from litrev.device import device, randn
from litrev.diffusion.denoiser import Denoiser, clip_x0, from_network
from litrev.diffusion.grids import karras_grid
from litrev.diffusion.guidance import autoguidance, limited
from litrev.diffusion.samplers import final, sde_dpm_solver
from litrev.diffusion.schedules import CosineVP
from litrev.nets.laptop_unet import LaptopUNet

SCHEDULE = CosineVP()
SPREAD = 0.9  # standard deviation of log(sigma / alpha) in training
START, END = 0.992, 0.004  # the times between which sampling moves, where sigma / alpha is 80 and 0.006
NOISE = 1.7  # of the reverse SDE, in sampling: it mends some of what a network that was trained briefly gets wrong
WEAKER = 400  # steps of the weaker network that guides: it knows what digits are, and errs more than the one it guides
GUIDED = 0.33, 5.0  # sigma / alpha where it guides, chosen by trial: 82 % of the noise levels in training lie there


def small_net(heads: int = 0) -> LaptopUNet:
    """The network of the recipe: 0.37M parameters, one block a side at 14 x 14, three in the middle at 7 x 7, without
    attention: what its `heads` take is better spent on more steps (bench/README.md)."""
    return LaptopUNet(width=32, depth=1, middle=3, heads=heads)


@dataclass(frozen=True)
class Trained:
    """A run, and the `weaker` run that guides it where there is one, on images that were shifted by `mean` and divided
    by `std`; the denoiser works on images of that kind."""

    run: Run
    weaker: Run | None
    mean: float
    std: float
    predicts: str
    guidance: float

    @property
    def denoiser(self) -> Denoiser:
        """The network's denoiser on `SCHEDULE`, guided away from the weaker one's where it was trained most, x0 clipped
        to what [-1, 1] becomes when standardised."""
        found = from_network(self.run.net, SCHEDULE, self.predicts)
        if self.weaker:
            weaker = from_network(self.weaker.net, SCHEDULE, self.predicts)
            found = limited(autoguidance(found, weaker, self.guidance), found, *GUIDED)
        return clip_x0(found, *((edge - self.mean) / self.std for edge in (-1, 1)))

    def sample(self, n: int, calls: int, generator: torch.Generator, shape=(1, 28, 28)) -> Tensor:
        """Return n images in [-1, 1] on the CPU, in batches of at most 250, each by at most so many `calls` of
        networks: the multistep solver with noise, on EDM's times."""
        checks.whole(n=n, calls=calls)
        checks.generator(generator)
        made, times = [], self.times(calls)
        for count in [250] * (n // 250) + [n % 250] * (n % 250 > 0):
            xT = randn((count, *shape), generator, device())
            made.append(final(sde_dpm_solver(self.denoiser, xT, times, generator, NOISE)).cpu())
        return (torch.cat(made) * self.std + self.mean).clamp(-1, 1)

    def times(self, calls: int) -> list[float]:
        """The most times that take at most so many calls of networks, of which a guided step makes two."""
        checks.whole(calls=calls)
        grids = [karras_grid(SCHEDULE, steps, START, END) for steps in range(calls, 0, -1)]
        return next((grid for grid in grids if self._calls(grid) <= calls), grids[-1])

    def _calls(self, times: list[float]) -> int:
        ratios = [math.exp(-float(SCHEDULE.log_snr(t)) / 2) for t in times[:-1]]
        return len(ratios) + sum(GUIDED[0] <= ratio <= GUIDED[1] for ratio in ratios if self.weaker)


def train(
    images: Tensor,
    *,
    name: str,
    steps: int,
    build: Callable[[], nn.Module] = small_net,
    batch: int = 64,
    lr: float = 6e-3,
    optimiser: str = "muon",
    centre: float | None = 2.0,
    predicts: str = "v",
    standardise: bool = True,
    ema: float = 0.999,
    guidance: float = 2.0,
    seed: int = 0,
) -> Trained:
    """Train a denoiser on images [n, C, H, W] in [-1, 1] by the recipe, in `steps` steps in all; runs are kept as `fit`
    keeps them.

    Mean 0 and variance 1 for the images (`standardise`); noise levels with log(sigma / alpha) ~ N(log centre, 0.9^2),
    where images decide what they become (`centre` None: t uniform on [0, 1]); the loss E |v - v_hat|^2, v = alpha eps -
    sigma x0 (or |eps - eps_hat|^2 with `predicts` "eps"); Muon; averaged weights. A part of the steps, at most 400 and
    a fifth, trains a weaker network first, and sampling leads away from it (`guidance` is the scale of
    `guidance.autoguidance`; 1: no weaker network). Raises ValueError as `fit` does.
    """
    checks.images("n C H W", images=images)
    checks.flag(standardise=standardise)
    checks.number(guidance=guidance)
    checks.whole(steps=steps)
    mean, std = (images.mean().item(), images.std().item()) if standardise else (0.0, 1.0)

    def trained(name: str, steps: int) -> Run:
        return fit(
            build,
            noise_loss(centre, predicts),
            ((images - mean) / std,),
            name=name,
            steps=steps,
            batch=batch,
            lr=lr,
            optimiser=optimiser,
            ema=ema,
            seed=seed,
        )

    weak = min(WEAKER, steps // 5) if guidance != 1 else 0
    weaker = trained(f"{name}_weaker", weak) if weak else None
    return Trained(trained(name, steps - weak), weaker, mean, std, predicts, guidance)


def noise_loss(centre: float | None, predicts: str) -> Callable[..., Tensor]:
    """Return the loss function of `train` for `fit`; raises ValueError unless `predicts` is "v" or "eps"."""
    if predicts not in ("v", "eps"):
        raise ValueError(f"The recipe trains on v or eps, not on {predicts!r}.")
    _require_centre(centre)

    def loss(net, batch, generator):
        x0 = batch[0]
        t = noise_times(len(x0), centre, generator)
        eps = randn(x0.shape, generator, x0.device)
        alpha, sigma = SCHEDULE.levels(t, x0)
        answer = net(alpha * x0 + sigma * eps, SCHEDULE.network_time(t).float().to(x0.device))
        target = alpha * eps - sigma * x0 if predicts == "v" else eps
        return (answer - target).square().mean()

    return loss


def noise_times(n: int, centre: float | None, generator: torch.Generator) -> Tensor:
    """Return n times of `SCHEDULE`, where sigma / alpha = tan(pi t / 2) is log-normal around `centre`, or uniform."""
    checks.whole(n=n)
    checks.generator(generator)
    _require_centre(centre)
    if centre is None:
        return torch.rand(n, generator=generator)
    return (math.log(centre) + SPREAD * torch.randn(n, generator=generator)).exp().atan() * 2 / math.pi


def _require_centre(centre: float | None) -> None:
    if centre is not None:
        checks.number(above=0, centre=centre)

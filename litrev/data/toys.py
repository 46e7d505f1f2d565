"""Small data sets to think with: Gaussian mixtures, whose scores and posteriors are known exactly, and 2-D shapes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from litrev import checks
from litrev.device import double


def _per_component(x: float | Tensor) -> Tensor:
    """Return a number, or one per point [n, 1], as float64 on the CPU with an axis more, to meet means [k, d]."""
    checks.numeric(**{"alpha and sigma": x})
    level = double(x)
    if level.ndim and level.shape[-1] != 1:
        raise ValueError(f"alpha and sigma must be numbers, or tensors [n, 1] for n points, not {checks.shown(x)}.")
    return level[..., None]


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of axis-aligned Gaussians: sum_k weights_k N(means_k, diag(stds_k^2)).

    means [k, d]; stds [k, d], or [k, 1] or a number for round components; weights [k], scaled to sum to 1, by default
    equal. A standard deviation of 0 is a point: it can be sampled and diffused. Raises ValueError for shapes or values
    that do not fit.
    """

    means: Tensor
    stds: Tensor | float
    weights: Tensor | None = None

    def __post_init__(self):
        checks.numeric(means=self.means, stds=self.stds, weights=1 if self.weights is None else self.weights)
        means = double(self.means)
        if means.ndim < 2 or not means.numel():
            raise ValueError(f"The means must be [components, dimensions], not {list(means.shape)}.")
        weights = double(torch.ones(means.shape[-2]) if self.weights is None else self.weights)
        stds = double(self.stds)
        checks.finite(means=means, stds=stds, weights=weights)
        checks.expands(means.shape, stds=stds)
        if weights.shape != (means.shape[-2],) or weights.min() < 0 or stds.min() < 0 or not weights.sum() > 0:
            raise ValueError("A mixture needs one weight per component, not all 0; no weight or std may lie below 0.")
        object.__setattr__(self, "means", means)  # the dataclass is frozen
        object.__setattr__(self, "stds", stds.expand_as(means))
        object.__setattr__(self, "weights", weights / weights.sum())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n independent points, float32 [n, d]."""
        _ask(n, generator)
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[-1], generator=generator, dtype=torch.float64)
        return (self.means[which] + self.stds[which] * noise).float()

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return means, stds and log-weights in the type and on the device of x."""
        # cast, then move: MPS has no float64
        return tuple(part.to(x.dtype).to(x.device) for part in (self.means, self.stds, self.weights.log()))

    def _require_points(self, x: Tensor) -> None:
        checks.floats("n ...", **{"The points": x})
        if x.shape[-1] != self.means.shape[-1]:
            raise ValueError(
                f"The points must have {self.means.shape[-1]} dimensions, as the means, not {x.shape[-1]}."
            )

    def _log_joint(self, x: Tensor) -> Tensor:
        """Return log(weights_k N(x; means_k, stds_k)) for points x [..., d]: [..., k]."""
        self._require_points(x)
        if not (self.stds > 0).all():
            raise ValueError("A component of standard deviation 0 has no density: diffuse the mixture first.")
        means, stds, log_weights = self._like(x)
        standard = (x[..., None, :] - means) / stds
        return (
            log_weights
            - 0.5 * standard.square().sum(-1)
            - stds.log().sum(-1)
            - 0.5 * x.shape[-1] * math.log(2 * math.pi)
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density log p(x) in nats at points x [n, d]: [n]."""
        return self._log_joint(x).logsumexp(-1)

    def responsibilities(self, x: Tensor) -> Tensor:
        """Return p(component | x) at points x [n, d]: [n, k]."""
        return self._log_joint(x).softmax(-1)

    def score(self, x: Tensor) -> Tensor:
        """Return the score grad log p(x) = sum_k p(k | x) (means_k - x) / stds_k^2 at points x [n, d]: [n, d]."""
        self._require_points(x)
        means, stds, _ = self._like(x)
        pulls = (means - x[..., None, :]) / stds.square()
        return (self.responsibilities(x)[..., None] * pulls).sum(-2)

    def diffused(self, alpha: float | Tensor, sigma: float | Tensor) -> "GaussianMixture":
        """Return the distribution of xt = alpha x0 + sigma eps, with x0 from this mixture: again a mixture.

        Its means are alpha m_k, its variances alpha^2 s_k^2 + sigma^2. alpha and sigma are numbers, or tensors [n, 1]
        to give each of n points a time of its own.
        """
        alpha, sigma = (_per_component(x) for x in (alpha, sigma))
        if not (sigma >= 0).all():
            raise ValueError(f"sigma must be at least 0, not {sigma.min():g}.")
        stds = (alpha.square() * self.stds.square() + sigma.square()).sqrt()
        return GaussianMixture(alpha * self.means, stds, self.weights)

    def posterior_mean(self, xt: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """Return E[x0 | xt], the exact denoiser, at points xt [n, d]: [n, d]; alpha and sigma as in `diffused`.

        sum_k p(k | xt) (m_k + alpha s_k^2 / (alpha^2 s_k^2 + sigma^2) (xt - alpha m_k)), which equals Tweedie's
        (xt + sigma^2 score(xt)) / alpha and is exact for alpha = 0 as well.
        """
        self._require_points(xt)
        noisy = self.diffused(alpha, sigma)
        alpha = _per_component(alpha)
        gain = (alpha * self.stds.square() / noisy.stds.square()).to(xt.dtype).to(xt.device)
        means, _, _ = self._like(xt)
        noisy_means, _, _ = noisy._like(xt)
        guesses = means + gain * (xt[..., None, :] - noisy_means)
        return (noisy.responsibilities(xt)[..., None] * guesses).sum(-2)


def ring(components: int = 8, radius: float = 1.0, std: float = 0.1) -> GaussianMixture:
    """Return round Gaussians of standard deviation `std`, evenly spaced on a circle in the plane."""
    checks.whole(components=components)
    checks.number(radius=radius)
    checks.number(0, std=std)
    angles = 2 * math.pi * torch.arange(components, dtype=torch.float64) / components
    return GaussianMixture(radius * torch.stack([angles.cos(), angles.sin()], 1), std)


def swiss_roll(n: int, generator: torch.Generator, noise: float = 0.03) -> Tensor:
    """Return n points [n, 2] along a spiral of one and a half turns within the square [-1.1, 1.1]^2."""
    _ask(n, generator, noise)
    angle = math.pi * (1.5 + 3 * torch.rand(n, generator=generator))
    spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / (4.5 * math.pi)
    return spiral + noise * torch.randn(n, 2, generator=generator)


def two_moons(n: int, generator: torch.Generator, noise: float = 0.05) -> Tensor:
    """Return n points [n, 2] on two interleaved half circles, centred on the origin, of radius 2/3."""
    _ask(n, generator, noise)
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    sign = torch.randint(2, (n, 1), generator=generator) * 2 - 1  # the lower moon is the upper turned half round
    return (sign * upper) * 2 / 3 + noise * torch.randn(n, 2, generator=generator)


def checkerboard(n: int, generator: torch.Generator) -> Tensor:
    """Return n points [n, 2], uniform on the eight dark squares of a 4x4 board that fills [-1, 1]^2."""
    _ask(n, generator)
    row = torch.randint(4, (n,), generator=generator)
    column = 2 * torch.randint(2, (n,), generator=generator) + row % 2
    corner = torch.stack([column, row], 1)
    return (corner + torch.rand(n, 2, generator=generator)) / 2 - 1


def _ask(n: int, generator: torch.Generator, noise: float = 0.0) -> None:
    checks.whole(n=n)
    checks.generator(generator)
    checks.number(0, noise=noise)

"""Noise schedules: how much signal (alpha) and how much noise (sigma) a time t stands for.

Every schedule describes the same object, x_t = alpha_t x_0 + sigma_t eps with eps ~ N(0, I). Times are either the
integers 0..T of a discrete chain (0 is clean data) or real numbers in [0, 1]. All tables and formulas live in float64
on the CPU and are cast once, to the image they are applied to: GPUs of MacBooks have no float64, and 1 - alpha^2
loses its digits in float32.
"""

import functools
import math
from dataclasses import dataclass

import torch

from litrev import checks
from litrev.device import double
from litrev.diffusion.process import Schedule, as_log_snr, as_time


@dataclass(frozen=True)
class Chain(Schedule):
    """A discrete chain x_0, x_1, ..., x_T with variances beta_1..beta_T: alpha_t^2 = prod_{s<=t} (1 - beta_s) (DDPM,
    sec. 2).

    The time t = 0 is the clean image (alpha 1, sigma 0). Official code counts from 0: its index i is our t = i + 1.
    """

    T: int = 1000
    t_min = 1

    def __post_init__(self):
        checks.whole(at_most=10**6, T=self.T)

    @property
    def t_max(self):
        return self.T

    @property
    def betas(self):
        """beta_1..beta_T, float64 [T]."""
        raise NotImplementedError

    def alpha(self, t):
        return _tables(self, type(self).betas)[0][_as_index(t, self.T)]

    def sigma(self, t):
        return _tables(self, type(self).betas)[1][_as_index(t, self.T)]

    def network_time(self, t):
        """The official code's index t - 1 (0..T-1), which is what DDPM's network is given."""
        return _as_index(t, self.T).double() - 1

    def time_of(self, log_snr):
        """The whole time, of 1..T, whose log-SNR is nearest to `log_snr` (number or tensor)."""
        wanted = as_log_snr(log_snr)
        if wanted.isnan().any():
            raise ValueError(f"{self} has no time for a log-SNR of NaN.")
        return 1 + (wanted[..., None] - self.log_snr(torch.arange(1, self.T + 1))).abs().argmin(-1)

    def _slope(self, function, t):
        raise ValueError("A discrete chain has no slopes; use its limit in continuous time, LinearVP or CosineVP.")

    def grid(self, steps, start=None):
        """`steps` evenly spaced whole times from T, or from `start`, to 1, then 0: the chain shortened as in improved
        DDPM (sec. 4)."""
        start = self._start(steps, start)
        checks.whole(start=start)
        if steps > start:
            raise ValueError(f"There are no {steps} distinct whole times from {start} to 1: ask for at most {start}.")
        return [*torch.linspace(start, 1, steps, dtype=torch.float64).round().long().tolist(), 0]

    def _times(self):
        return torch.arange(self.T + 1)


@functools.cache
def _tables(chain, betas):
    """(alpha, sigma) of a chain at 0..T, float64 [T + 1]; `betas`, what its class has under that name, is part of the
    cache's key: an edited class has new tables."""
    betas = double(chain.betas)
    if betas.shape != (chain.T,) or not ((betas > 0) & (betas <= 1)).all():
        raise ValueError(f"The betas of {chain} must be {chain.T} numbers above 0 and at most 1.")
    log_alpha_bar = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
    return (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()


@dataclass(frozen=True)
class LinearChain(Chain):
    """beta_t rises linearly from `first` to `last` (DDPM, sec. 4: T = 1000, 1e-4 to 0.02)."""

    first: float = 1e-4
    last: float = 0.02

    def __post_init__(self):
        super().__post_init__()
        checks.number(above=0, at_most=1, first=self.first, last=self.last)

    @property
    def betas(self):
        return torch.linspace(self.first, self.last, self.T, dtype=torch.float64)


@dataclass(frozen=True)
class CosineChain(Chain):
    """alpha_t^2 = f(t)/f(0), f(t) = cos^2((t/T + s)/(1 + s) pi/2), beta_t at most 0.999 (improved DDPM, eq. 17)."""

    s: float = 0.008

    def __post_init__(self):
        super().__post_init__()
        checks.number(0, 1, s=self.s)

    @property
    def betas(self):
        t = torch.arange(self.T + 1, dtype=torch.float64) / self.T
        f = ((t + self.s) / (1 + self.s) * math.pi / 2).cos() ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)


@dataclass(frozen=True)
class LinearVP(Schedule):
    """The chain's limit of many small steps: beta(t) = b0 + (b1 - b0) t, alpha_t = exp(-B/2), B = int_0^t beta
    (Score-SDE, eq. 11, app. C)."""

    b0: float = 0.1
    b1: float = 20.0

    def __post_init__(self):
        checks.number(0, b0=self.b0)
        checks.number(above=0, b1=self.b1)

    def _B(self, t):
        t = as_time(t, 1.0)
        return self.b0 * t + (self.b1 - self.b0) * t**2 / 2

    def alpha(self, t):
        return (-self._B(t) / 2).exp()

    def sigma(self, t):
        return (-torch.expm1(-self._B(t))).sqrt()


@dataclass(frozen=True)
class CosineVP(Schedule):
    """alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2): the cosine schedule in continuous time, with s = 0
    (progressive distillation, sec. 4)."""

    def alpha(self, t):
        return (as_time(t, 1.0) * math.pi / 2).cos().clamp(min=0)

    def sigma(self, t):
        return (as_time(t, 1.0) * math.pi / 2).sin()


@dataclass(frozen=True)
class SubVP(LinearVP):
    """LinearVP's alpha with less noise, sigma_t = 1 - exp(-B) (Score-SDE, eq. 29)."""

    def sigma(self, t):
        return -torch.expm1(-self._B(t))


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """alpha = 1 - t', sigma = t', t' = shift t / (1 + (shift - 1) t): the straight path, at times shifted towards noise
    (SD3, eq. 23)."""

    shift: float = 1.0

    def __post_init__(self):
        checks.number(above=0, shift=self.shift)

    def alpha(self, t):
        t = as_time(t, 1.0)
        return (1 - t) / (1 + (self.shift - 1) * t)

    def sigma(self, t):
        t = as_time(t, 1.0)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def network_time(self, t):
        """1000 t', as in SD3: a network trained at one shift can be sampled at another."""
        return 1000 * self.sigma(t)


@dataclass(frozen=True)
class VE(Schedule):
    """Noise is added and the signal left alone: alpha = 1, sigma from sigma_min to sigma_max. t = 0 is clean data, as
    in every schedule: sigma jumps from 0 to sigma_min just above it (Score-SDE, app. C)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min = 1e-9  # just above the jump

    def __post_init__(self):
        checks.number(above=0, sigma_min=self.sigma_min)
        checks.number(above=self.sigma_min, sigma_max=self.sigma_max)

    def alpha(self, t):
        return 1 + 0 * as_time(t, 1.0)

    def sigma(self, t):
        t = as_time(t, 1.0)
        return torch.where(t > 0, self._sigma(t), 0.0)

    def network_time(self, t):
        """250 log sigma: EDM's log(sigma) / 4, in thousandths as in the code of consistency models."""
        return 250 * self.sigma(t).log()

    def grid(self, steps, start=None):
        """`steps` evenly spaced times from sigma_max, or from `start`, down to sigma_min, then 0."""
        start = self._start(steps, start)
        return [*torch.linspace(start, self.t_min, steps, dtype=torch.float64).tolist(), 0.0]


@dataclass(frozen=True)
class Geometric(VE):
    """sigma_t = sigma_min (sigma_max / sigma_min)^t: NCSN's noise levels in continuous time (Score-SDE, app. C)."""

    def _sigma(self, t):
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t


@dataclass(frozen=True)
class Karras(VE):
    """sigma_t^(1/rho) rises linearly from sigma_min^(1/rho) to sigma_max^(1/rho) (EDM, eq. 5)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self):
        super().__post_init__()
        checks.number(above=0, rho=self.rho)

    def _sigma(self, t):
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + t * (high - low)) ** self.rho


def _as_index(t, T):
    t = as_time(t, T)
    if (t != t.round()).any():
        raise ValueError(
            f"A discrete chain knows the whole times 0..{T} only; use a continuous schedule for times between them."
        )
    return t.long()

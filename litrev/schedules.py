"""Noise schedules: how much signal (alpha) and how much noise (sigma) a time t stands for.

Every schedule describes the same object, x_t = alpha_t x_0 + sigma_t eps with eps ~ N(0, I). Times are either the
integers 0..T of a discrete chain (0 is clean data) or real numbers in [0, 1]. All tables and formulas live in float64
on the CPU and are cast once, to the image they are applied to: GPUs of MacBooks have no float64, and 1 - alpha^2
loses its digits in float32.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class Schedule:
    """What every schedule knows; a subclass gives alpha(t), sigma(t) and says which times it accepts."""

    @property
    def t_max(self):
        """Time of the noisiest state: T of a chain, 1.0 of a continuous schedule."""
        return 1.0

    def alpha(self, t):
        """Signal level alpha_t, float64 on the CPU, shaped like t; raises ValueError where t is out of range."""
        raise NotImplementedError

    def sigma(self, t):
        """Noise level sigma_t, float64 on the CPU, shaped like t; raises ValueError where t is out of range."""
        raise NotImplementedError

    def log_snr(self, t):
        """lambda_t = log(alpha_t^2 / sigma_t^2), falling from data to noise."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def levels(self, t, like):
        """(alpha_t, sigma_t) in the dtype and on the device of `like` [B, ...], shaped to multiply it; t is a number
        or [B]."""
        if torch.is_tensor(t) and t.ndim and len(t) != len(like):
            raise ValueError(f"{len(t)} times for a batch of {len(like)}: give one time, or one for each image.")
        shape = (-1,) + (1,) * (like.ndim - 1)
        # The cast comes before the move: a device without float64 never sees one.
        return tuple(level.reshape(shape).to(like.dtype).to(like.device) for level in (self.alpha(t), self.sigma(t)))

    def add_noise(self, x0, t, eps):
        """x_t = alpha_t x_0 + sigma_t eps for x0, eps [B, ...] and t a number or [B] (DDPM, eq. 4)."""
        alpha, sigma = self.levels(t, x0)
        return alpha * x0 + sigma * eps

    def network_time(self, t):
        """What a network's time embedding is given: about 0..999 whatever the schedule, as in DDPM's code."""
        return 1000 * _as_time(t, 1.0) - 1

    def grid(self, steps):
        """`steps` + 1 evenly spaced times from noise to data, as Python numbers."""
        return torch.linspace(self.t_max, 0, _at_least_one(steps) + 1, dtype=torch.float64).tolist()


@dataclass(frozen=True)
class Chain(Schedule):
    """A discrete chain x_0, x_1, ..., x_T with variances beta_1..beta_T: alpha_t^2 = prod_{s<=t} (1 - beta_s) (DDPM,
    sec. 2).

    The time t = 0 is the clean image (alpha 1, sigma 0). Official code counts from 0: its index i is our t = i + 1.
    """

    T: int = 1000

    @property
    def t_max(self):
        return self.T

    @property
    def betas(self):
        """beta_1..beta_T, float64 [T]."""
        raise NotImplementedError

    @cached_property
    def _tables(self):
        log_alpha_bar = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-self.betas).cumsum(0)])
        return (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()

    def alpha(self, t):
        return self._tables[0][_as_index(t, self.T)]

    def sigma(self, t):
        return self._tables[1][_as_index(t, self.T)]

    def network_time(self, t):
        """The official code's index t - 1 (0..T-1), which is what DDPM's network is given."""
        return _as_index(t, self.T).double() - 1

    def grid(self, steps):
        """`steps` evenly spaced whole times from T to 1, then 0: the chain shortened as in improved DDPM (sec. 4)."""
        if _at_least_one(steps) > self.T:
            raise ValueError(f"A chain of {self.T} steps has no {steps} distinct times; ask for at most {self.T}.")
        return [*torch.linspace(self.T, 1, steps, dtype=torch.float64).round().long().tolist(), 0]


@dataclass(frozen=True)
class LinearChain(Chain):
    """beta_t rises linearly from `first` to `last` (DDPM, sec. 4: T = 1000, 1e-4 to 0.02)."""

    first: float = 1e-4
    last: float = 0.02

    @property
    def betas(self):
        return torch.linspace(self.first, self.last, self.T, dtype=torch.float64)


@dataclass(frozen=True)
class CosineChain(Chain):
    """alpha_t^2 = f(t)/f(0), f(t) = cos^2((t/T + s)/(1 + s) pi/2), beta_t at most 0.999 (improved DDPM, eq. 17)."""

    s: float = 0.008

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

    def _B(self, t):
        t = _as_time(t, 1.0)
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
        return (_as_time(t, 1.0) * math.pi / 2).cos().clamp(min=0)

    def sigma(self, t):
        return (_as_time(t, 1.0) * math.pi / 2).sin()


def _at_least_one(steps):
    if steps != int(steps) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1, not {steps}.")
    return int(steps)


def _as_time(t, largest):
    t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
    if not ((t >= 0) & (t <= largest)).all():
        raise ValueError(
            f"Time t must lie between 0 (data) and {largest:g} (noise); it ranges over {t.min():g}..{t.max():g}."
        )
    return t


def _as_index(t, T):
    t = _as_time(t, T)
    if (t != t.round()).any():
        raise ValueError(
            f"A discrete chain knows the whole times 0..{T} only; use a continuous schedule for times between them."
        )
    return t.long()

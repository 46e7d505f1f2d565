"""What all noise schedules have in common, whatever their alpha and sigma: see `schedules`."""

from dataclasses import dataclass

import torch

from litrev import checks
from litrev.device import double, randn


@dataclass(frozen=True)
class Schedule:
    """What every schedule knows; a subclass gives alpha(t), sigma(t) and says which times it accepts."""

    t_min = 1e-3  # where grids in log-SNR end by default, before the last step to 0

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

    def time_of(self, log_snr):
        """The time of a log-SNR (number or tensor), float64, by halving; raises ValueError where there is none."""
        wanted = as_log_snr(log_snr)
        early, late = torch.zeros_like(wanted), torch.full_like(wanted, self.t_max)
        for _ in range(64):
            middle = (early + late) / 2
            too_clean = self.log_snr(middle) > wanted
            early, late = torch.where(too_clean, middle, early), torch.where(too_clean, late, middle)
        if not ((self.log_snr(late) - wanted).abs() <= 1e-6 * (1 + wanted.abs())).all():
            raise ValueError(f"{self} has no time for a log-SNR of {wanted.min():g}..{wanted.max():g}.")
        return late

    def rates(self, t):
        """(d alpha/dt, d sigma/dt), float64 shaped like t; raises ValueError where one is infinite."""
        return self._slope(self.alpha, t), self._slope(self.sigma, t)

    def drift(self, t):
        """f(t) = d log alpha/dt in the SDE dx = f(t) x dt + g(t) dw (Score-SDE, eq. 5); as `rates`."""
        return self._slope(lambda t: self.alpha(t).log(), t)

    def diffusion(self, t):
        """g(t)^2 = d sigma^2/dt - 2 f sigma^2 = -sigma^2 d lambda/dt in the same SDE; as `rates`."""
        return -(self.sigma(t) ** 2) * self._slope(self.log_snr, t)

    def _slope(self, function, t):
        with torch.enable_grad():
            t = as_time(t, self.t_max).detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(function(t).sum(), t)
        if not (slope.abs() < 1e9).all():
            raise ValueError(f"{self} has an infinite slope at an end: stay inside, e.g. between 1e-5 and 0.999.")
        return slope

    def levels(self, t, like):
        """(alpha_t, sigma_t) in the dtype and on the device of `like` [B, ...], shaped to multiply it; t is a number
        or [B]."""
        checks.floats("B ...", **{"the batch": like})
        levels = self.alpha(t), self.sigma(t)
        if levels[0].ndim > 1 or levels[0].numel() not in (1, len(like)):
            raise ValueError(
                f"{levels[0].numel()} times for a batch of {len(like)}: give one time, or one for each image, [B]."
            )
        shape = (-1,) + (1,) * (like.ndim - 1)
        # The cast comes before the move: a device without float64 never sees one.
        return tuple(level.reshape(shape).to(like.dtype).to(like.device) for level in levels)

    def add_noise(self, x0, t, eps):
        """x_t = alpha_t x_0 + sigma_t eps for x0, eps [B, ...] and t a number or [B] (DDPM, eq. 4)."""
        checks.floats("B ...", x0=x0, eps=eps)
        checks.alike(x0=x0, eps=eps)
        alpha, sigma = self.levels(t, x0)
        return alpha * x0 + sigma * eps

    def network_time(self, t):
        """What a network's time embedding is given: about 0..999 whatever the schedule, as in DDPM's code."""
        return 1000 * as_time(t, 1.0) - 1

    def prior(self, shape, generator, device="cpu"):
        """The noise that sampling starts from: sigma eps at the noisiest time, float32 of `shape`."""
        return float(self.sigma(self.t_max)) * randn(shape, generator, device)

    def grid(self, steps, start=None):
        """`steps` + 1 evenly spaced times from noise, or from `start`, to data, as Python numbers."""
        start = self._start(steps, start)
        return torch.linspace(start, 0, steps + 1, dtype=torch.float64).tolist()

    def _start(self, steps, start):
        """Where a grid of so many steps starts, which is at t_max unless said otherwise."""
        checks.whole(steps=steps)
        checks.number(above=0, at_most=self.t_max, start=self.t_max if start is None else start)
        return self.t_max if start is None else start

    def latest(self):
        """The last time of a thousand (of a chain, of all) at which there is signal left: alpha above 1e-6."""
        times = self._times()
        return times[self.alpha(times) > 1e-6][-1].item()

    def _times(self):
        return torch.linspace(0, 1, 1001, dtype=torch.float64)


def as_log_snr(log_snr):
    """A log-SNR as float64 on the CPU; raises ValueError for what is no number."""
    checks.numeric(log_snr=log_snr)
    return double(log_snr)


def as_time(t, largest):
    """Times as float64 on the CPU; raises ValueError for what is no number from 0 to `largest`."""
    checks.numeric(t=t)
    t = double(t)
    if not ((t >= 0) & (t <= largest)).all():
        raise ValueError(f"Time t must lie between 0 (data) and {largest:g} (noise), not {t.min():g}..{t.max():g}.")
    return t

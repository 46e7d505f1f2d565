"""Times for samplers that put more steps where they are needed; `schedule.grid` spaces them evenly in t."""

import math

from litrev import checks
from litrev.diffusion.denoiser import A_SCHEDULE
from litrev.diffusion.schedules import Geometric, Karras, Schedule


def log_snr_grid(schedule, steps, start=None, end=None):
    """`steps` times evenly spaced in log-SNR from `start` to `end`, then 0, as Python numbers (DPM-Solver, sec. 3.4).

    They default to the schedule's t_max and t_min. A chain's times are whole, and fewer where two coincide. Raises
    ValueError where the log-SNR is infinite at an end.
    """
    return _times(schedule, Geometric(*_noise(schedule, start, end)), steps)


def karras_grid(schedule, steps, start=None, end=None, rho=7.0):
    """As `log_snr_grid`, but evenly spaced in (sigma / alpha)^(1/rho), with more steps at little noise (EDM, eq. 5)."""
    return _times(schedule, Karras(*_noise(schedule, start, end), rho), steps)


def _noise(schedule, start, end):
    """The least and the largest sigma / alpha of the grid."""
    checks.kind(Schedule, A_SCHEDULE, schedule=schedule)
    start, end = schedule.t_max if start is None else start, schedule.t_min if end is None else end
    checks.number(start=start, end=end)
    low, high = float(schedule.log_snr(start)), float(schedule.log_snr(end))
    if not -60 < low < high < 60:
        raise ValueError(
            f"The log-SNR runs from {low:g} at t = {start} to {high:g} at t = {end}: give a start and an end inside, "
            f"the end below the start, such as start={schedule.latest():g}, end={schedule.t_min:g}."
        )
    return math.exp(-high / 2), math.exp(-low / 2)


def _times(schedule, levels, steps):
    """The times at which `schedule` has the noise of `levels`, a VE schedule, on its own grid."""
    return [*dict.fromkeys(schedule.time_of(levels.log_snr(levels.grid(steps)[:-1])).tolist()), 0]

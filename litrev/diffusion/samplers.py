"""Samplers: each is a short generator that walks from noise to data and yields its state after every step, so that a
plot, an animation or a progress bar can watch it. `final(...)` runs one to its end.

All of them take a `Denoiser`, the starting noise x_T and a descending list of times (`schedule.grid(steps)`), and so
run on any schedule and at any number of steps: a step goes from time t to an earlier time s, whatever lies between.
As generators do, they start when their first state is asked for, and that is when wrong arguments raise ValueError.
"""

from itertools import pairwise
from typing import NamedTuple

import torch

from litrev import checks
from litrev.device import double, randn
from litrev.diffusion.denoiser import A_DENOISER, A_SCHEDULE, Denoiser, velocity
from litrev.diffusion.schedules import Schedule


class State(NamedTuple):
    """Where a sampler stands: the time reached, xt there, and the x0 that the denoiser saw just before; images [B,
    ...]."""

    t: float
    xt: torch.Tensor
    x0: torch.Tensor


def final(states):
    """The last state's images, without keeping the others in memory; raises ValueError where there is no state."""
    last = None
    for state in states if hasattr(states, "__iter__") else ():
        last = state
    if not hasattr(last, "xt"):
        raise ValueError(f"states must be a sampler's, as in final(ddim(...)), not {checks.shown(states)}.")
    return last.xt


def _steps(denoiser, x, times, generator=None, draws=False, rising=False):
    """The steps (t, s) between neighbours among the times, after a look at what a sampler was given."""
    return pairwise(_times(denoiser, x, times, generator, draws, rising))


def _times(denoiser, x, times, generator=None, draws=False, rising=False, least="two"):
    """The times as a list, after the same look."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.floats("B ...", **{"x0" if rising else "xT": x})
    checks.finite(**{"x0" if rising else "xT": x})
    if draws:
        checks.generator(generator)
    checks.numeric(times=times)
    denoiser.schedule.alpha(times)  # says which times a schedule knows
    times = times.tolist() if hasattr(times, "tolist") else times
    order = double(times).reshape(-1).diff() * (1 if rising else -1)
    enough = isinstance(times, list | tuple) and len(times) >= {"one": 1, "two": 2}[least]
    if not enough or not (order > 0).all():
        raise ValueError(
            f"times must be {least} or more numbers that {'rise' if rising else 'fall'}, such as schedule.grid(steps)"
            f"{'[::-1]' if rising else ''}, not {checks.shown(times)}."
        )
    return list(times)


@torch.no_grad()
def ancestral(denoiser, xT, times, generator, variance="large"):
    """DDPM's sampler: draw x_s from N(posterior mean given x0-hat, variance), for each step t -> s (DDPM, alg. 2).

    With beta = 1 - alpha_t^2 / alpha_s^2 (the whole noise added between s and t):
      mean = alpha_s beta / sigma_t^2 x0 + (alpha_t / alpha_s) sigma_s^2 / sigma_t^2 x_t
      variance "large": beta; "small": beta sigma_s^2 / sigma_t^2; a fraction in [0, 1]: between the two in logarithms;
      "learned": between them as the network says (improved DDPM, eq. 15). The last step, to sigma_s = 0, adds no noise.
    """
    fraction = variance
    if isinstance(variance, str):
        fraction = {"large": 1, "small": 0, "learned": None}.get(variance, variance)
    if fraction is not None and (not isinstance(fraction, int | float) or not 0 <= fraction <= 1):
        raise ValueError(f'variance is "large" (beta), "small", "learned" or between 0 and 1, not {variance!r}.')
    xt = xT
    for t, s in _steps(denoiser, xT, times, generator, draws=True):
        prediction = denoiser(xt, t)
        x0_weight, xt_weight, beta, posterior = posterior_coefficients(denoiser.schedule, t, s)
        xt = x0_weight * prediction.x0 + xt_weight * xt
        if s > 0:
            v = _learned_fraction(prediction) if fraction is None else fraction
            xt = xt + (beta**v * posterior ** (1 - v)) ** 0.5 * randn(xt.shape, generator, xt.device)
        yield State(s, xt, prediction.x0)


def _learned_fraction(prediction):
    if prediction.fraction is None:
        raise ValueError(
            'variance="learned" needs a denoiser that learned it: from_network(..., learned_variance=True).'
        )
    return prediction.fraction


def _levels(schedule, t):
    return float(schedule.alpha(t)), float(schedule.sigma(t))


def posterior_coefficients(schedule, t, s):
    """q(x_s | x_t, x_0) = N(a x_0 + b x_t, c I) for s < t, as Python numbers (a, b, beta, c); DDPM, eq. 6-7, for any
    pair of times; raises ValueError unless s < t."""
    checks.kind(Schedule, A_SCHEDULE, schedule=schedule)
    checks.number(s=s)
    checks.number(above=s, t=t)
    alpha_t, sigma_t, alpha_s, sigma_s = *_levels(schedule, t), *_levels(schedule, s)
    # 1 - alpha_t^2/alpha_s^2, written with sigmas: alphas near 1 would cancel.
    beta = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    ratio = sigma_s**2 / sigma_t**2
    return alpha_s * beta / sigma_t**2, alpha_t / alpha_s * ratio, beta, beta * ratio


@torch.no_grad()
def ddim(denoiser, xT, times, eta=0.0, generator=None):
    """DDIM's sampler: x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) eps + c z, c = eta sqrt(beta) sigma_s / sigma_t (DDIM,
    eq. 12, 16).

    eta = 0 is deterministic and needs no generator; eta = 1 is `ancestral` with variance "small".
    """
    checks.number(0, eta=eta)
    if eta and generator is None:
        raise ValueError("eta > 0 adds noise: give ddim a generator to draw it from.")
    xt = xT
    for t, s in _steps(denoiser, xT, times, generator, draws=eta > 0):
        prediction = denoiser(xt, t)
        alpha_s, sigma_s = _levels(denoiser.schedule, s)
        noise = eta * posterior_coefficients(denoiser.schedule, t, s)[3] ** 0.5
        xt = alpha_s * prediction.x0 + max(sigma_s**2 - noise**2, 0) ** 0.5 * prediction.eps
        if noise > 0:
            xt = xt + noise * randn(xt.shape, generator, xt.device)
        yield State(s, xt, prediction.x0)


@torch.no_grad()
def ddim_inversion(denoiser, x0, times):
    """DDIM run from data to noise, x_t = (alpha_t / alpha_s) x_s + (sigma_t - alpha_t / alpha_s sigma_s) eps, over the
    ascending `times` 0 = s < t < ...: the code of x0, which `ddim` decodes as nearly as the steps are small (DDIM,
    sec. 4.3).

    eps is asked at the start of each step; at clean data, where there is none, at the first noisy time.
    """
    xt = x0
    for s, t in _steps(denoiser, x0, times, rising=True):
        prediction = denoiser(xt, s or t)
        (alpha_s, sigma_s), (alpha_t, sigma_t) = (_levels(denoiser.schedule, u) for u in (s, t))
        xt = alpha_t / alpha_s * (xt - sigma_s * prediction.eps) + sigma_t * prediction.eps
        yield State(t, xt, prediction.x0)


@torch.no_grad()
def heun(denoiser, xT, times):
    """Second-order steps of the probability-flow ODE: DDIM's, then again with the mean of the predictions at its two
    ends (EDM, alg. 1).

    x_s = x_t + (alpha_s - alpha_t) (x0 + x0') / 2 + (sigma_s - sigma_t) (eps + eps') / 2. The last step, to
    sigma_s = 0, is DDIM's.
    """
    xt = xT
    for t, s in _steps(denoiser, xT, times):
        here = denoiser(xt, t)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (_levels(denoiser.schedule, u) for u in (t, s))
        end = alpha_s * here.x0 + sigma_s * here.eps
        if sigma_s > 0:
            there = denoiser(end, s)
            x0, eps = (here.x0 + there.x0) / 2, (here.eps + there.eps) / 2
            end = xt + (alpha_s - alpha_t) * x0 + (sigma_s - sigma_t) * eps
        xt = end
        yield State(s, xt, here.x0)


@torch.no_grad()
def dpm_solver(denoiser, xT, times):
    """Second-order steps at one network call each: x0 is carried on along the line through its last two values, in half
    the log-SNR (DPM-Solver++, alg. 2). Best on `grids.log_snr_grid`.

    x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) D, D = x0 + h / (2 h_last) (x0 - x0_last). The
    first step, and the last, to sigma_s = 0, are DDIM's.
    """
    yield from sde_dpm_solver(denoiser, xT, times, None, 0)


@torch.no_grad()
def sde_dpm_solver(denoiser, xT, times, generator, noise=1.0):
    """`dpm_solver` with fresh noise in each step, `noise` (c) times as much as in the reverse SDE, which forgets what
    earlier steps got wrong (c = 1: SDE-DPM-Solver++(2M); c = 0: `dpm_solver`).

    With its D and r = e^-h = alpha_t sigma_s / (alpha_s sigma_t), exact where x0 stays D from t to s:
      x_s = (sigma_s / sigma_t) r^(c^2) x_t + alpha_s (1 - r^(1 + c^2)) D + sigma_s sqrt(1 - r^(2 c^2)) z.
    """
    checks.number(0, noise=noise)
    xt, last, h_last = xT, None, None
    for t, s in _steps(denoiser, xT, times, generator, draws=noise > 0):
        x0 = denoiser(xt, t).x0
        h = float(denoiser.schedule.log_snr(s) - denoiser.schedule.log_snr(t)) / 2
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (_levels(denoiser.schedule, u) for u in (t, s))
        guess = x0 if last is None or sigma_s == 0 else x0 + h / (2 * h_last) * (x0 - last)
        kept, r = sigma_s / sigma_t, alpha_t * sigma_s / (alpha_s * sigma_t)
        xt = kept * r**noise**2 * xt + alpha_s * (1 - r ** (1 + noise**2)) * guess
        if noise and s > 0:
            xt = xt + sigma_s * (1 - r ** (2 * noise**2)) ** 0.5 * randn(xt.shape, generator, xt.device)
        last, h_last = x0, h
        yield State(s, xt, x0)


@torch.no_grad()
def euler(denoiser, xT, times):
    """Euler's method in t for the probability-flow ODE: x_s = x_t + (s - t) dx/dt (Score-SDE, sec. 4.3). `ddim`
    is Euler's method along the path itself, and better; they agree on the straight path of rectified flow."""
    xt = xT
    for t, s in _steps(denoiser, xT, times):
        prediction = denoiser(xt, t)
        xt = xt + (s - t) * velocity(prediction, denoiser.schedule.rates(t))
        yield State(s, xt, prediction.x0)


@torch.no_grad()
def euler_maruyama(denoiser, xT, times, generator):
    """The reverse SDE in steps h = t - s: x_s = x_t - (f x_t - g^2 score) h + g sqrt(h) z (Score-SDE, eq. 6). The last
    step adds no noise."""
    xt = xT
    for t, s in _steps(denoiser, xT, times, generator, draws=True):
        prediction = denoiser(xt, t)
        f, g2 = float(denoiser.schedule.drift(t)), float(denoiser.schedule.diffusion(t))
        xt = xt - (f * xt - g2 * prediction.score) * (t - s)
        if s > 0:
            xt = xt + (g2 * (t - s)) ** 0.5 * randn(xt.shape, generator, xt.device)
        yield State(s, xt, prediction.x0)


@torch.no_grad()
def annealed_langevin(denoiser, xT, times, generator, steps=5, size=0.1):
    """At each time, `steps` moves x <- x + a score + sqrt(2 a) z with a = size sigma_t^2 (NCSN, alg. 1; its epsilon is
    2 size sigma_L^2, and size sigma_L^2 in NCSNv2). At time 0, if it is among the times, x0 is taken instead of a move.

    Between levels x is scaled with alpha, so that on any schedule this is NCSN's sampler with noise sigma / alpha.
    Raises ValueError where size is not between 0 and 2, beyond which the moves diverge.
    """
    if not isinstance(size, int | float) or isinstance(size, bool) or not 0 < size < 2:
        raise ValueError(f"size must lie between 0 and 2, where Langevin moves are stable; it is {checks.shown(size)}.")
    checks.whole(steps=steps)
    times = _times(denoiser, xT, times, generator, draws=True, least="one")
    xt, schedule = xT, denoiser.schedule
    for previous, t in pairwise([times[0], *times]):
        if t == 0:
            prediction = denoiser(xt, previous)
            xt = prediction.x0
        else:
            xt = xt * float(schedule.alpha(t) / schedule.alpha(previous))
            a = size * float(schedule.sigma(t)) ** 2
            for _ in range(steps):
                prediction = denoiser(xt, t)
                xt = xt + a * prediction.score + (2 * a) ** 0.5 * randn(xt.shape, generator, xt.device)
        yield State(t, xt, prediction.x0)


@torch.no_grad()
def predictor_corrector(denoiser, xT, times, generator, snr=0.16, corrections=1, noise=True):
    """At each time first `corrections` Langevin moves, then a predictor step (Score-SDE, app. G, in its code's order).

    Predictor, with r = alpha_t / alpha_s and beta = sigma_t^2 - r^2 sigma_s^2: reverse diffusion, x_s = (2 - r) x_t +
    beta score + sqrt(beta) z; or without `noise` the probability flow, x_s = (2 - r) x_t + beta score / 2. Corrector:
    x <- x + a score + sqrt(2 a) z, a = 2 r^2 (snr |z| / |score|)^2 with norms averaged over the batch. The last step
    adds no noise.
    """
    checks.number(0, snr=snr)
    checks.whole(0, corrections=corrections)
    checks.flag(noise=noise)
    xt = xT
    for t, s in _steps(denoiser, xT, times, generator, draws=noise or corrections > 0):
        ratio = float(denoiser.schedule.alpha(t) / denoiser.schedule.alpha(s))
        beta = posterior_coefficients(denoiser.schedule, t, s)[2]
        for _ in range(corrections):
            xt = _correct(denoiser(xt, t).score, xt, snr * ratio, generator)
        prediction = denoiser(xt, t)
        xt = (2 - ratio) * xt + (beta if noise else beta / 2) * prediction.score
        if noise and s > 0:
            xt = xt + beta**0.5 * randn(xt.shape, generator, xt.device)
        yield State(s, xt, prediction.x0)


def _correct(score, xt, snr, generator):
    z = randn(xt.shape, generator, xt.device)
    z_norm, score_norm = (v.flatten(1).norm(dim=1).mean() for v in (z, score))
    a = 2 * (snr * z_norm / score_norm) ** 2
    return xt + a * score + (2 * a).sqrt() * z

"""Samplers: each is a short generator that walks from noise to data and yields its state after every step, so that a
plot, an animation or a progress bar can watch it. `final(...)` runs one to its end.

All of them take a `Denoiser`, the starting noise x_T and a descending list of times (`schedule.grid(steps)`), and so
run on any schedule and at any number of steps: a step goes from time t to an earlier time s, whatever lies between.
"""

from itertools import pairwise
from typing import NamedTuple

import torch

from litrev.device import randn


class State(NamedTuple):
    """Where a sampler stands: the time reached, xt there, and the x0 that the denoiser saw just before; images [B,
    ...]."""

    t: float
    xt: torch.Tensor
    x0: torch.Tensor


def final(states):
    """The last state's images, without keeping the others in memory."""
    for state in states:
        last = state
    return last.xt


@torch.no_grad()
def ancestral(denoiser, xT, times, generator, variance="large"):
    """DDPM's sampler: draw x_s from N(posterior mean given x0-hat, variance), for each step t -> s (DDPM, alg. 2).

    With beta = 1 - alpha_t^2 / alpha_s^2 (the whole noise added between s and t):
      mean = alpha_s beta / sigma_t^2 x0 + (alpha_t / alpha_s) sigma_s^2 / sigma_t^2 x_t
      variance "large": beta; "small": beta sigma_s^2 / sigma_t^2. The last step, to sigma_s = 0, adds no noise.
    """
    if variance not in ("large", "small"):
        raise ValueError(f'variance is "large" (beta) or "small" (the posterior\'s), not {variance!r}.')
    xt = xT
    for t, s in pairwise(times):
        x0 = denoiser(xt, t).x0
        x0_weight, xt_weight, beta, posterior = posterior_coefficients(denoiser.schedule, t, s)
        xt = x0_weight * x0 + xt_weight * xt
        if s > 0:
            xt = xt + (beta if variance == "large" else posterior) ** 0.5 * randn(xt.shape, generator, xt.device)
        yield State(s, xt, x0)


def posterior_coefficients(schedule, t, s):
    """q(x_s | x_t, x_0) = N(a x_0 + b x_t, c I) for s < t, as Python numbers (a, b, beta, c); DDPM, eq. 6-7, for any
    pair of times."""
    alpha_t, sigma_t, alpha_s, sigma_s = (float(level(u)) for u in (t, s) for level in (schedule.alpha, schedule.sigma))
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
    if eta and generator is None:
        raise ValueError("eta > 0 adds noise: give ddim a generator to draw it from.")
    xt = xT
    for t, s in pairwise(times):
        prediction = denoiser(xt, t)
        alpha_s, sigma_s = (float(level(s)) for level in (denoiser.schedule.alpha, denoiser.schedule.sigma))
        noise = eta * posterior_coefficients(denoiser.schedule, t, s)[3] ** 0.5
        xt = alpha_s * prediction.x0 + max(sigma_s**2 - noise**2, 0) ** 0.5 * prediction.eps
        if noise > 0:
            xt = xt + noise * randn(xt.shape, generator, xt.device)
        yield State(s, xt, prediction.x0)

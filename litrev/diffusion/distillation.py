"""Distillation: what a student that takes few steps learns from a teacher that takes many.

On a schedule with alpha^2 + sigma^2 = 1 the signal and noise levels are the cosine and sine of an angle phi, and v
predicts where a rotation leads: DDIM's step from t to s is x_s = cos(d) x_t - sin(d) v, d = phi_t - phi_s. So whatever
point a student shall reach in one step, there is one v that takes it there, and that v is what it is trained on.
"""

from itertools import pairwise

import torch

from litrev import checks
from litrev.device import double, randn
from litrev.diffusion.denoiser import A_DENOISER, A_SCHEDULE, Denoiser, from_network
from litrev.diffusion.schedules import CosineVP, Schedule

COSINE = CosineVP()
T_MIN, T_MAX = 0.004, 0.992  # of `COSINE`, where sigma / alpha is 0.006 and 80: between them consistency models work


def turn(schedule, t, s, like):
    """(cos d, sin d) of the angle d = phi_t - phi_s, phi = atan2(sigma, alpha), between two times (numbers or [B]),
    shaped to multiply `like` [B, ...]; s is not after t.

    Raises ValueError on a schedule without alpha^2 + sigma^2 = 1. Progressive distillation, app. D.
    """
    checks.kind(Schedule, A_SCHEDULE, schedule=schedule)
    checks.floats("B ...", like=like)
    levels = [(schedule.alpha(u), schedule.sigma(u)) for u in (t, s)]
    if any(((alpha**2 + sigma**2 - 1).abs() > 1e-6).any() for alpha, sigma in levels):
        raise ValueError(f"{schedule} does not keep the variance at 1; distillation needs one that does: CosineVP().")
    (alpha_t, sigma_t), (alpha_s, sigma_s) = levels
    cos, sin = alpha_t * alpha_s + sigma_t * sigma_s, sigma_t * alpha_s - alpha_t * sigma_s
    if (sin < -1e-9).any():
        raise ValueError("A step of distillation leads from noise to data: s must not be after t.")
    shape = (-1,) + (1,) * (like.ndim - 1)
    return tuple(part.reshape(shape).to(like.dtype).to(like.device) for part in (cos, sin))


def v_towards(xs, xt, t, s, schedule):
    """The v of one DDIM step from xt at t to xs at s: (cos(d) xt - xs) / sin(d); xs, xt [B, ...], t, s numbers or [B],
    s before t (progressive distillation, app. D)."""
    checks.floats("B ...", xs=xs, xt=xt)
    checks.alike(xs=xs, xt=xt)
    cos, sin = turn(schedule, t, s, xt)
    if (sin == 0).any():
        raise ValueError("There is no v between a time and itself: s must be before t.")
    return (cos * xt - xs) / sin


def ddim_step(denoiser, xt, t, s, **condition):
    """x_s = alpha_s x0 + sigma_s eps, DDIM's step of xt [B, ...] from t to s, each a number or [B]."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    prediction = denoiser(xt, t, **condition)
    alpha, sigma = denoiser.schedule.levels(s, xt)
    return alpha * prediction.x0 + sigma * prediction.eps


def heun_step(denoiser, xt, t, s, **condition):
    """DDIM's step with the mean of the predictions at its two ends, as in `samplers.heun`; t, s numbers or [B]."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    here = denoiser(xt, t, **condition)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (denoiser.schedule.levels(u, xt) for u in (t, s))
    there = denoiser(alpha_s * here.x0 + sigma_s * here.eps, s, **condition)
    x0, eps = (here.x0 + there.x0) / 2, (here.eps + there.eps) / 2
    return xt + (alpha_s - alpha_t) * x0 + (sigma_s - sigma_t) * eps


@torch.no_grad()
def halved(teacher, xt, t, s, **condition):
    """The v by which one step from t to s lands where two DDIM steps of `teacher` land, by way of (t + s) / 2; xt
    [B, ...], t and s numbers or [B] (progressive distillation, algorithm 2)."""
    checks.kind(Denoiser, A_DENOISER, teacher=teacher)
    checks.numeric(t=t, s=s)
    t, s = double(t), double(s)
    middle = (t + s) / 2
    xm = ddim_step(teacher, xt, t, middle, **condition)
    return v_towards(ddim_step(teacher, xm, middle, s, **condition), xt, t, s, teacher.schedule)


def consistency(net):
    """The consistency function f(xt, t, **condition) = cos(d) xt - sin(d) v, d = phi_t - phi_min, of a network that
    answers v on `COSINE`: one DDIM step to `T_MIN`, so that f(x, T_MIN) = x bit for bit (consistency models, eq. 5).

    xt [B, ...], t a number or [B], from T_MIN to 1; raises ValueError elsewhere.
    """
    denoiser = from_network(net, COSINE, "v")

    def f(xt, t, **condition):
        cos, sin = turn(COSINE, t, T_MIN, xt)
        return cos * xt - sin * denoiser(xt, t, **condition).v

    return f


@torch.no_grad()
def multistep(f, xT, times, generator, **condition):
    """x [B, ...] at `T_MIN` by one call of a consistency function `f` at each of the falling `times`: from xT at the
    first, then with fresh noise from T_MIN to the next, x clipped to [-1, 1] (consistency models, algorithm 1).

    Raises ValueError unless the times fall and stay above T_MIN.
    """
    checks.kind(callable, "a function (xt, t) -> x, such as consistency(net)", f=f)
    checks.floats("B ...", xT=xT)
    checks.generator(generator)
    checks.kind(list | tuple, "the times of the calls, such as [T_MAX, 0.6]", times=times)
    checks.number(above=T_MIN, at_most=1, **{f"times[{i}]": t for i, t in enumerate(times)})
    if not times or any(t <= s for t, s in pairwise(times)):
        raise ValueError(f"times must fall, and there must be one at least, not {checks.shown(times)}.")
    x = f(xT, times[0], **condition).clamp(-1, 1)
    for t in times[1:]:
        kept = float(COSINE.alpha(t) / COSINE.alpha(T_MIN))
        noise = float(COSINE.sigma(t) ** 2 - (kept * COSINE.sigma(T_MIN)) ** 2) ** 0.5
        x = f(kept * x + noise * randn(xT.shape, generator, xT.device), t, **condition).clamp(-1, 1)
    return x

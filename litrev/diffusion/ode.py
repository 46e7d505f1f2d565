"""The probability-flow ODE dx/dt = alpha' x0 + sigma' eps solved adaptively: samples, codes, exact likelihoods."""

import math

import torch

from litrev import checks
from litrev.diffusion.denoiser import A_DENOISER, Denoiser, velocity
from litrev.diffusion.samplers import State

# Dormand and Prince's pair of orders 5 and 4: the times of the stages, the weights of the earlier slopes in each (the
# last row is the result), and the weights of all seven slopes in the difference of the two orders.
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
WEIGHTS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def runge_kutta_step(f, t, y, h, slope):
    """One step of size h of dy/dt = f(t, y), with slope = f(t, y): (y after it, of order 5; its estimated error; the
    slope there)."""
    slopes = [slope]
    for node, weights in zip(NODES, WEIGHTS, strict=True):
        moved = y + h * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
        slopes.append(f(t + node * h, moved))
    return moved, h * sum(w * k for w, k in zip(ERROR, slopes, strict=True) if w), slopes[-1]


def solve(f, y, start, end, rtol=1e-5, atol=1e-5):
    """Yield (t, y) along dy/dt = f(t, y) from `start` to `end`, in either direction, after every step that is accepted.

    A step is accepted when the root mean square, over all of y, of error / (atol + rtol |y|) is at most 1. In float32,
    ask for no less than 1e-6. Raises RuntimeError where the steps become too small to move.
    """
    checks.kind(callable, "a function (t, y) -> dy/dt", f=f)
    checks.floats("...", y=y)
    checks.finite(y=y)
    checks.number(start=start, end=end)
    checks.number(0, rtol=rtol)
    checks.number(above=0, atol=atol)
    if start == end:
        raise ValueError(f"start and end must differ; both are {start}.")
    t, slope = start, f(start, y)
    checks.floats("...", **{"What f returns": slope})
    checks.alike(**{"y": y, "what f returns": slope})
    h = (end - start) * min(0.01, _first_step(y, slope, rtol, atol) / abs(end - start))
    while t != end:
        h = h if abs(h) < abs(end - t) else end - t
        moved, error, slope_there = runge_kutta_step(f, t, y, h, slope)
        scale = atol + rtol * torch.maximum(y.abs(), moved.abs())
        ratio = float((error / scale).square().mean().sqrt())
        if ratio <= 1:
            t, y, slope = (end if h == end - t else t + h), moved, slope_there
            yield t, y
        elif abs(h) < 1e-9 * abs(end - start):
            raise RuntimeError(
                f"The solver is stuck at t = {t:g}: ask for larger tolerances, or stop before this time."
            )
        h *= min(10.0, max(0.2, 0.9 * (ratio + 1e-10) ** -0.2)) if math.isfinite(ratio) else 0.2


def _first_step(y, slope, rtol, atol):
    """A step in which y moves by a hundredth of itself, or of the tolerance where y is smaller: a longer one can jump
    over all that happens in a thin layer at the start, and its error does not show it (Hairer et al., sec. II.4)."""
    scale = atol + rtol * y.abs()
    size, speed = (float((x / scale).square().mean().sqrt()) for x in (y, slope))
    return 0.01 * max(size, 1.0) / max(speed, 1e-30)


@torch.no_grad()
def probability_flow(denoiser, x, start, end, rtol=1e-5, atol=1e-5):
    """Yield the State after each step of the ODE between two times: from noise to data, e.g. 1 to 1e-3, it samples;
    from data to noise, e.g. 1e-5 to 1, it encodes (Score-SDE, sec. 4.3)."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.floats("B ...", x=x)

    def slope(t, xt):
        nonlocal prediction
        prediction = denoiser(xt, t)
        return velocity(prediction, denoiser.schedule.rates(t))

    prediction = None
    for t, xt in solve(slope, x, start, end, rtol, atol):
        yield State(t, xt, prediction.x0)  # the last slope of a step is the one at its end


def log_likelihood(denoiser, x0, generator=None, start=1e-5, end=1.0, rtol=1e-5, atol=1e-5):
    """log p(x0) [B], in nats, of data x0 [B, ...] under the probability-flow ODE (Score-SDE, eq. 39).

    log p(x0) = log N(x_T; 0, sigma_T^2) + int div(dx/dt) dt. The divergence is exact, at as many backward passes as x0
    has dimensions; with a generator it is estimated without bias as v grad(dx/dt) v, for one random vector v of signs
    (Hutchinson), at one.
    """
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.floats("B d ...", x0=x0)
    checks.number(start=start)
    checks.number(above=start, end=end)
    if generator is not None:
        checks.generator(generator)
    probe = None if generator is None else 2.0 * torch.randint(2, x0.shape, generator=generator).to(x0) - 1

    def slope(t, state):
        rates = denoiser.schedule.rates(t)
        with torch.enable_grad():
            xt = state[:, :-1].reshape(x0.shape).requires_grad_()
            speed = velocity(denoiser(xt, t), rates)
            change = divergence(speed, xt, probe)
        return torch.cat([speed.detach().flatten(1), change[:, None]], dim=1)

    with torch.no_grad():
        *_, (_, state) = solve(slope, torch.cat([x0.flatten(1), x0.new_zeros(len(x0), 1)], 1), start, end, rtol, atol)
    sigma = float(denoiser.schedule.sigma(end))
    log_prior = -(state[:, :-1] / sigma).square() / 2 - math.log(sigma) - math.log(2 * math.pi) / 2
    return log_prior.sum(1) + state[:, -1]


def divergence(speed, xt, probe=None):
    """sum_i d speed_i / d xt_i [B] for speed [B, ...] computed from xt; with a probe v, v (d speed / d xt) v. Raises
    ValueError for other shapes and where no gradient leads back to xt."""
    checks.floats("B d ...", speed=speed, xt=xt, **({} if probe is None else {"probe": probe}))
    checks.alike(speed=speed, xt=xt, probe=xt if probe is None else probe)
    if not (speed.requires_grad and xt.requires_grad):
        raise ValueError("speed must be computed from xt, where xt.requires_grad_() was called before.")
    if probe is not None:
        (row,) = torch.autograd.grad(speed, xt, probe)
        return (row * probe).flatten(1).sum(1)
    flat, total = speed.flatten(1), 0
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), xt, retain_graph=True)
        total = total + row.flatten(1)[:, i]
    return total


def bits_per_dim(log_p, dimensions, offset=7.0):
    """-log p / (dimensions log 2) + offset, for log p in nats; the offset is log2 of the bins in a unit: 7 for 256 grey
    levels over [-1, 1], 8 over [0, 1] (Score-SDE, app. D)."""
    checks.floats("...", log_p=log_p) if torch.is_tensor(log_p) else checks.number(log_p=log_p)
    checks.whole(dimensions=dimensions)
    checks.number(offset=offset)
    return -log_p / (dimensions * math.log(2)) + offset


def dequantised(pixels, generator):
    """Grey levels 0..255 as continuous data in [-1, 1]: (k + u) / 128 - 1 with u uniform in [0, 1), float32 (Score-SDE,
    app. D)."""
    checks.pixels(pixels=pixels)
    checks.generator(generator)
    u = torch.rand(pixels.shape, generator=generator).to(pixels.device)
    return (pixels.to(torch.float32) + u) / 128 - 1

"""Guidance: wrappers that make a denoiser lean towards a condition. Each returns a denoiser, so they compose.

One convention throughout: the scale s in u + s (c - u), with u the unconditional and c the conditional prediction.
s = 1 is the conditional model, s = 0 the unconditional one, s > 1 exaggerates the condition. In `autoguidance`, which
needs no condition, c is a model and u a weaker one.
"""

from dataclasses import replace

import torch

from litrev import checks
from litrev.diffusion.denoiser import A_DENOISER, Denoiser, Prediction, as_prediction, require_signal


def classifier_free(denoiser, scale, null):
    """The denoiser u + s (c - u), asked once for both (classifier-free guidance, eq. 6).

    null: {name: value}, what each condition that guidance is about becomes for u, e.g. {"label": 10}; a value is a
    number or a tensor that expands to the condition. Other conditions are kept. s = 1 and s = 0 are c and u, bit for
    bit. Raises ValueError where a condition named in `null` is not given.
    """
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.number(scale=scale)
    if not isinstance(null, dict) or not null:
        raise ValueError(
            f'null must name what each condition becomes, as in {{"label": 10}}, not {checks.shown(null)}.'
        )

    def predict(xt, t, **condition):
        if missing := sorted(null.keys() - condition.keys()):
            raise ValueError(f"Guidance needs the condition {missing[0]!r}: give it, e.g. denoiser(xt, t, label=...).")
        for name, value in condition.items():
            if not torch.is_tensor(value) or value.shape[:1] != xt.shape[:1]:
                raise ValueError(f"{name} must be a tensor, one row for each of {len(xt)}, not {checks.shown(value)}.")
        nothing = condition | {name: _like(value, condition[name]) for name, value in null.items()}
        if scale in (0, 1):
            return denoiser(xt, t, **(condition if scale else nothing))
        both = {name: torch.cat([condition[name], nothing[name]]) for name in condition}
        times = torch.cat([t, t]) if torch.is_tensor(t) and t.ndim else t
        return extrapolate(*_halves(denoiser(torch.cat([xt, xt]), times, **both)), scale)

    return Denoiser(denoiser.schedule, predict)


def autoguidance(denoiser, weaker, scale):
    """The denoiser u + s (c - u) of a denoiser c and a `weaker` one u of the same data, such as an earlier state of its
    training (Karras et al. 2024, arXiv 2406.02507: autoguidance).

    The weaker one errs in the same direction, but further: away from it lies what both miss. Where it errs twice as
    far, s = 2 undoes the error. s = 1 is `denoiser` and s = 0 `weaker`, bit for bit. Raises ValueError where their
    schedules differ.
    """
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser, weaker=weaker)
    checks.number(scale=scale)
    _same_schedule(denoiser, weaker)

    def predict(xt, t, **condition):
        if scale in (0, 1):
            return (denoiser if scale else weaker)(xt, t, **condition)
        return extrapolate(denoiser(xt, t, **condition), weaker(xt, t, **condition), scale)

    return Denoiser(denoiser.schedule, predict)


def limited(guided, denoiser, low, high):
    """`guided` where low <= sigma / alpha <= high, elsewhere the plain `denoiser`, which saves the calls that guidance
    makes there (Kynkaanniemi et al. 2024, on guidance in a limited interval).

    Raises ValueError where the two have different schedules, or not all of a batch has the same time.
    """
    checks.kind(Denoiser, A_DENOISER, guided=guided, denoiser=denoiser)
    checks.number(0, low=low)
    checks.number(low, high=high)
    _same_schedule(guided, denoiser)

    def predict(xt, t, **condition):
        ratio = torch.as_tensor(denoiser.schedule.log_snr(t)).div(-2).exp().unique()
        if len(ratio) > 1:
            raise ValueError("Limited guidance needs one time for the whole batch, as samplers give it.")
        return (guided if low <= ratio <= high else denoiser)(xt, t, **condition)

    return Denoiser(denoiser.schedule, predict)


def extrapolate(conditional, unconditional, scale):
    """The Prediction u + s (c - u) of two at the same xt; a learned variance is c's."""
    checks.kind(Prediction, "a denoiser's answer", conditional=conditional, unconditional=unconditional)
    checks.alike(conditional=conditional.x0, unconditional=unconditional.x0)
    checks.number(scale=scale)
    x0, eps = (
        u + scale * (c - u) for c, u in ((conditional.x0, unconditional.x0), (conditional.eps, unconditional.eps))
    )
    return replace(conditional, x0=x0, eps=eps)


def scale_from_w(w):
    """Our scale s = 1 + w for the w of the classifier-free guidance paper, (1 + w) c - w u; Imagen's w is s already."""
    checks.number(w=w)
    return 1 + w


def classifier(denoiser, log_prob, scale=1.0):
    """The denoiser whose eps is eps - s sigma grad log p(y | x_t) (ADM, alg. 2).

    log_prob(xt, t) -> [B], in nats, differentiable in xt, for the class y one wants. On an unconditional denoiser s = 1
    is Bayes' rule; s = 0 leaves the denoiser as it is, bit for bit.
    """
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.kind(callable, "a function (xt, t) -> log p(y | xt) [B]", log_prob=log_prob)
    checks.number(scale=scale)

    def predict(xt, t, **condition):
        prediction = denoiser(xt, t, **condition)
        if scale == 0:
            return prediction
        require_signal(denoiser.schedule, t)
        with torch.enable_grad():
            x = xt.detach().requires_grad_()
            log_p = log_prob(x, t)
            if not torch.is_tensor(log_p) or log_p.shape != xt.shape[:1] or not log_p.requires_grad:
                raise ValueError(
                    f"log_prob must return [{len(xt)}] numbers that follow from xt, not {checks.shown(log_p)}."
                )
            (gradient,) = torch.autograd.grad(log_p.sum(), x)
        eps = prediction.eps - scale * prediction.sigma * gradient
        guided = as_prediction("eps", eps, xt, prediction.alpha, prediction.sigma)
        return replace(guided, fraction=prediction.fraction)

    return Denoiser(denoiser.schedule, predict)


def drop(condition, null, probability, generator):
    """The condition [B, ...] with each entry replaced by `null` with the given probability: what a network is trained
    on so that it learns u as well as c (classifier-free guidance, alg. 1)."""
    if not torch.is_tensor(condition) or not condition.ndim:
        raise ValueError(f"condition must be a tensor, one row for each image, not {checks.shown(condition)}.")
    checks.number(0, 1, probability=probability)
    checks.generator(generator)
    dropped = torch.rand(len(condition), generator=generator) < probability
    dropped = dropped.reshape(-1, *[1] * (condition.ndim - 1)).to(condition.device)
    return torch.where(dropped, _like(null, condition), condition)


def _like(value, condition):
    checks.numeric(null=value)
    null = torch.as_tensor(value)
    checks.expands(condition.shape, null=null)
    if not condition.is_floating_point() and not (null.is_floating_point() <= (null == null.round())).all():
        raise ValueError(f"null must be whole for a condition of {condition.dtype}; it is {checks.shown(value)}.")
    return null.to(condition.dtype).to(condition.device).expand_as(condition)


def _same_schedule(one, other):
    if one.schedule != other.schedule:
        raise ValueError(
            f"Guidance needs denoisers of one schedule, not of {one.schedule} and {other.schedule}: put one on the "
            "other's with denoiser.rescheduled."
        )


def _halves(prediction):
    """The Predictions of the first and the second half of a batch."""
    parts = {name: getattr(prediction, name) for name in ("x0", "eps", "fraction", "alpha", "sigma")}
    n = len(prediction.x0)
    split = {name: (p.chunk(2) if p is not None and len(p) == n else (p, p)) for name, p in parts.items()}
    return [replace(prediction, **{name: pair[i] for name, pair in split.items()}) for i in (0, 1)]

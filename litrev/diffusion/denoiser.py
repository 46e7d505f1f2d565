"""One abstraction for every diffusion model: a denoiser looks at (x_t, t) and says what it believes x_0 and eps are.

Networks predict different things (eps, x0, v, score, flow); at a given x_t each of them determines all the others, so
samplers, guidance and metrics only ever talk to a `Denoiser`. Wrappers such as `clip_x0` take a denoiser and return a
denoiser, so they compose.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from litrev import checks
from litrev.diffusion.schedules import Schedule

PREDICTS = ("eps", "x0", "v", "score", "flow")
A_SCHEDULE, A_DENOISER = "a schedule, such as CosineVP()", "a Denoiser, such as from_network(net, schedule)"


@dataclass(frozen=True)
class Prediction:
    """What a denoiser believes about a noisy batch: x_t = alpha x0 + sigma eps, all tensors shaped like x_t.

    v = alpha eps - sigma x0 (progressive distillation, app. D), score = -eps / sigma, flow = eps - x0 (rectified flow).
    With a learned variance, `fraction` says where it lies between the smallest (0) and the largest (1) variance of a
    step, in logarithms (improved DDPM, eq. 15).
    """

    x0: torch.Tensor
    eps: torch.Tensor
    alpha: torch.Tensor
    sigma: torch.Tensor
    fraction: torch.Tensor | None = None

    @property
    def v(self):
        """alpha eps - sigma x0."""
        return self.alpha * self.eps - self.sigma * self.x0

    @property
    def score(self):
        """The gradient of log p(x_t): -eps / sigma."""
        return -self.eps / self.sigma

    @property
    def flow(self):
        """The velocity eps - x0 of the straight path from data to noise."""
        return self.eps - self.x0


@dataclass(frozen=True)
class Denoiser:
    """A schedule, and a function (xt [B, ...], t a number or [B], **condition) -> Prediction that works on it."""

    schedule: Schedule
    predict: Callable

    def __post_init__(self):
        checks.kind(Schedule, A_SCHEDULE, schedule=self.schedule)
        checks.kind(callable, "a function (xt, t) -> Prediction", predict=self.predict)

    def __call__(self, xt, t, **condition):
        checks.floats("B ...", xt=xt)
        checks.numeric(t=t)
        if torch.is_tensor(t) and t.shape not in ((), xt.shape[:1]) or isinstance(t, list | tuple):
            raise ValueError(
                f"t must be one time, or a tensor [{len(xt)}] of one for each image, not {checks.shown(t)}."
            )
        return self.predict(xt, t, **condition)


def from_network(net, schedule, predicts="eps", learned_variance=False):
    """The denoiser of a network net(xt, time [B], **condition) that was trained to predict `predicts` (one of
    PREDICTS) on `schedule`; with `learned_variance` it answers 2 C channels, the last C for 2 fraction - 1.

    Raises ValueError where `predicts` is unknown, the network's answer does not have the shape it should, or x0 would
    have to be told from eps alone.
    """
    checks.kind(callable, "a network (xt, time) -> tensor", net=net)
    checks.kind(Schedule, A_SCHEDULE, schedule=schedule)
    _known(predicts)
    checks.flag(learned_variance=learned_variance)

    def predict(xt, t, **condition):
        if predicts in ("eps", "score"):
            require_signal(schedule, t)
        if predicts == "x0":
            _require_noise(schedule, t)
        time = schedule.network_time(t).to(torch.float32).expand(len(xt)).to(xt.device)
        answer, channels = net(xt, time, **condition), xt.shape[1:2].numel()
        checks.kind(torch.Tensor, "a tensor", **{"The network's answer": answer})
        out, raw = (answer[:, :channels], answer[:, channels:]) if learned_variance else (answer, answer)
        if not out.shape == raw.shape == xt.shape:
            raise ValueError(
                f"The network turned {tuple(xt.shape)} into {tuple(answer.shape)}; a denoiser needs equal shapes, or "
                "twice the channels with learned_variance=True."
            )
        prediction = as_prediction(predicts, out, xt, *schedule.levels(t, xt))
        return replace(prediction, fraction=(raw + 1) / 2) if learned_variance else prediction

    return Denoiser(schedule, predict)


def require_signal(schedule, t):
    """Raise ValueError at a time where alpha is 0, so that x0 = (x_t - sigma eps) / alpha says nothing."""
    checks.kind(Schedule, A_SCHEDULE, schedule=schedule)
    if not (schedule.alpha(t) > 1e-6).all():
        raise ValueError(
            "Where alpha = 0, x0 does not follow from eps: start a little later, e.g. "
            f"grid(steps, start={schedule.latest():g})."
        )


def _require_noise(schedule, t):
    """Raise ValueError at a time where sigma is 0, so that eps = (x_t - alpha x0) / sigma says nothing."""
    if not (schedule.sigma(t) > 0).all():
        raise ValueError("At t = 0 there is no noise to tell from x0: ask the denoiser at a later time.")


def _known(predicts):
    if not isinstance(predicts, str) or predicts not in PREDICTS:
        raise ValueError(f"A network can predict one of {', '.join(PREDICTS)}, not {checks.shown(predicts)}.")


def as_prediction(predicts, out, xt, alpha, sigma):
    """The Prediction that a network's output `out` (of kind `predicts`) stands for at xt = alpha x0 + sigma eps.

    Each line solves the definition of the quantity together with x_t = alpha x0 + sigma eps for the pair (x0, eps).
    Raises ValueError for another kind or shape.
    """
    _known(predicts)
    checks.floats("B ...", out=out, xt=xt)
    checks.alike(out=out, xt=xt)
    for name, level in (("alpha", alpha), ("sigma", sigma)):
        checks.expands(xt.shape, **{name: level}) if torch.is_tensor(level) else checks.number(**{name: level})
        checks.numeric(**{name: level})
    if predicts == "score":
        predicts, out = "eps", -sigma * out
    if predicts == "eps":
        x0, eps = (xt - sigma * out) / alpha, out
    elif predicts == "x0":
        x0, eps = out, (xt - alpha * out) / sigma
    elif predicts == "v":
        norm = alpha**2 + sigma**2
        x0, eps = (alpha * xt - sigma * out) / norm, (sigma * xt + alpha * out) / norm
    else:  # flow
        x0, eps = (xt - sigma * out) / (alpha + sigma), (xt + alpha * out) / (alpha + sigma)
    return Prediction(x0, eps, alpha, sigma)


def with_x0(x0, xt, prediction):
    """The Prediction with its x0 replaced, and eps made to agree: eps = (x_t - alpha x0) / sigma."""
    checks.kind(Prediction, "a Prediction, a denoiser's answer", prediction=prediction)
    checks.floats("B ...", x0=x0, xt=xt)
    checks.alike(x0=x0, xt=xt, eps=prediction.eps)
    return replace(prediction, x0=x0, eps=(xt - prediction.alpha * x0) / prediction.sigma)


def clip_x0(denoiser, low=-1.0, high=1.0):
    """The denoiser whose x0 is clipped to the range of the data, [-1, 1], as DDPM's sampler does; eps follows the
    clipped x0. Raises ValueError unless low < high."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.number(low=low)
    checks.number(above=low, high=high)

    def predict(xt, t, **condition):
        _require_noise(denoiser.schedule, t)
        prediction = denoiser(xt, t, **condition)
        return with_x0(prediction.x0.clamp(low, high), xt, prediction)

    return Denoiser(denoiser.schedule, predict)


def threshold_x0(denoiser, quantile=0.995):
    """The denoiser whose x0 is clipped to [-s, s] and divided by s, where s, at least 1, is the `quantile` of each
    image's |x0|: dynamic thresholding, for strong guidance (Imagen, sec. 2.3). Raises ValueError for a quantile outside
    (0, 1]."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.number(above=0, at_most=1, quantile=quantile)

    def predict(xt, t, **condition):
        _require_noise(denoiser.schedule, t)
        prediction = denoiser(xt, t, **condition)
        s = prediction.x0.abs().flatten(1).quantile(quantile, dim=1).clamp(min=1)
        s = s.reshape(-1, *[1] * (xt.ndim - 1))
        return with_x0(prediction.x0.clamp(-s, s) / s, xt, prediction)

    return Denoiser(denoiser.schedule, predict)


def given(denoiser, **condition):
    """The denoiser with a condition fixed, such as label=labels, which samplers can then ask without one."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    return Denoiser(denoiser.schedule, lambda xt, t, **more: denoiser(xt, t, **condition, **more))


def rescheduled(denoiser, schedule):
    """The denoiser on another schedule: x_t is scaled to where the old one has the same log-SNR, and x0 and eps are the
    same there (EDM, app. B). A chain is asked at its nearest whole time."""
    checks.kind(Denoiser, A_DENOISER, denoiser=denoiser)
    checks.kind(Schedule, A_SCHEDULE, schedule=schedule)

    def predict(xt, t, **condition):
        old = denoiser.schedule.time_of(schedule.log_snr(t))
        (alpha, sigma), (old_alpha, _) = schedule.levels(t, xt), denoiser.schedule.levels(old, xt)
        prediction = denoiser(xt * (old_alpha / alpha), old, **condition)
        return replace(prediction, alpha=alpha, sigma=sigma)

    return Denoiser(schedule, predict)


def velocity(prediction, rates):
    """dx/dt = (d alpha/dt) x0 + (d sigma/dt) eps, the probability-flow ODE f x - g^2 score / 2 (Score-SDE, eq. 13), for
    `rates` from `schedule.rates(t)` at one time t."""
    checks.kind(Prediction, "a Prediction, a denoiser's answer", prediction=prediction)
    if not isinstance(rates, list | tuple) or len(rates) != 2:
        raise ValueError(f"rates must be the pair schedule.rates(t) at one time, not {checks.shown(rates)}.")
    checks.number(**{"The rate of alpha": rates[0], "The rate of sigma": rates[1]})
    alpha_rate, sigma_rate = (float(rate) for rate in rates)
    return alpha_rate * prediction.x0 + sigma_rate * prediction.eps


def exact(posterior_mean, schedule):
    """The perfect denoiser of data whose E[x_0 | x_t] is known: posterior_mean(xt, alpha, sigma), e.g.
    `toys.GaussianMixture.posterior_mean`."""
    checks.kind(callable, "a function (xt, alpha, sigma) -> E[x0 | xt]", posterior_mean=posterior_mean)
    checks.kind(Schedule, A_SCHEDULE, schedule=schedule)

    def predict(xt, t):
        _require_noise(schedule, t)
        alpha, sigma = schedule.levels(t, xt)
        return as_prediction("x0", posterior_mean(xt, alpha, sigma), xt, alpha, sigma)

    return Denoiser(schedule, predict)

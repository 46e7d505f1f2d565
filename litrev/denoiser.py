"""One abstraction for every diffusion model: a denoiser looks at (x_t, t) and says what it believes x_0 and eps are.

Networks predict different things (eps, x0, v, score, flow); at a given x_t each of them determines all the others, so
samplers, guidance and metrics only ever talk to a `Denoiser`. Wrappers such as `clip_x0` take a denoiser and return a
denoiser, so they compose.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from litrev.schedules import Schedule

PREDICTS = ("eps", "x0", "v", "score", "flow")


@dataclass(frozen=True)
class Prediction:
    """What a denoiser believes about a noisy batch: x_t = alpha x0 + sigma eps, all tensors shaped like x_t.

    v = alpha eps - sigma x0 (progressive distillation, app. D), score = -eps / sigma, flow = eps - x0 (rectified flow).
    """

    x0: torch.Tensor
    eps: torch.Tensor
    alpha: torch.Tensor
    sigma: torch.Tensor

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

    def __call__(self, xt, t, **condition):
        return self.predict(xt, t, **condition)


def from_network(net, schedule, predicts="eps"):
    """The denoiser of a network net(xt, time [B], **condition) that was trained to predict `predicts` (one of
    PREDICTS) on `schedule`.

    Raises ValueError where `predicts` is unknown or the network's answer is not shaped like its input.
    """
    if predicts not in PREDICTS:
        raise ValueError(f"A network can predict one of {', '.join(PREDICTS)}, not {predicts!r}.")

    def predict(xt, t, **condition):
        time = schedule.network_time(t).to(torch.float32).expand(len(xt)).to(xt.device)
        out = net(xt, time, **condition)
        if out.shape != xt.shape:
            raise ValueError(
                f"The network turned {tuple(xt.shape)} into {tuple(out.shape)}; a denoiser needs equal shapes."
            )
        return as_prediction(predicts, out, xt, *schedule.levels(t, xt))

    return Denoiser(schedule, predict)


def as_prediction(predicts, out, xt, alpha, sigma):
    """The Prediction that a network's output `out` (of kind `predicts`) stands for at xt = alpha x0 + sigma eps.

    Each line solves the definition of the quantity together with x_t = alpha x0 + sigma eps for the pair (x0, eps).
    """
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
    eps = (xt - prediction.alpha * x0) / prediction.sigma
    return Prediction(x0, eps, prediction.alpha, prediction.sigma)


def clip_x0(denoiser, low=-1.0, high=1.0):
    """The denoiser whose x0 is clipped to the range of the data, [-1, 1], as DDPM's sampler does; eps follows the
    clipped x0."""

    def predict(xt, t, **condition):
        prediction = denoiser(xt, t, **condition)
        return with_x0(prediction.x0.clamp(low, high), xt, prediction)

    return Denoiser(denoiser.schedule, predict)


def exact(posterior_mean, schedule):
    """The perfect denoiser of data whose E[x_0 | x_t] is known: posterior_mean(xt, alpha, sigma), e.g.
    `toys.GaussianMixture.posterior_mean`."""

    def predict(xt, t):
        alpha, sigma = schedule.levels(t, xt)
        return as_prediction("x0", posterior_mean(xt, alpha, sigma), xt, alpha, sigma)

    return Denoiser(schedule, predict)

"""Curves, bars, and drawings in the plane."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from litrev.plots.figures import COLOURS, legend, named


def _finished(ax: Axes, title: str | None, alt: str | None) -> Figure:
    if title:
        ax.set_title(title)
    return named(ax.get_figure(root=True), alt)


def _smooth(y: np.ndarray) -> np.ndarray:
    """Average y [n] over a centred window of n / 20 that shrinks towards both ends."""
    at = np.arange(len(y))
    reach = np.minimum(len(y) // 40, np.minimum(at, at[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(y)])
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def loss_curve(
    history,
    expected: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    alt: str | None = None,
) -> Figure:
    """Draw a run's loss, light as recorded and bold smoothed; `expected` is a dashed line at the loss to end near.

    `history` has arrays `step` and `loss`; a mapping from labels to several such draws them together.
    """
    runs = history if isinstance(history, Mapping) else {"training loss": history}
    ax = ax or plt.subplots()[1]
    for colour, (label, run) in zip(COLOURS * len(runs), runs.items(), strict=False):
        step, loss = np.asarray(run.step), np.asarray(run.loss, dtype=float)
        ax.plot(step, loss, color=colour, alpha=0.3, linewidth=0.8)
        ax.plot(step, _smooth(loss), color=colour, label=label)
    if expected is not None:
        ax.axhline(expected, color="black", linestyle="--", linewidth=0.8, label=f"expected in the end: {expected:g}")
    ax.set(xlabel="training step", ylabel="loss", yscale="log")
    ax.grid(True, which="both", axis="y")
    legend(ax)
    return _finished(ax, title, alt)


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    errors: Sequence[float] | None = None,
    floor: float | None = None,
    ylabel: str = "Frechet distance",
    title: str | None = None,
    ax: Axes | None = None,
    alt: str | None = None,
) -> Figure:
    """Draw bars with their values on top, error bars, and the `floor` that real data score as a dashed line."""
    ax = ax or plt.subplots()[1]
    drawn = ax.bar(range(len(values)), values, yerr=errors, capsize=3, width=0.65, color=COLOURS[0])
    ax.bar_label(drawn, labels=[f"{value:.3g}" for value in values], padding=2)
    if floor is not None:
        ax.axhline(floor, color=COLOURS[1], linestyle="--", label=f"real data: {floor:.3g}")
    ax.set_xticks(range(len(values)), labels)
    if floor is not None:
        legend(ax)
    ax.set_ylabel(ylabel)
    ax.margins(y=0.12)
    return _finished(ax, title, alt)


def plane(extent: float, ax: Axes | None = None) -> Axes:
    """Return square axes over [-extent, extent]^2 to lay drawings in the plane on."""
    ax = ax or plt.subplots(figsize=(4.5, 4.5))[1]
    ax.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return ax


def scatter(
    points: Tensor | Mapping[str, Tensor],
    extent: float = 1.5,
    title: str | None = None,
    ax: Axes | None = None,
    alt: str | None = None,
) -> Figure:
    """Draw points [n, 2], or several labelled sets of them."""
    ax = plane(extent, ax)
    for label, xy in (points if isinstance(points, Mapping) else {"": points}).items():
        ax.scatter(*xy.detach().cpu().T, s=4, alpha=0.5, linewidths=0, label=label)
    if isinstance(points, Mapping):
        legend(ax, markerscale=3)
    return _finished(ax, title, alt)


def score_field(
    score: Callable[[Tensor], Tensor],
    extent: float = 1.5,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    alt: str | None = None,
) -> Figure:
    """Draw a vector field [n, 2] -> [n, 2] as arrows, long ones shortened, over the log-density if it is given."""
    ax = plane(extent, ax)
    if log_prob is not None:
        fine = torch.linspace(-extent, extent, 120)
        heights = log_prob(torch.cartesian_prod(fine, fine)).reshape(120, 120).T.cpu()
        ax.contourf(fine, fine, heights.clamp(min=heights.max() - 10), levels=12, cmap="Blues", alpha=0.6)
    at = torch.linspace(-extent, extent, 19)[1:-1]
    at = torch.cartesian_prod(at, at)
    arrows = score(at).detach().cpu()
    arrows = arrows / (1 + arrows.norm(dim=1, keepdim=True) / arrows.norm(dim=1).median())
    ax.quiver(*at.T, *arrows.T, angles="xy", width=0.004, color="black")
    return _finished(ax, title, alt)


def trajectories(
    paths: Tensor,
    extent: float = 1.5,
    title: str | None = None,
    ax: Axes | None = None,
    alt: str | None = None,
) -> Figure:
    """Draw the ways of n points through the plane, paths [steps, n, 2]: rings where they start, dots where they end."""
    ax = plane(extent, ax)
    paths = paths.detach().cpu()
    ax.plot(*paths.permute(2, 0, 1), color=COLOURS[0], linewidth=0.7, alpha=0.5)
    ax.scatter(*paths[0].T, s=14, facecolors="none", edgecolors=COLOURS[1], label="start", zorder=3)
    ax.scatter(*paths[-1].T, s=14, color=COLOURS[2], linewidths=0, label="end", zorder=3)
    legend(ax)
    return _finished(ax, title, alt)

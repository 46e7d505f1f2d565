"""Figures in one style. Importing this module sets the style; each function draws and returns a figure of its own.

A notebook shows a figure by ending a cell with the call: functions close their figure, so that it never shows twice.
Drawings in the plane take `ax=` to be laid over each other.
"""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as Picture
from torch import Tensor

from litrev import data

# Okabe & Ito's colours: told apart by readers of any colour vision, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.figsize": (7.0, 3.5),
    "font.size": 10,
    "grid.color": "#dddddd",
    "image.cmap": "gray_r",  # digits as ink on paper
    "image.interpolation": "nearest",
    "legend.edgecolor": "none",
    "savefig.dpi": "figure",
}
plt.rcParams.update(STYLE)

GAP = 2  # pixels between the pictures of a mosaic


def _finished(ax: Axes, title: str | None = None) -> Figure:
    """Set the title, and close the figure in pyplot so that only the cell's value shows it."""
    if title:
        ax.set_title(title)
    plt.close(ax.figure)
    return ax.figure


def mosaic(images: Tensor, columns: int | None = None) -> np.ndarray:
    """Tile images [n, 1 or 3, h, w] in [-1, 1] into one picture of 8 bits, [H, W] (ink on paper) or [H, W, 3].

    Rows of `columns` (default: as square as it gets) with white gaps. Raises ValueError for another shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"Pictures must be [n, 1, h, w] or [n, 3, h, w] with n at least 1, not {list(images.shape)}.")
    n, channels, high, wide = images.shape
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    pixels = data.to_pixels(images.cpu()).permute(0, 2, 3, 1)
    canvas = torch.full((rows * columns, high + GAP, wide + GAP, channels), 255, dtype=torch.uint8)
    canvas[:n, :high, :wide] = 255 - pixels if channels == 1 else pixels
    canvas = canvas.reshape(rows, columns, high + GAP, wide + GAP, channels).transpose(1, 2)
    picture = canvas.reshape(rows * (high + GAP), columns * (wide + GAP), channels)[:-GAP, :-GAP].numpy()
    return picture[..., 0] if channels == 1 else picture


def _show(ax: Axes, picture: np.ndarray) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def grid(images: Tensor, columns: int | None = None, title: str | None = None, width: float = 5.0) -> Figure:
    """Draw images [n, 1 or 3, h, w] in [-1, 1] in rows of `columns`, `width` inches wide."""
    picture = mosaic(images, columns)
    _, ax = plt.subplots(figsize=(width, width * picture.shape[0] / picture.shape[1] + 0.3 * bool(title)))
    _show(ax, picture)
    return _finished(ax, title)


def strip(
    rows: Sequence[Tensor],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    width: float = 8.0,
) -> Figure:
    """Draw a film strip: each of `rows` is images [n, 1 or 3, h, w] in [-1, 1] side by side, all n equal."""
    pictures = torch.cat([row.cpu() for row in rows])
    n, (high, wide) = len(rows[0]), (size + GAP for size in pictures.shape[2:])
    _, ax = plt.subplots(
        figsize=(width, width * len(rows) * high / (n * wide) + 0.3 * (bool(title) + bool(column_labels)))
    )
    _show(ax, mosaic(pictures, n))
    if row_labels:
        ax.set_yticks([high * (i + 0.5) - GAP for i in range(len(rows))], row_labels)
    if column_labels:
        ax.set_xticks([wide * (i + 0.5) - GAP for i in range(n)], column_labels)
    ax.tick_params(length=0)
    return _finished(ax, title)


def _smooth(y: np.ndarray) -> np.ndarray:
    """Average y [n] over a centred window of n / 20 that shrinks towards both ends."""
    at = np.arange(len(y))
    reach = np.minimum(len(y) // 40, np.minimum(at, at[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(y)])
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def loss_curve(history, expected: float | None = None, title: str | None = None, ax: Axes | None = None) -> Figure:
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
    ax.legend()
    return _finished(ax, title)


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    errors: Sequence[float] | None = None,
    floor: float | None = None,
    ylabel: str = "Frechet distance",
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw bars with their values on top, error bars, and the `floor` that real data score as a dashed line."""
    ax = ax or plt.subplots()[1]
    drawn = ax.bar(range(len(values)), values, yerr=errors, capsize=3, width=0.65, color=COLOURS[0])
    ax.bar_label(drawn, labels=[f"{value:.3g}" for value in values], padding=2)
    if floor is not None:
        ax.axhline(floor, color=COLOURS[1], linestyle="--", label=f"real data: {floor:.3g}")
        ax.legend()
    ax.set_xticks(range(len(values)), labels)
    ax.set_ylabel(ylabel)
    ax.margins(y=0.12)
    return _finished(ax, title)


def plane(extent: float, ax: Axes | None = None) -> Axes:
    """Return square axes over [-extent, extent]^2 to lay drawings in the plane on."""
    ax = ax or plt.subplots(figsize=(4.5, 4.5))[1]
    ax.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return ax


def scatter(points: Tensor | Mapping[str, Tensor], extent: float = 1.5, title: str | None = None, ax=None) -> Figure:
    """Draw points [n, 2], or several labelled sets of them."""
    ax = plane(extent, ax)
    for label, xy in (points if isinstance(points, Mapping) else {"": points}).items():
        ax.scatter(*xy.detach().cpu().T, s=4, alpha=0.5, linewidths=0, label=label)
    if isinstance(points, Mapping):
        ax.legend(markerscale=3, loc="upper right")
    return _finished(ax, title)


def score_field(
    score: Callable[[Tensor], Tensor],
    extent: float = 1.5,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
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
    return _finished(ax, title)


def trajectories(paths: Tensor, extent: float = 1.5, title: str | None = None, ax: Axes | None = None) -> Figure:
    """Draw the ways of n points through the plane, paths [steps, n, 2]: rings where they start, dots where they end."""
    ax = plane(extent, ax)
    paths = paths.detach().cpu()
    ax.plot(*paths.permute(2, 0, 1), color=COLOURS[0], linewidth=0.7, alpha=0.5)
    ax.scatter(*paths[0].T, s=14, facecolors="none", edgecolors=COLOURS[1], label="start", zorder=3)
    ax.scatter(*paths[-1].T, s=14, color=COLOURS[2], linewidths=0, label="end", zorder=3)
    ax.legend(loc="upper right")
    return _finished(ax, title)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file of 64 colours: half the size, and the eye sees no difference."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Picture.open(drawn).convert("RGB").quantize(64, dither=Picture.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def light(figure: Figure):
    """Return a figure as a PNG of 64 colours to end a cell with: it keeps a notebook small."""
    from IPython.display import Image  # here, in `animation` and in `slider`: it takes a while, only notebooks have it

    plt.close(figure)
    return Image(png(figure))


def _picture(frame: Figure | Tensor, columns: int | None, scale: int) -> Picture.Image:
    if isinstance(frame, Figure):
        return Picture.open(io.BytesIO(png(frame))).convert("RGB")
    small = Picture.fromarray(mosaic(frame, columns))
    return small.resize((small.width * scale, small.height * scale), Picture.Resampling.NEAREST)


def _few_colours(pictures: list[Picture.Image]) -> list[Picture.Image]:
    """Return the pictures in one palette: 5 even greys, or the 64 colours that suit the first, middle and last."""
    if pictures[0].mode == "L":
        palette = Picture.new("P", (1, 1))
        palette.putpalette([grey for level in range(5) for grey in [round(level * 255 / 4)] * 3])
    else:
        typical = [np.asarray(pictures[i]) for i in (0, len(pictures) // 2, -1)]
        palette = Picture.fromarray(np.concatenate(typical)).quantize(64)
    return [picture.convert("RGB").quantize(palette=palette, dither=Picture.Dither.NONE) for picture in pictures]


def animation(
    frames: Iterable[Figure | Tensor], seconds: float = 4.0, columns: int | None = None, scale: int = 2, alt: str = ""
):
    """Return a looping animation of figures, or of images [n, 1 or 3, h, w] in [-1, 1] tiled as in `grid`.

    It is an animated PNG: Jupyter, GitHub and browsers play it where they show any PNG (GitHub drops GIF outputs), and
    what cannot play it shows the first frame. Five greys keep it small: 9 kB for 36 digits of pure noise. The last
    frame stays for a second. `alt` describes the animation for readers who cannot see it.
    """
    from IPython.display import Image

    pictures = [_picture(frame, columns, scale) for frame in frames]
    bits = 4 if pictures[0].mode == "L" else 8
    first, *others = _few_colours(pictures)
    times = [round(1000 * seconds / len(pictures))] * len(others) + [1000]
    options = {"save_all": True, "loop": 0, "bits": bits, "compress_level": 9}
    file = io.BytesIO()
    first.save(file, "PNG", append_images=others, duration=times, **options)
    return Image(data=file.getvalue(), format="png", width=first.width, alt=alt)


def slider(draw: Callable[..., Figure], values: Sequence, name: str, stills: int = 4) -> Figure:
    """Show a slider over the figures draw(value), all drawn now, and return a figure of some of them.

    The slider picks a picture in the browser, so that it moves without a kernel as well; where no widgets run (GitHub,
    a printout) the returned figure stands for it.
    """
    import ipywidgets
    from IPython.display import display

    pictures = [png(draw(value)) for value in values]
    stack = ipywidgets.Stack([ipywidgets.Image(value=picture) for picture in pictures], selected_index=0)
    choice = ipywidgets.SelectionSlider(options=[(f"{value}", i) for i, value in enumerate(values)], description=name)
    ipywidgets.jslink((choice, "index"), (stack, "selected_index"))
    shown = ipywidgets.VBox([choice, stack])._repr_mimebundle_()
    display(shown | {"text/plain": f"(Run this cell for a slider over {name}.)"}, raw=True)
    chosen = np.linspace(0, len(values) - 1, min(stills, len(values))).round().astype(int)
    return _stills({f"{name} = {values[i]}": pictures[i] for i in chosen})


def _stills(pictures: Mapping[str, bytes]) -> Figure:
    """Draw PNG files of equal size, each under its title: wide ones below each other, others side by side."""
    shown = {title: np.asarray(Picture.open(io.BytesIO(picture)).convert("RGB")) for title, picture in pictures.items()}
    high, wide = next(iter(shown.values())).shape[:2]
    rows, columns = (len(shown), 1) if wide > 2 * high else (1, len(shown))
    width = 5 if columns == 1 else 8
    size = (width, rows * (width / columns * high / wide + 0.3))
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax, (title, picture) in zip(axes.flat, shown.items(), strict=True):
        _show(ax, picture)
        ax.set_title(title)
    return _finished(axes[0, 0])

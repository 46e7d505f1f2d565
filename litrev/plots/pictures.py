"""Many small pictures in one figure: mosaics, grids and film strips."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from litrev import data
from litrev.plots.figures import MARGIN, RETINA, named

GAP = 2  # pixels between the pictures of a mosaic
BREAK = 7  # additional pixels between groups

Groups = int | Sequence[int] | None


def _places(n: int, size: int, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels at which n pictures of `size` pixels start, and those half-way between groups of them."""
    sizes = [groups] * n if isinstance(groups, int) else list(groups or [n])
    if min(sizes) < 1 or sum(sizes) < n:
        raise ValueError(
            f"Groups of {groups} don't hold {n}: give one size of at least 1, or a list that adds up to {n}."
        )
    group = np.repeat(np.arange(len(sizes)), sizes)[:n]
    starts = np.arange(n) * (size + GAP) + group * BREAK
    return starts, starts[1:][np.diff(group) > 0] - (GAP + BREAK + 1) / 2


def _columns(n: int, columns: int | None) -> int:
    return min(columns or math.ceil(math.sqrt(n)), n)


def mosaic(images: Tensor, columns: int | None = None, groups: Groups = None, row_groups: Groups = None) -> np.ndarray:
    """Tile images [n, 1 or 3, h, w] in [-1, 1] into one picture of 8 bits, [H, W] (ink on paper) or [H, W, 3].

    Rows of `columns` (default: as square as it gets) with white gaps. `groups` of columns and `row_groups`, one size
    for all or a list of sizes, stand apart. Raises ValueError for another shape and for groups that hold too few.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"Pictures must be [n, 1, h, w] or [n, 3, h, w] with n at least 1, not {list(images.shape)}.")
    n, channels, high, wide = images.shape
    columns = _columns(n, columns)
    left, top = _places(columns, wide, groups)[0], _places(math.ceil(n / columns), high, row_groups)[0]
    pixels = data.to_pixels(images.cpu()).permute(0, 2, 3, 1)
    pixels = 255 - pixels if channels == 1 else pixels
    canvas = torch.full((top[-1] + high, left[-1] + wide, channels), 255, dtype=torch.uint8)
    for i, picture in enumerate(pixels):
        y, x = top[i // columns], left[i % columns]
        canvas[y : y + high, x : x + wide] = picture
    return canvas[..., 0].numpy() if channels == 1 else canvas.numpy()


def show(ax: Axes, picture: np.ndarray) -> None:
    """Draw a picture of 8 bits over the whole of the axes, without ticks or frame."""
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _fitted(ax: Axes, picture: np.ndarray, width: float) -> Figure:
    """Make the figure as large as its picture and its labels, at most `width` inches wide.

    Each pixel of the picture becomes a square of whole pixels of the file: crisp, even, and small when packed. Only
    a picture with more pixels than that has room for is shrunk.
    """
    figure, (high, wide) = ax.figure, picture.shape[:2]
    dots = RETINA * figure.dpi
    figure.set_size_inches(width, width * high / wide)
    ax.set_position((0, 0, 1, 1))
    box, whole = ax.get_window_extent(), ax.get_tightbbox()
    outside = (box.x0 - whole.x0, box.y0 - whole.y0, whole.x1 - box.x1, whole.y1 - box.y1)
    left, below, right, above = (math.ceil((max(side, 0) / figure.dpi + MARGIN) * dots) for side in outside)
    scale = (width * dots - left - right) / wide
    scale = int(scale) if scale > 1 else scale
    size = left + scale * wide + right, below + scale * high + above
    figure.set_size_inches(size[0] / dots, size[1] / dots)
    ax.set_position((left / size[0], below / size[1], scale * wide / size[0], scale * high / size[1]))
    return figure


def _sheet(images: Tensor, columns: int, groups: Groups, row_groups: Groups) -> tuple[Axes, np.ndarray]:
    """Draw a mosaic with a thin line between groups; return its axes and itself."""
    picture, ax = mosaic(images, columns, groups, row_groups), plt.subplots(layout="none")[1]
    show(ax, picture)
    for x in _places(columns, images.shape[3], groups)[1]:
        ax.axvline(x, color="#999999", linewidth=0.8)
    for y in _places(math.ceil(len(images) / columns), images.shape[2], row_groups)[1]:
        ax.axhline(y, color="#999999", linewidth=0.8)
    return ax, picture


def grid(
    images: Tensor,
    columns: int | None = None,
    title: str | None = None,
    width: float = 5.0,
    groups: Groups = None,
    row_groups: Groups = None,
    alt: str | None = None,
) -> Figure:
    """Draw images [n, 1 or 3, h, w] in [-1, 1] in rows of `columns`, at most `width` inches wide.

    Groups are as in `mosaic`, and `alt` is as in `named`.
    """
    ax, picture = _sheet(images, _columns(len(images), columns), groups, row_groups)
    ax.set_title(title or "")
    return named(_fitted(ax, picture, width), alt)


def _centres(n: int, size: int, groups: Groups, labels: Sequence[str]) -> np.ndarray:
    """Return where labels stand: one for each of n pictures or, if there are just as many, for each group of them."""
    starts, breaks = _places(n, size, groups)
    if len(labels) not in ((n, len(breaks) + 1) if len(breaks) else (n,)):
        raise ValueError(f"There are {len(labels)} labels for {n} pictures in a row: {list(labels)}.")
    edges = np.concatenate([[0], breaks, [starts[-1] + size - 1]])
    return starts + (size - 1) / 2 if len(labels) == n else (edges[1:] + edges[:-1]) / 2


def strip(
    rows: Sequence[Tensor],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    width: float = 8.0,
    groups: Groups = None,
    row_groups: Groups = None,
    alt: str | None = None,
) -> Figure:
    """Draw a film strip: each of `rows` is images [n, 1 or 3, h, w] in [-1, 1] side by side, all n equal.

    It is at most `width` inches wide. Groups are as in `mosaic`: as many labels as groups stand at the groups, else
    there must be one for each row or column (ValueError). `alt` is as in `named`.
    """
    pictures, n = torch.cat([row.cpu() for row in rows]), len(rows[0])
    ax, picture = _sheet(pictures, n, groups, row_groups)
    if row_labels:
        ax.set_yticks(_centres(len(rows), pictures.shape[2], row_groups, row_labels), row_labels)
    if column_labels:
        ax.set_xticks(_centres(n, pictures.shape[3], groups, column_labels), column_labels)
    ax.set_title(title or "")
    return named(_fitted(ax, picture, width), alt)

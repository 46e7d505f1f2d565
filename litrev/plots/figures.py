"""What all figures share: the style, the alternative text, the legend's place, and the small PNG that a notebook shows.

A figure's alternative text is its matplotlib label. Importing this module in a notebook's kernel tells IPython to show
every figure, also one that a notebook draws by itself, as that PNG.
"""

import io
import sys
from base64 import b64encode

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox, ScaledTranslation
from PIL import Image as Picture

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
    "figure.titlesize": 12,
    "font.size": 10,
    "grid.color": "#dddddd",
    "image.cmap": "gray_r",  # digits as ink on paper
    "image.interpolation": "nearest",
    "legend.edgecolor": "none",
    "savefig.dpi": "figure",
}
plt.rcParams.update(STYLE)

VISIBLE = 16  # of 255: the mean error that asks for more colours; a sixteenth of it, where areas count as areas
MARGIN = 0.05  # inches around a figure
RETINA = 2  # pixels of the file for each pixel of the page, both ways
SMALLEST_TYPE = 9.0  # points, at 100 pixels of the page for an inch


def named(figure: Figure, alt: str | None) -> Figure:
    """Give a figure its alternative text, close it in pyplot, and return it: `plots.named(figure, "...")` ends a cell.

    The text is one sentence for readers who cannot see the figure, and the name by which others find it in the stored
    notebook. None leaves the figure without one; raises ValueError if it is blank.
    """
    if alt is not None:
        figure.set_label(checked_alt(alt))
    plt.close(figure)
    return figure


def checked_alt(alt: str) -> str:
    """Return an alternative text; raises ValueError unless it says something, on one line."""
    if not alt.strip() or "\n" in alt:
        raise ValueError(
            f"An alternative text says in one line what the picture shows, for example 'ten digits': {alt!r}."
        )
    return alt


def legend(ax: Axes, *entries, **options) -> None:
    """Put the legend below the axes, where it covers nothing, in as few rows as the width allows.

    `entries` and `options` are those of `Axes.legend`. Call it last: it measures the labels that it must stay clear of.
    """
    dpi = ax.figure.dpi
    depth = (ax.bbox.y0 - ax.xaxis.get_tightbbox().y0) / dpi + 0.04
    below = ax.transAxes + ScaledTranslation(0, -depth, ax.figure.dpi_scale_trans)
    options = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "borderaxespad": 0} | options
    columns = len(ax.legend(*entries, **options).get_texts())
    while ax.legend(*entries, ncols=columns, **options).get_window_extent().width > ax.bbox.width and columns > 1:
        columns -= 1


def rendered(figure: Figure, density: float = RETINA, trim: bool = False) -> Picture.Image:
    """Draw a figure in RGB with `density` pixels for one of the page, and no type below the smallest.

    `trim` cuts blank edges, and widens the canvas to what sticks out of it.
    """
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), SMALLEST_TYPE * 100 / figure.dpi))
    dots, box = density * figure.dpi, figure.bbox_inches
    if trim:
        figure.draw_without_rendering()  # lays it out
        low, high = (edges * dots for edges in figure.get_tightbbox().padded(MARGIN).get_points())
        box = Bbox([np.floor(low) / dots, np.ceil(high) / dots])  # whole pixels keep pictures crisp
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots, bbox_inches=box)
    return Picture.open(file).convert("RGB")


def _colours(picture: Picture.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct colours of an RGB picture [k, 3], the place of each pixel's among them, and their counts."""
    pixels = np.asarray(picture).astype(int) @ (1 << 16, 1 << 8, 1)
    packed, where, count = np.unique(pixels, return_inverse=True, return_counts=True)
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1), where.reshape(pixels.shape), count


def palette_of(picture: Picture.Image) -> np.ndarray:
    """Return a palette [k, 3] that suits an RGB picture: 16 even greys for a grey one, else 32 or 256 of its colours.

    The 16 most frequent colours (paper, lines, fills) are kept exactly. The others count by the root of how often
    they occur, so that a thin line keeps its colour beside a large area.
    """
    found, _, count = _colours(picture)
    if (found == found[:, :1]).all():
        return np.repeat(np.arange(0, 256, 17)[:, None], 3, axis=1)
    if len(found) <= 32:
        return found
    order, weight = np.argsort(-count, kind="stable"), np.sqrt(count)
    others = np.repeat(found[order[16:]], np.ceil(weight[order[16:]]).astype(int), axis=0)
    for colours in (32, 256):
        blends = Picture.fromarray(others[None].astype(np.uint8)).quantize(colours - 16).getpalette()
        palette = np.concatenate([found[order[:16]], np.reshape(blends, (-1, 3))])
        error = np.abs(found - palette[_nearest(found, palette)]).max(axis=1)
        if np.average(error, weights=weight) < VISIBLE and np.average(error, weights=count) < VISIBLE / 16:
            break
    return palette


def _nearest(found: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return which colour of a palette [k, 3] is nearest to each of the colours [n, 3]."""
    chunks = np.array_split(found, len(found) // 10_000 + 1)  # a photograph has many
    return np.concatenate([np.argmin((palette**2).sum(1) - 2 * some @ palette.T, axis=1) for some in chunks])


def in_palette(picture: Picture.Image, palette: np.ndarray) -> Picture.Image:
    """Return an RGB picture with each pixel in the nearest colour of a palette [k, 3]."""
    found, where, _ = _colours(picture)
    few = Picture.fromarray(_nearest(found, palette)[where].astype(np.uint8), "P")
    few.putpalette(palette.astype(np.uint8).tobytes())
    return few


def small_png(picture: Picture.Image) -> bytes:
    """Return an RGB picture as a PNG file in a palette of its own, with four bits a pixel where they are enough."""
    few, file = in_palette(picture, palette_of(picture)), io.BytesIO()
    few.save(file, "PNG", optimize=True, bits=4 if few.getextrema()[1] < 16 else 8)
    return file.getvalue()


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file for Retina screens, small by its few colours: the eye sees no difference."""
    return small_png(rendered(figure, trim=True))


def _bundle(figure: Figure) -> tuple[dict[str, str], dict[str, dict]]:
    """Return what a notebook stores for a figure, data and metadata: the PNG, its size on the page and its text."""
    picture, alt = png(figure), figure.get_label()
    size = (round(side / RETINA) for side in Picture.open(io.BytesIO(picture)).size)
    about = dict(zip(("width", "height"), size, strict=True)) | ({"alt": alt} if alt else {})
    return {"image/png": b64encode(picture).decode(), "text/plain": alt or repr(figure)}, {"image/png": about}


def _show_in_notebooks() -> None:
    """Have this kernel show figures by `_bundle`, and not as matplotlib's own backend for notebooks would.

    That backend registers itself for the type "image/png" whenever it is set up, also later; what is registered for an
    object as a whole comes first and stays.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        from IPython.display import display

        def show(figure: Figure) -> None:
            data, metadata = _bundle(figure)
            display(data, metadata=metadata, raw=True)

        shell.display_formatter.ipython_display_formatter.for_type(Figure, show)


_show_in_notebooks()

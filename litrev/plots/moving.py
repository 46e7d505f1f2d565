"""Pictures that move: animations, and sliders with a static twin."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image as Picture
from torch import Tensor

from litrev.plots.figures import RETINA, checked_alt, in_palette, named, palette_of, rendered, small_png
from litrev.plots.pictures import mosaic, show

PAGE = 9.0  # inches: Jupyter and GitHub shrink what is wider, and the type in it
FIVE_GREYS = np.repeat(np.arange(5)[:, None] * 255 // 4, 3, axis=1)


def _same_size(pictures: Sequence[Picture.Image]) -> list[Picture.Image]:
    """Return the pictures in RGB, each on white paper of the size of the largest."""
    size = max(picture.width for picture in pictures), max(picture.height for picture in pictures)
    papers = [Picture.new("RGB", size, "white") for _ in pictures]
    for paper, picture in zip(papers, pictures, strict=True):
        paper.paste(picture)
    return papers


def _frame(frame: Figure | Tensor, columns: int | None, scale: int) -> Picture.Image:
    if isinstance(frame, Figure):
        plt.close(frame)
        return rendered(frame, density=1)
    small = Picture.fromarray(mosaic(frame, columns))
    return small.resize((small.width * scale, small.height * scale), Picture.Resampling.NEAREST)


def animation(
    frames: Iterable[Figure | Tensor],
    seconds: float = 4.0,
    columns: int | None = None,
    scale: int = 2,
    alt: str | None = None,
):
    """Return a looping animation of figures, or of images [n, 1 or 3, h, w] in [-1, 1] tiled as in `grid`.

    It is an animated PNG: Jupyter, GitHub and browsers play it where they show any PNG (GitHub drops GIF outputs), and
    what cannot play it shows the first frame. Five greys keep it small: 9 kB for 36 digits of pure noise. Figures have
    one pixel for one of the page. The last frame stays for a second. `alt` is as in `named`.
    """
    from IPython.display import Image  # here and in `slider`: it takes a while, and only notebooks have it

    drawn = [_frame(frame, columns, scale) for frame in frames]
    pictures = _same_size(drawn)
    typical = np.concatenate([np.asarray(pictures[i]) for i in (0, len(pictures) // 2, -1)])
    palette = FIVE_GREYS if drawn[0].mode == "L" else palette_of(Picture.fromarray(typical))
    first, *others = (in_palette(picture, palette) for picture in pictures)
    times = [round(1000 * seconds / len(pictures))] * len(others) + [1000]
    options = {"save_all": True, "loop": 0, "bits": 4 if len(palette) <= 16 else 8, "compress_level": 9}
    file = io.BytesIO()
    first.save(file, "PNG", append_images=others, duration=times, **options)
    about = {"alt": checked_alt(alt)} if alt is not None else {}
    return Image(data=file.getvalue(), format="png", width=first.width, height=first.height, **about)


def slider(draw: Callable[..., Figure], values: Sequence, name: str, stills: int = 4, alt: str | None = None) -> Figure:
    """Show a slider over the figures draw(value), all drawn now, and return a figure of some of them.

    The slider picks a picture in the browser, so that it moves without a kernel as well; where no widgets run (GitHub,
    a printout) the returned figure stands for it: `stills` of the figures, as large as they are. `alt` is its text.
    """
    import ipywidgets
    from IPython.display import display

    figures = [draw(value) for value in values]
    pictures = _same_size([rendered(figure) for figure in figures])
    width = f"{pictures[0].width // RETINA}px"
    shown = [ipywidgets.Image(value=small_png(picture), width=width) for picture in pictures]
    stack = ipywidgets.Stack(shown, selected_index=0)
    choice = ipywidgets.SelectionSlider(options=[(f"{value}", i) for i, value in enumerate(values)], description=name)
    ipywidgets.jslink((choice, "index"), (stack, "selected_index"))
    box = ipywidgets.VBox([choice, stack])._repr_mimebundle_()
    display(box | {"text/plain": f"(Run this cell for a slider over {name}.)"}, raw=True)
    chosen = np.linspace(0, len(values) - 1, min(stills, len(values))).round().astype(int)
    return named(_stills({f"{name} = {values[i]}": pictures[i] for i in chosen}, RETINA * figures[0].dpi), alt)


def _stills(pictures: Mapping[str, Picture.Image], dots: float) -> Figure:
    """Lay out pictures of equal size at `dots` for an inch, each under its title, in as many columns as a page has."""
    first, title = next(iter(pictures.values())), 0.3
    wide, high = first.width / dots, first.height / dots + title
    columns = max(1, min(len(pictures), int(PAGE / wide)))
    rows = -(-len(pictures) // columns)
    figure = plt.figure(figsize=(columns * wide, rows * high), layout="none")
    for i, (text, picture) in enumerate(pictures.items()):
        row, column = divmod(i, columns)
        place = (column / columns, 1 - (row + 1) / rows, 1 / columns, (high - title) / high / rows)
        ax = figure.add_axes(place)
        show(ax, np.asarray(picture))
        ax.set_title(text)
    return figure

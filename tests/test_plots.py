"""Figures show the numbers they were given, once, in one style; animations are small PNGs that really move."""

import io
import json
from base64 import b64decode
from types import SimpleNamespace

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from nbclient import NotebookClient
from PIL import Image as Picture

from litrev import data, plots
from litrev.data import toys
from litrev.device import generator
from litrev.plots import charts, figures
from tools import notebook_picture

HISTORY = SimpleNamespace(step=np.arange(25, 5001, 25), loss=1 / np.arange(1, 201))
DRAWINGS = {
    "grid": lambda: plots.grid(noise(5), columns=3, title="five"),
    "strip": lambda: plots.strip([noise(3), noise(3)], ["a", "b"], ["1", "2", "3"], title="film"),
    "loss_curve": lambda: plots.loss_curve(HISTORY, expected=0.005, title="loss"),
    "bars": lambda: plots.bars(["a", "b"], [1.0, 2.5], [0.1, 0.2], floor=0.2, title="bars"),
    "scatter": lambda: plots.scatter({"a": torch.zeros(3, 2), "b": torch.ones(3, 2)}, title="points"),
    "score_field": lambda: plots.score_field(toys.ring().score, log_prob=toys.ring().log_prob, title="arrows"),
    "trajectories": lambda: plots.trajectories(torch.zeros(4, 3, 2), title="ways"),
}


def noise(n, channels=1, seed=0):
    return torch.randn(n, channels, 28, 28, generator=generator(seed))


def decoded(png):
    return np.asarray(Picture.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_function_returns_one_titled_closed_figure(name):
    figure = DRAWINGS[name]()
    assert isinstance(figure, Figure) and plt.get_fignums() == []  # closed: a cell shows it once
    assert figure.axes[0].get_title()
    pixels = decoded(plots.png(figure))
    assert pixels.std() > 5 and pixels[0, 0].tolist() == [255, 255, 255]
    assert len(plots.png(figure)) < 60_000


def test_the_style_is_one_for_all():
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"][0] == plots.COLOURS[0]


def test_mosaic_puts_each_image_in_its_place():
    images = noise(5)
    picture = plots.mosaic(images, columns=3)
    assert picture.shape == (2 * 30 - 2, 3 * 30 - 2) and picture.dtype == np.uint8
    for i in range(5):
        row, column = 30 * (i // 3), 30 * (i % 3)
        tile = picture[row : row + 28, column : column + 28]
        assert np.array_equal(tile, 255 - data.to_pixels(images[i, 0]).numpy())  # ink on paper
    assert (picture[30:, 60:] == 255).all() and (picture[28:30] == 255).all()


def test_mosaic_keeps_colours():
    picture = plots.mosaic(noise(4, channels=3))
    assert picture.shape == (58, 58, 3)
    assert np.array_equal(picture[30:, 30:], data.to_pixels(noise(4, channels=3)[3]).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shape", [(28, 28), (5, 28, 28), (5, 2, 28, 28), (0, 1, 28, 28)])
def test_mosaic_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="n at least 1, not"):
        plots.mosaic(torch.zeros(shape))


def test_strip_labels_stand_at_the_middle_of_their_pictures():
    ax = plots.strip([noise(3), noise(3)], ["a", "b"], ["1", "2", "3"]).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert list(ax.get_yticks()) == [13.5, 43.5] and list(ax.get_xticks()) == [13.5, 43.5, 73.5]


def test_loss_curve_shows_the_history_and_where_it_should_end():
    ax = plots.loss_curve({"one": HISTORY, "two": HISTORY}, expected=0.005).axes[0]
    recorded, smooth, *_, expected = ax.get_lines()
    assert np.array_equal(recorded.get_xydata(), np.stack([HISTORY.step, HISTORY.loss], 1))
    assert len(ax.get_lines()) == 5 and smooth.get_label() == "one" and set(expected.get_ydata()) == {0.005}
    assert ax.get_xlabel() and ax.get_ylabel()


@pytest.mark.parametrize("n", [1, 2, 39, 400])
def test_smoothing_keeps_straight_lines_and_lowers_noise(n):
    line = np.linspace(3, 7, n)
    assert np.allclose(charts._smooth(line), line)
    if n == 400:
        wiggle = torch.randn(n, generator=generator(0)).numpy()
        assert charts._smooth(wiggle)[20:-20].std() < 0.4 * wiggle.std()


def test_bars_stand_as_high_as_their_values():
    ax = plots.bars(["a", "b"], [1.0, 2.5], floor=0.25).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [1.0, 2.5]
    assert {"1", "2.5"} <= {text.get_text() for text in ax.texts}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["real data: 0.25"]


def test_arrows_point_along_the_field():
    def field(x):
        return torch.stack([x[:, 1], -x[:, 0]], 1)

    arrows = plots.score_field(field).axes[0].collections[0]
    along = field(torch.as_tensor(arrows.XY)).double()
    drawn = torch.as_tensor(np.stack([arrows.U, arrows.V], 1)).double()
    cosine = torch.cosine_similarity(drawn, along)
    assert torch.allclose(cosine[along.norm(dim=1) > 1e-6], torch.ones(()).double(), atol=1e-5)


def test_drawings_can_be_laid_over_each_other():
    ax = plots.plane(2.0)
    figure = plots.trajectories(torch.zeros(4, 3, 2), 2.0, ax=ax)
    assert plots.scatter(torch.zeros(5, 2), 2.0, ax=ax) is figure
    assert len(ax.collections) == 3 and ax.get_xlim() == (-2, 2)


def test_animation_of_digits_moves_and_stays_small():
    x, eps = data.mnist("test")[0][:36], noise(36)
    frames = [(1 - t**2).sqrt() * x + t * eps for t in torch.linspace(1, 0, 40)]
    image = plots.animation(frames, seconds=4, alt="digits")
    assert len(image.data) < 400_000
    assert image._repr_mimebundle_()[0].keys() == {"image/png"} and image.alt == "digits"
    movie = Picture.open(io.BytesIO(image.data))
    assert movie.n_frames == 40 and movie.info["loop"] == 0 and movie.info["duration"] == 100
    movie.seek(39)
    assert movie.info["duration"] == 1000
    last = np.asarray(movie.convert("L"))[::2, ::2].astype(int)
    assert np.abs(last - plots.mosaic(x)).max() <= 40  # one of five greys that are 64 apart


def test_animation_of_colour_images_and_of_figures():
    colour = plots.animation([noise(4, 3, seed=k) for k in range(3)], scale=1)
    assert Picture.open(io.BytesIO(colour.data)).size == (58, 58)
    drawn = [plots.scatter(torch.full((1, 2), float(k)), extent=3) for k in range(3)]
    movie = Picture.open(io.BytesIO(plots.animation(drawn).data))
    assert movie.n_frames == 3
    movie.seek(2)
    last = plots.scatter(torch.full((1, 2), 2.0), extent=3)
    difference = np.abs(np.asarray(movie.convert("RGB")).astype(int) - np.asarray(figures.rendered(last, 1)))
    assert difference.mean() < 0.5 and np.asarray(movie.convert("RGB"))[0, 0].tolist() == [255] * 3


def test_small_things_keep_their_colours_beside_large_ones():
    """Twelve spots of six by six pixels, each of a hue of its own, on grey; both vary a little, as what is painted."""
    rng = np.random.default_rng(0)
    picture, spots = 128 + 10 * rng.standard_normal((64, 64, 3)), np.zeros((64, 64), bool)
    for k in range(12):
        spot = slice(16 * (k % 4) + 5, 16 * (k % 4) + 11), slice(20 * (k // 4) + 5, 20 * (k // 4) + 11)
        picture[spot], spots[spot] = 255 * np.array(hsv_to_rgb((k / 12, 1, 0.8))), True
    wanted = (picture + 4 * rng.standard_normal(picture.shape)).clip(0, 255).astype(np.uint8)
    shown = figures.in_palette(Picture.fromarray(wanted), figures.palette_of(Picture.fromarray(wanted)))
    error = np.abs(np.asarray(shown.convert("RGB")).astype(int) - wanted)[spots].max(axis=-1)
    assert np.percentile(error, 90) < 24


def test_slider_links_every_picture_and_leaves_stills(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: shown.append(ends))

    def draw(t):
        return plots.grid(t * noise(4), width=2)

    stills = plots.slider(draw, [1.0, 0.5, 0.25, 0.0, -1.0], "t")
    ((choice, index), (stack, selected)), bundle = shown
    assert (index, selected) == ("index", "selected_index")
    assert "application/vnd.jupyter.widget-view+json" in bundle and "Run this cell" in bundle["text/plain"]
    assert [label for label, _ in choice.options] == ["1.0", "0.5", "0.25", "0.0", "-1.0"]
    frame = figures.rendered(draw(0.25))
    assert np.array_equal(decoded(stack.children[2].value), decoded(figures.small_png(frame)))
    assert stack.children[2].width == f"{frame.width // 2}px"
    assert [ax.get_title() for ax in stills.axes] == ["t = 1.0", "t = 0.5", "t = 0.0", "t = -1.0"]
    assert plt.get_fignums() == []


def test_stills_are_as_large_as_their_figures_so_that_their_type_stays_legible(monkeypatch):
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: None)
    drawn = [plots.strip([noise(4)], ["t"], title="four", width=4), plots.strip([noise(4, seed=1)], ["t"], width=4)]
    stills = plots.slider(lambda i: drawn[i], [0, 1], "i", alt="two strips")
    page, frame = np.asarray(figures.rendered(stills)), np.asarray(figures.rendered(drawn[0]))
    places = np.lib.stride_tricks.sliding_window_view(page, frame.shape)[:, :, 0]
    assert any((place == frame).all() for place in places[:120, :3].reshape(-1, *frame.shape))  # pixel for pixel
    assert stills.get_size_inches()[0] <= 9 and stills.get_label() == "two strips"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("groups", "breaks"), [(2, [60, 127]), ([1, 4], [30]), (None, [])])
def test_groups_stand_apart_with_a_line_between_them(channels, groups, breaks):
    images = torch.zeros(5, channels, 8, 28)  # mid-grey, so that all white is gap
    white = (plots.mosaic(images, 5, groups).reshape(8, -1, channels) == 255).all((0, 2))
    gaps = [len(run) for run in "".join("#."[not blank] for blank in white).split(".") if run]
    ends = {sum(([groups] * 2 if groups == 2 else groups or [])[: k + 1]) for k in range(2)} if groups else set()
    assert gaps == [9 if k in ends else 2 for k in range(1, 5)]
    for figure in (plots.strip([images], groups=groups), plots.grid(images, 5, groups=groups)):
        lines = [line.get_xdata()[0] for line in figure.axes[0].get_lines()]
        assert len(lines) == len(breaks) and all(white[int(x) : int(x) + 2].all() for x in lines)


def test_groups_of_rows_and_labels_for_groups():
    ax = plots.strip([noise(4)] * 3, ["a", "b"], ["1", "2"], groups=2, row_groups=[1, 2]).axes[0]
    assert list(ax.get_xticks()) == pytest.approx([31, 94], abs=2) and len(ax.get_lines()) == 2
    assert list(ax.get_yticks()) == pytest.approx([15, 65], abs=2)
    for wrong in ({"row_labels": ["a"]}, {"column_labels": ["1", "2", "3"]}, {"groups": 0}, {"groups": [1, 1]}):
        with pytest.raises(ValueError, match="labels for|don't hold"):
            plots.strip([noise(4)] * 3, **wrong)
        plt.close("all")


def test_pixels_of_pictures_are_squares_of_whole_pixels_and_no_band_is_blank():
    picture = decoded(plots.png(plots.grid(-torch.ones(6, 1, 28, 28), 3)))  # white
    picture = decoded(plots.png(plots.grid(torch.ones(6, 1, 28, 28), 3, width=3)))  # black
    dark = picture[:, :, 0] == 0
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    scale = (rows[-1] - rows[0] + 1) // 58
    assert rows[-1] - rows[0] + 1 == 58 * scale and columns[-1] - columns[0] + 1 == 88 * scale and scale == 6
    assert max(rows[0], columns[0], picture.shape[0] - rows[-1], picture.shape[1] - columns[-1]) <= 25


@pytest.mark.parametrize("name", DRAWINGS)
def test_type_is_large_enough_at_the_size_shown(name):
    figure = DRAWINGS[name]()
    written = [text for text in figure.findobj(Text) if text.get_text()]
    assert written and min(text.get_fontsize() for text in written) >= 9
    assert figure.dpi == 100 and figure.get_size_inches()[0] <= 9


def test_smaller_type_is_enlarged_when_a_figure_is_drawn():
    figure, ax = plt.subplots(dpi=75)
    small = ax.text(0.5, 0.5, "small", fontsize=5)
    plots.png(plots.named(figure, "small type"))
    assert small.get_fontsize() == 12  # 9 points of a figure with 100 dots an inch


@pytest.mark.parametrize("name", ["loss_curve", "bars", "scatter", "trajectories"])
def test_a_legend_covers_nothing(name):
    figure = DRAWINGS[name]()
    figure.draw_without_rendering()
    ax = figure.axes[0]
    box = ax.get_legend().get_window_extent()
    assert box.y1 < ax.bbox.y0 and box.y1 < ax.xaxis.get_tightbbox().y0 and box.y0 >= 0


def test_a_wide_legend_is_broken_into_rows():
    ax = plt.subplots(figsize=(4, 3))[1]
    for k in range(5):
        ax.plot([0, 1], [0, k], label=f"a fairly long label {k}")
    plots.legend(ax)
    plots.named(ax.figure, "five lines")
    ax.figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().width <= ax.figure.bbox.width


def test_palettes_keep_paper_ink_and_thin_lines_and_colour_pictures():
    figure, ax = plt.subplots()
    for k, colour in enumerate(plots.COLOURS):
        ax.plot([0, 1], [k, k], color=colour, linewidth=1)
    shown = {tuple(colour) for colour in decoded(plots.png(plots.named(figure, "seven lines"))).reshape(-1, 3).tolist()}
    assert (255, 255, 255) in shown and len(shown) <= 32
    wanted = [tuple(round(255 * c) for c in to_rgb(colour)) for colour in plots.COLOURS]
    assert all(min(max(abs(a - b) for a, b in zip(rgb, seen, strict=True)) for seen in shown) <= 8 for rgb in wanted)
    strip = plots.strip([noise(4, channels=3).clamp(-1, 1)])
    error = np.abs(decoded(plots.png(strip)).astype(int) - np.asarray(figures.rendered(strip, trim=True)))
    assert error.mean() < 12


def test_typical_figures_are_small():
    digits = data.mnist("test")[0]
    assert len(plots.png(plots.grid(digits[:60], 20, title="Real test digits", width=8))) < 15_000
    assert len(plots.png(plots.strip([noise(10)] * 3, ["a", "b", "c"]))) < 40_000
    assert len(plots.png(DRAWINGS["loss_curve"]())) < 20_000


def test_the_bundle_holds_the_text_and_half_the_size_in_pixels():
    bundle, about = figures._bundle(plots.grid(noise(4), alt="four noises"))
    width, height = Picture.open(io.BytesIO(b64decode(bundle["image/png"]))).size
    expected = {"alt": "four noises", "width": round(width / 2), "height": round(height / 2)}
    assert about == {"image/png": expected} and bundle["text/plain"] == "four noises"
    assert "alt" not in figures._bundle(plots.grid(noise(4)))[1]["image/png"]


@pytest.mark.parametrize("alt", ["", "  ", "two\nlines"])
def test_an_alternative_text_says_something(alt):
    for draw in (lambda: plots.grid(noise(4), alt=alt), lambda: plots.animation([noise(4)], alt=alt)):
        with pytest.raises(ValueError, match="in one line what the picture shows"):
            draw()
    plt.close("all")


CELLS = [
    "import matplotlib.pyplot as plt, torch\nfrom litrev import plots",
    "plots.grid(torch.zeros(4, 1, 28, 28), alt='four greys')",
    "figure, ax = plt.subplots()\nplots.named(figure, 'empty axes')",
    "plt.plot([0, 1]);",
    "plots.animation([torch.zeros(4, 1, 28, 28)] * 2, alt='still')",
]


def test_a_stored_notebook_holds_each_picture_once_with_text_and_size(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own, as for a reader
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.write(notebook, tmp_path / "stored.ipynb")
    cells = nbformat.read(tmp_path / "stored.ipynb", as_version=4)["cells"]
    shown = [[output for output in cell["outputs"] if "image/png" in output.get("data", {})] for cell in cells]
    assert [len(outputs) for outputs in shown] == [0, 1, 1, 1, 1]
    about = [outputs[0]["metadata"]["image/png"] for outputs in shown[1:]]
    assert [metadata.get("alt") for metadata in about] == ["four greys", "empty axes", None, "still"]
    for outputs, metadata, density in zip(shown[1:], about, [2, 2, 2, 1], strict=True):
        size = Picture.open(io.BytesIO(b64decode(outputs[0]["data"]["image/png"]))).size
        assert (metadata["width"], metadata["height"]) == tuple(round(side / density) for side in size)
    assert notebook_picture.pictures(json.loads((tmp_path / "stored.ipynb").read_text())).keys() == {
        "four greys",
        "empty axes",
        "still",
    }

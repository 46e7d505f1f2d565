"""Figures show the numbers they were given, once, in one style; animations are small PNGs that really move."""

import io
from types import SimpleNamespace

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image as Picture

from litrev import data, plots
from litrev.data import toys
from litrev.device import generator

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
    assert decoded(plots.light(figure).data).std() > 5
    assert pixels.std() > 5 and pixels[0, 0].tolist() == [255, 255, 255]
    assert len(plots.png(figure)) < 150_000


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
    assert list(ax.get_yticks()) == [13, 43] and list(ax.get_xticks()) == [13, 43, 73]


def test_loss_curve_shows_the_history_and_where_it_should_end():
    ax = plots.loss_curve({"one": HISTORY, "two": HISTORY}, expected=0.005).axes[0]
    recorded, smooth, *_, expected = ax.get_lines()
    assert np.array_equal(recorded.get_xydata(), np.stack([HISTORY.step, HISTORY.loss], 1))
    assert len(ax.get_lines()) == 5 and smooth.get_label() == "one" and set(expected.get_ydata()) == {0.005}
    assert ax.get_xlabel() and ax.get_ylabel()


@pytest.mark.parametrize("n", [1, 2, 39, 400])
def test_smoothing_keeps_straight_lines_and_lowers_noise(n):
    line = np.linspace(3, 7, n)
    assert np.allclose(plots._smooth(line), line)
    if n == 400:
        wiggle = torch.randn(n, generator=generator(0)).numpy()
        assert plots._smooth(wiggle)[20:-20].std() < 0.4 * wiggle.std()


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
    figures = [plots.scatter(torch.full((1, 2), float(k)), extent=3) for k in range(3)]
    movie = Picture.open(io.BytesIO(plots.animation(figures).data))
    assert movie.n_frames == 3
    movie.seek(2)
    difference = np.abs(np.asarray(movie.convert("RGB")).astype(int) - decoded(plots.png(figures[2])))
    assert difference.mean() < 4


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
    assert np.array_equal(decoded(stack.children[2].value), decoded(plots.png(draw(0.25))))
    assert [ax.get_title() for ax in stills.axes] == ["t = 1.0", "t = 0.5", "t = 0.0", "t = -1.0"]
    assert plt.get_fignums() == []


def test_stills_show_the_pictures_and_not_their_palettes():
    stills = plots.slider(lambda t: plots.strip([t * noise(4)] * 1, width=4), [1.0, 0.0], "t")
    assert (
        len(stills.axes) == 2 and stills.axes[0].get_position().y0 > stills.axes[1].get_position().y1
    )  # wide: stacked
    shown = stills.axes[0].images[0].get_array()
    assert (
        shown.shape[-1] == 3 and shown.max() == 255 and (shown == 255).all(-1).mean() > 0.1
    )  # white between the digits

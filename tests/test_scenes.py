"""Scenes are what their attributes say: the splits and their laws by counting, pixels and places by the palette."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from lab import fingerprint
from litrev import data
from litrev.data import captions, scenes
from litrev.data.captions import ATTRIBUTES
from litrev.data.scenes import KEYS, Scenes
from litrev.device import generator

HELD_OUT = {
    "red": ("zero", "five"),
    "green": ("four", "nine"),
    "blue": ("three", "eight"),
    "yellow": ("two", "seven"),
    "purple": ("one", "six"),
    "cyan": ("zero", "five"),
}
PAIRS = {(captions.DIGITS.index(d), captions.COLOURS.index(c)) for c, digits in HELD_OUT.items() for d in digits}
PLACES = {("small", "top right"), ("large", "bottom left")}


def rules(d, c, s, p, *_):
    """Whether rule A and rule B hold a scene out, from the lists above."""
    return (d, c) in PAIRS, (captions.SIZES[s], captions.POSITIONS[p]) in PLACES


SPLITS = {(False, False): "seen", (True, False): "A", (False, True): "B", (True, True): "both"}


def split_of(scene):
    return SPLITS[rules(*scene)]


def columns(table):
    return dict(zip(KEYS, table.T, strict=True))


def every_scene():
    return list(itertools.product(*(range(len(words)) for words in ATTRIBUTES.values())))


def test_splits_are_the_listed_combinations():
    assert len(PAIRS) == 12
    members = {split: [] for split in SPLITS.values()}
    for scene in every_scene():
        members[split_of(scene)].append((*scene, -1, -1, -1))
    for split in ("seen", "A", "B"):
        assert [tuple(row) for row in scenes.one_digit(split).tolist()] == members[split]
    assert [len(members[split]) for split in SPLITS.values()] == [1152, 288, 288, 72]
    assert len(scenes.one_digit()) == 1800


@pytest.mark.parametrize("split, held_out, n", [("seen", False, 20832), ("A", True, 1392)])
def test_two_digits_follow_rule_a_each(split, held_out, n):
    table = scenes.two_digits(split)
    assert len(table) == len(table.unique(dim=0)) == n
    d, c, s, p, b, r, d2, c2 = (column.tolist() for column in table.T)
    pairs = zip(zip(d, c, strict=True), zip(d2, c2, strict=True), strict=True)
    expected = [
        (x, y)
        for x, y in itertools.product(itertools.product(range(10), range(6)), repeat=2)
        if (x in PAIRS) == (y in PAIRS) == held_out and x[0] != y[0] and x[1] != y[1]
    ]
    assert sorted(set(pairs)) == expected and len(expected) * 12 == n
    assert set(s) == {0} and set(p) == {-1} and set(b) == {0, 1, 2} and set(r) == {0, 1, 2, 3}


GIVEN = [{}, {"d": 0}, {"d": 7}, {"c": 0}, {"s": 0}, {"s": 1}, {"p": 1}, {"p": 4}, {"d": 7, "s": 1}, {"d": 0, "c": 1}]


@pytest.mark.parametrize("split", ["seen", "A", "B"])
def test_allowed_counts_the_scenes_of_a_split(split):
    everything = [scene for scene in every_scene() if split_of(scene) == split]
    for given, (i, key) in itertools.product(GIVEN, enumerate(ATTRIBUTES)):
        fitting = [scene[i] for scene in everything if all(scene[KEYS.index(k)] == v for k, v in given.items())]
        if not fitting:
            with pytest.raises(ValueError, match="held out"):
                scenes.allowed(key, given, split)
            continue
        law = scenes.allowed(key, given, split)
        assert law.tolist() == pytest.approx([fitting.count(v) / len(fitting) for v in range(len(ATTRIBUTES[key]))])


def test_laws_in_words():
    assert scenes.allowed("c", {"d": 7}).tolist() == pytest.approx([0.2, 0.2, 0.2, 0, 0.2, 0.2])
    assert scenes.allowed("d", {"c": 0}).tolist() == pytest.approx([0, *[1 / 8] * 4, 0, *[1 / 8] * 4])
    assert scenes.allowed("p", {"s": 0}).tolist() == pytest.approx([0.25, 0, 0.25, 0.25, 0.25])
    assert scenes.allowed("p", {"d": 7}).tolist() == pytest.approx([0.25, 0.125, 0.125, 0.25, 0.25])  # not uniform
    assert scenes.allowed("d", {}).tolist() == pytest.approx([4 / 48, *[5 / 48] * 4, 4 / 48, *[5 / 48] * 4])


@pytest.mark.parametrize("drop, nats", [(0.0, 7.049), (0.3, 5.661)])
def test_what_captions_tell_about_scenes(drop, nats):
    """I(image; caption) is the mean entropy of what is mentioned, since captions say nothing that is not so."""
    table, told = scenes.one_digit("seen")[:, :5], 0.0
    for kept in itertools.product((0, 1), repeat=4):
        shares = table[:, torch.tensor([True, *map(bool, kept)])].unique(dim=0, return_counts=True)[1] / len(table)
        told -= (1 - drop) ** sum(kept) * drop ** (4 - sum(kept)) * (shares * shares.log()).sum().item()
    assert told == pytest.approx(nats, abs=1e-3)


@pytest.mark.parametrize("split", ["seen", "A", "B"])
def test_draws_have_the_law(split):
    n = 20_000
    attrs = Scenes(split).draw(n, generator(0))
    assert all(value.dtype == torch.int64 for value in attrs.values())
    for key, given in itertools.product(ATTRIBUTES, [{}, {"d": 0}, {"c": 3}, {"s": 0}]):
        chosen = torch.ones(n, dtype=torch.bool)
        for other, value in given.items():
            chosen &= attrs[other] == value
        law = scenes.allowed(key, given, split)
        shares = attrs[key][chosen].bincount(minlength=len(law)) / chosen.sum()
        assert ((shares - law).abs() <= 4.5 * (law * (1 - law) / chosen.sum()).sqrt() + 1e-6).all()


def test_two_is_the_share_of_two_digit_scenes():
    attrs = Scenes("A", two=0.3).draw(5000, generator(0))
    two = attrs["r"] >= 0
    assert two.float().mean().item() == pytest.approx(0.3, abs=0.03)
    held_out = (attrs["d"] + attrs["c"]) % 5 == 0, (attrs["d2"] + attrs["c2"]) % 5 == 0
    assert held_out[0].all() and held_out[1][two].all()
    assert all((attrs[key][~two] == -1).all() for key in ("r", "d2", "c2"))
    assert (Scenes(two=1).draw(100, generator(0))["r"] >= 0).all()


def test_a_seed_is_a_scene():
    batch = Scenes(two=0.4).batch(256, generator(123))
    assert batch.captions[:5] == [
        "a large green three at the middle",
        "a green one above a red four on a navy background",
        "a seven at the bottom right on a black background",
        "a large cyan three",
        "a purple two below a yellow three",
    ]
    assert {key: value[:5].tolist() for key, value in batch.attrs.items()} == {
        "d": [3, 1, 7, 3, 2],
        "c": [1, 1, 5, 5, 4],
        "s": [1, 0, 0, 1, 0],
        "p": [4, -1, 3, 3, -1],
        "b": [1, 1, 0, 0, 1],
        "r": [-1, 2, -1, -1, 3],
        "d2": [-1, 4, -1, -1, 3],
        "c2": [-1, 0, -1, -1, 3],
    }
    assert batch.x.mean().item() == pytest.approx(-0.6806, abs=1e-3)
    assert torch.equal(captions.tokenize(batch.captions), batch.tokens)


def test_the_generator_is_the_stream():
    rng, source = generator(4), Scenes(two=0.3)
    first, second = source.batch(20, rng), source.batch(20, rng)
    again = source.batch(20, generator(4))
    assert torch.equal(first.x, again.x) and first.captions == again.captions
    assert first.captions != second.captions


def test_shapes_and_ranges():
    batch = Scenes(two=0.5).batch(64, generator(0))
    assert batch.x.shape == (64, 3, 32, 32) and batch.alpha.shape == (64, 1, 32, 32) and batch.tokens.shape == (64, 20)
    assert batch.x.dtype == batch.alpha.dtype == torch.float32 and batch.x.is_contiguous()
    assert -1 <= batch.x.min() < batch.x.max() <= 1 and batch.alpha.min() >= 0 and batch.alpha.max() <= 1


def paper_and_ink(x, alpha):
    """The two colours [n, 3] that pixels mix linearly, and what of the pixels they leave unexplained."""
    pixels, clear = (x + 1) / 2, alpha == 0
    paper = ((pixels * clear).sum((2, 3)) / clear.sum((2, 3)))[..., None, None]
    ink = (alpha * (pixels - paper)).sum((2, 3), keepdim=True) / alpha.square().sum((2, 3), keepdim=True) + paper
    return paper.flatten(1), ink.flatten(1), (torch.lerp(paper, ink, alpha) - pixels).abs().max()


def test_pixels_are_paper_and_ink():
    batch = Scenes(glyphs="test").batch(2000, generator(1))
    paper, ink, rest = paper_and_ink(batch.x, batch.alpha)
    assert rest < 1e-5
    for shade in (paper - scenes.PAPERS[batch.attrs["b"]], ink - scenes.INKS[batch.attrs["c"]]):
        assert shade.abs().max() < 0.03 + 1e-5
        assert shade.std().item() == pytest.approx(0.03 / 3**0.5, rel=0.05) and shade.mean().abs() < 0.002


def test_no_colour_is_near_another():
    both = torch.cat([scenes.INKS, scenes.PAPERS])
    distance = torch.cdist(both, both) + torch.eye(9)
    assert distance[:6, :6].min().item() == pytest.approx(0.48, abs=0.01)  # blue and cyan
    assert distance[:6, 6:].min().item() == pytest.approx(0.49, abs=0.01)  # red on maroon
    assert scenes.PAPERS.mean(1).max() < scenes.INKS.mean(1).min()


def places(alpha, scale=1):
    low, high = scenes.boxes(alpha[:, 0] > 0.2)
    return (low + high) / 2 / scale, (high - low) / scale


def test_size_and_place():
    batch = Scenes(glyphs="test", res=64).batch(3000, generator(2))
    centre, side = places(batch.alpha, 2)
    s, p = batch.attrs["s"], batch.attrs["p"]
    longer = side.amax(1) / scenes.SIDES[s]
    assert longer.min() > 0.9 and longer.max() < 1.1  # 5 % of jitter, and blur
    assert longer[s == 0].mean().item() == pytest.approx(longer[s == 1].mean().item(), abs=0.02)
    offset = centre - 16 - scenes.TOWARDS[p] * scenes.OFFSETS[s, None]
    assert offset.abs().quantile(0.99) <= 1.1  # 1 of jitter; a few glyphs have specks that shrinking makes too faint
    assert offset.std().item() == pytest.approx(1 / 3**0.5, rel=0.1) and offset.mean().abs() < 0.05


def test_nothing_leaves_the_frame_and_positions_stay_apart():
    half = scenes.SIDES * (1 + scenes.SIZE_JITTER) / 2
    assert (16 + scenes.OFFSETS + scenes.CENTRE_JITTER + half <= 32).all()
    assert scenes.OFFSETS.min() - 2 * scenes.CENTRE_JITTER >= 3
    assert scenes.OFFSETS[0] - scenes.CENTRE_JITTER - half[0] > 0  # two digits stay in their halves
    attrs = columns(scenes.one_digit())
    small, large = (scenes.render(attrs, generator(3), "test", res)[1] for res in (16, 64))
    ink = large.sum((1, 2, 3)) / 16
    assert (small.sum((1, 2, 3)) - ink).abs().max() < 0.05 * ink.max()  # no resolution loses ink at the border


def test_relations():
    table = scenes.two_digits("seen")
    attrs = columns(table[torch.randperm(len(table), generator=generator(0))[:400]])
    x, alpha = scenes.render(attrs, generator(1), "test")
    halves = {"left of": (..., slice(16)), "above": (..., slice(16), slice(None))}
    halves |= {"right of": (..., slice(16, None)), "below": (..., slice(16, None), slice(None))}
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for index, relation in enumerate(captions.RELATIONS):
        rows = attrs["r"] == index
        for colour, side in (("c", relation), ("c2", opposite[relation])):
            _, shown, rest = paper_and_ink(x[rows][halves[side]], alpha[rows][halves[side]])
            assert rest < 1e-5 and (alpha[rows][halves[side]].amax((1, 2, 3)) > 0.6).all()
            assert torch.equal(torch.cdist(shown, scenes.INKS).argmin(1), attrs[colour][rows])
    assert alpha[..., 15:17].amax((1, 2, 3))[attrs["r"] < 2].max() < 0.3  # the gap between the halves


def test_resample_is_grid_sample_and_pooling():
    images, rng = torch.rand(5, 28, 20, generator=generator(0)), generator(1)
    y, x = (40 * torch.rand(5, 24, generator=rng).sort(1).values - 8 for _ in range(2))  # beyond the image as well
    grid = torch.stack([x[:, None].expand(-1, 24, -1) / 10 - 1, y[:, :, None].expand(-1, -1, 24) / 14 - 1], 3)
    theirs = F.grid_sample(images[:, None], grid, align_corners=False)
    assert torch.allclose(scenes.resample(images, y, x), theirs[:, 0], atol=1e-5)
    assert torch.allclose(scenes.resample(images, y, x, 2), F.avg_pool2d(theirs, 2)[:, 0], atol=1e-5)


def test_resolutions_show_the_same_scene():
    batches = {res: Scenes(two=0.3, res=res).batch(100, generator(6)) for res in (16, 32, 64)}
    for res, batch in batches.items():
        assert batch.x.shape[2:] == batch.alpha.shape[2:] == (res, res)
        assert batch.captions == batches[32].captions
    for low, high in ((16, 32), (32, 64)):
        error = F.avg_pool2d(batches[high].x, 2) - batches[low].x
        assert error.square().mean().sqrt() < 0.015 and error.mean().abs() < 1e-3
    shuffled = batches[32].x.roll(1, 0) - F.avg_pool2d(batches[64].x, 2)
    assert shuffled.square().mean().sqrt() > 0.3


@pytest.mark.parametrize("source", ["train", "test"])
def test_glyphs_are_those_of_the_digit_and_the_source(source):
    images, labels = data.mnist(source)
    order, start, count, middle, side = scenes._glyphs(source)
    assert torch.equal(order.sort().values, torch.arange(len(images)))
    for digit in range(10):
        own = order[start[digit] : start[digit] + count[digit]]
        assert (labels[own] == digit).all() and len(own) == (labels == digit).sum()
    for i in range(50):
        rows, columns = (torch.nonzero((images[i, 0] > -0.599).any(dim))[:, 0] for dim in (1, 0))
        assert side[i] == max(rows.max() - rows.min(), columns.max() - columns.min()) + 1
        assert middle[i].tolist() == [(line.min() + line.max() + 1).item() / 2 for line in (rows, columns)]


def test_evaluation_is_fixed_and_apart():
    for split in ("seen", "A", "B"):
        batch = scenes.evaluation(split)
        assert batch is scenes.evaluation(split) and len(batch.x) == 512
        assert all(split_of(scene) == split for scene in zip(*(v.tolist() for v in batch.attrs.values()), strict=True))
        assert all(named.all() for named in captions.mentioned(batch.tokens).values())
    pair = scenes.evaluation("A", two=True)
    assert (pair.attrs["r"] >= 0).all() and (captions.mentioned(pair.tokens)["c"]).all()
    assert scenes.evaluation("seen", res=64).captions == scenes.evaluation("seen").captions
    assert scenes.evaluation("seen").captions[:2] == [
        "a small cyan eight at the bottom left on a maroon background",
        "a small cyan three at the middle on a maroon background",
    ]


def test_pixel_moments():
    x = torch.cat([Scenes().batch(1000, rng).x for rng in map(generator, range(8))])
    assert x.mean().item() == pytest.approx(scenes.MEAN, abs=0.004)
    assert x.std().item() == pytest.approx(scenes.SIGMA_DATA, abs=0.004)


def test_control_maps_of_a_square():
    alpha = torch.zeros(2, 1, 8, 8)
    alpha[0, 0, 2:5, 3:7] = 1
    alpha[0, 0, 3, 4] = 0.25
    mask, box, edges = (scenes.control(alpha, kind) for kind in ("mask", "box", "edges"))
    assert mask[0].sum() == 11 and box[0].sum() == 12 and box[0, 0, 2:5, 3:7].all()
    assert edges[0].sum() == 28 + 2 * 0.75  # 5x6 pixels see the square; two see nothing but it, hole included
    assert not any(shown[1].any() for shown in (mask, box, edges))  # nothing drawn, nothing shown


def test_control_maps_of_scenes():
    alpha = Scenes(glyphs="test").batch(200, generator(0)).alpha
    mask, box, edges = (scenes.control(alpha, kind) for kind in ("mask", "box", "edges"))
    for shown in (mask, box, edges):
        assert shown.shape == alpha.shape and shown.min() == 0 and 0 < shown.max() <= 1
    assert torch.equal(mask, (alpha > 0.5).float()) and (box >= mask).all()
    low, high = scenes.boxes(mask[:, 0] > 0)
    assert torch.equal(box.sum((1, 2, 3)), (high - low).prod(1))
    windows = F.unfold(F.pad(alpha, (1, 1, 1, 1), mode="replicate"), 3)
    assert torch.allclose(edges.flatten(1), windows.amax(1) - windows.amin(1))


def test_the_words_and_all_settings_are_part_of_a_key():
    keys = {fingerprint.digest(fingerprint.describe(s, "data")) for s in (Scenes(), Scenes("A"), Scenes(drop=0.0))}
    assert len(keys) == 3
    assert captions.VOCABULARY_HASH in str(fingerprint.describe(Scenes(), "data"))


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda: Scenes("unseen"), "'seen', 'A' or 'B'"),
        (lambda: Scenes("B", two=0.5), "no size and position"),
        (lambda: Scenes(two=1.5), "share of two-digit scenes"),
        (lambda: Scenes(drop=-1), "drop must"),
        (lambda: Scenes(style="loud"), "'plain' or 'varied'"),
        (lambda: Scenes(glyphs="both"), "'train' or 'test'"),
        (lambda: Scenes(res=28), "res must be 16, 32 or 64"),
        (lambda: scenes.allowed("colour", {}), "attributes are d, c, s, p, b"),
        (lambda: scenes.allowed("c", {"r": 1}), "attributes are d, c, s, p, b"),
        (lambda: scenes.allowed("c", {"d": 12}), "an index is too high"),
        (lambda: scenes.allowed("p", {"d": 0, "c": 0}), "held out"),
        (lambda: scenes.control(torch.zeros(1, 1, 8, 8), "depth"), "'edges', 'mask' or 'box'"),
    ],
)
def test_wrong_input_is_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()

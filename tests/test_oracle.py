"""The oracle reads real scenes right, says what is wrong with wrong ones, and knows chance, noise and garbage."""

import json
import shutil

import pytest
import torch
from mps_rehearsal import MpsRehearsal
from torch.nn import functional as F

from litrev import device, paths
from litrev.data import captions, scenes
from litrev.data.captions import ATTRIBUTES
from litrev.data.scenes import Scenes
from litrev.device import generator
from litrev.quality import oracle
from litrev.quality.oracle import Oracle, diversity, iou


@pytest.fixture(scope="module")
def real():
    return {split: Scenes(split, "test").batch(2000, generator(21)) for split in ("seen", "A", "B")}


@pytest.fixture(scope="module")
def seen(real):
    return real["seen"]


@pytest.fixture(scope="module")
def reading(seen):
    return Oracle().decode(seen.x)


def test_real_scenes_are_read_right_on_every_split(real):
    facts = json.loads((paths.data_dir() / oracle.FILE).with_suffix(".json").read_text())
    for split, batch in real.items():
        scores = Oracle().score(batch.x, batch.attrs)
        assert min(scores[key] for key in "cspb") >= 0.999 and scores["valid"] == 1
        assert scores["all"] == pytest.approx(scores["d"], abs=0.001)
        assert scores["d"] == pytest.approx(0.988, abs=0.008)
        assert scores["d"] == pytest.approx(facts["digit_accuracy"][split], abs=0.01)


def test_small_and_large_digits_are_read_alike(seen, reading):
    right = (reading.attrs["d"] == seen.attrs["d"]).float()
    assert min(right[seen.attrs["s"] == size].mean().item() for size in (0, 1)) > 0.98


@pytest.mark.parametrize("split", ["seen", "A"])
def test_two_digits_and_their_colours_exchanged(split):
    batch = Scenes(split, "test", two=1).batch(1000, generator(22))
    scores = Oracle().score_two(batch.x, batch.attrs)
    assert scores["all"] > 0.955 and scores["d"] > 0.98 and scores["c"] >= 0.999 and scores["b"] >= 0.999
    assert scores["swapped"] == 0
    exchanged = Oracle().score_two(batch.x, batch.attrs | {"c": batch.attrs["c2"], "c2": batch.attrs["c"]})
    assert exchanged["swapped"] >= 0.999 and exchanged["all"] == exchanged["c"] == 0 and exchanged["d"] == scores["d"]
    places = Oracle().score_two(batch.x, batch.attrs | {"r": batch.attrs["r"] ^ 1})  # left for right, above for below
    assert places["d"] < 0.01 and places["swapped"] >= 0.999


def test_residual_of_real_scenes(reading):
    quantiles = torch.quantile(reading.rms, torch.tensor([0.5, 0.99, 0.999]))
    assert quantiles[0].item() == pytest.approx(0.0025, abs=2e-4)
    assert quantiles[1].item() == pytest.approx(0.0068, abs=1e-3) and quantiles[2] < 0.012


@pytest.mark.parametrize(
    "std, share, rms", [(0.05, 0.99, 0.023), (0.1, 0.985, 0.043), (0.2, 0.65, 0.078), (0.3, 0.2, 0.11)]
)
def test_noise(seen, std, share, rms):
    attrs = {key: value[:1000] for key, value in seen.attrs.items()}
    scores = Oracle().score(seen.x[:1000] + std * device.randn((1000, 3, 32, 32), generator(0)), attrs)
    assert scores["all"] == pytest.approx(share, abs=0.015 if std <= 0.1 else 0.1)
    assert scores["rms"] == pytest.approx(rms, rel=0.05) and (scores["valid"] > 0.9) == (std == 0.05)


def test_decoded_ink_is_the_true_ink(seen, reading):
    assert iou(reading.alpha, seen.alpha).mean().item() == pytest.approx(0.988, abs=0.005)
    again, _ = scenes.render(seen.attrs, generator(1), "test")
    assert iou(Oracle().decode(again).alpha, seen.alpha).mean().item() == pytest.approx(0.275, abs=0.02)
    assert iou(seen.alpha, seen.alpha.roll(1, 0)).mean().item() == pytest.approx(0.058, abs=0.01)


def test_iou_by_hand():
    a, b = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    a[0, 0, :2, :2], b[0, 0, 1:3, :2], a[1] = 1, 0.9, 0.4
    assert iou(a, b).tolist() == pytest.approx([1 / 3, 0, 0])


def test_unrelated_attributes_score_at_chance(seen):
    other = Scenes().draw(2000, generator(23))
    scores = Oracle().score(seen.x, other)
    for key in ATTRIBUTES:
        chance = scenes.allowed(key, {}).square().sum().item()
        assert scores[key] == pytest.approx(chance, abs=4 * (chance / 2000) ** 0.5)
    assert scores["all"] < 0.005


@pytest.mark.parametrize("key", ATTRIBUTES)
def test_one_wrong_attribute_is_found(seen, key):
    wrong = seen.attrs | {key: (seen.attrs[key] + 1) % len(ATTRIBUTES[key])}
    scores = Oracle().score(seen.x[:400], {name: value[:400] for name, value in wrong.items()})
    assert scores[key] < 0.01 and scores["all"] < 0.01
    assert min(scores[other] for other in set(ATTRIBUTES) - {key}) > 0.97


def test_only_what_the_caption_mentions_counts(seen):
    wrong = seen.attrs | {"c": (seen.attrs["c"] + 1) % 6}
    named = captions.mentioned(seen.tokens)
    scores = Oracle().score(seen.x, wrong, named)
    assert scores["c"] < 0.01 and scores["all"] == pytest.approx(1 - named["c"].float().mean().item(), abs=0.02)
    unsaid = Oracle().score(seen.x, wrong, named | {"c": torch.zeros(2000, dtype=torch.bool)})
    assert unsaid["c"] != unsaid["c"] and unsaid["all"] > 0.98  # nobody mentioned it: not a number, and no error


def test_garbage_is_wrong():
    attrs = Scenes().draw(64, generator(0))
    empty = (2 * scenes.PAPERS[attrs["b"]] - 1)[..., None, None].expand(-1, -1, 32, 32)
    assert all((value == -1).all() for value in Oracle().decode(empty).attrs.values())
    scores = Oracle().score(empty, attrs)
    assert all(scores[key] == 0 for key in (*ATTRIBUTES, "all")) and scores["valid"] == 1
    noise = device.randn(empty.shape, generator(1))
    assert Oracle().score(noise, attrs)["valid"] == 0 and Oracle().score(noise, attrs)["all"] < 0.1
    pair = Scenes(two=1).draw(64, generator(0))
    assert Oracle().score_two(empty, pair)["all"] == Oracle().score_two(empty, pair)["swapped"] == 0
    for colour in scenes.INKS:  # an image of nothing but ink
        assert (Oracle().decode((2 * colour - 1)[None, :, None, None].expand(2, 3, 32, 32)).rms < 1).all()


def test_values_beyond_the_range_are_clipped(seen):
    x = seen.x[:50]
    assert torch.equal(Oracle().decode(3 * x).rms, Oracle().decode((3 * x).clamp(-1, 1)).rms)


def test_diversity_by_hand():
    law = scenes.allowed("c", {"d": 7})  # five colours of six
    even = diversity(torch.tensor([0, 1, 2, 4, 5] * 20), law)
    assert even["kl"] == pytest.approx(0, abs=1e-6) and even["coverage"] == pytest.approx(1) and even["outside"] == 0
    assert even["bias"] == pytest.approx(4 / 200)
    one = diversity(torch.zeros(100, dtype=torch.int64), law)
    assert one["kl"] == pytest.approx(torch.tensor(5.0).log().item()) and one["coverage"] == pytest.approx(0.2)
    mixed = diversity(torch.tensor([0, 1, 2, 4, 5] * 10 + [3] * 30 + [-1] * 20), law)
    assert mixed["kl"] == pytest.approx(0, abs=1e-6) and mixed["outside"] == pytest.approx(0.5)
    uneven = diversity(torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.5]))
    assert uneven["kl"] == pytest.approx(0.75 * torch.tensor(1.5).log().item() + 0.25 * torch.tensor(0.5).log().item())


def test_diversity_of_real_scenes_is_perfect_up_to_its_bias():
    law, found = scenes.allowed("p", {"d": 7}), []
    for seed in range(400):
        attrs = torch.multinomial(law, 64, replacement=True, generator=generator(seed))
        found.append(diversity(attrs, law))
    assert sum(f["kl"] for f in found) / 400 == pytest.approx(found[0]["bias"], rel=0.15)
    table = scenes.one_digit("seen")
    sevens = table[table[:, 0] == 7].repeat(9, 1)
    x, _ = scenes.render(dict(zip(scenes.KEYS, sevens.T, strict=True)), generator(0), "test")
    result = diversity(Oracle().decode(x).attrs["p"], law)
    assert result["kl"] < 1e-4 and result["coverage"] == pytest.approx(1, abs=1e-3) and result["outside"] == 0


def test_glyph_distance_sees_shape_and_nothing_else(seen):
    x = seen.x[:1000]
    clean = Oracle().glyph_distance(x)
    assert clean.n == 1000 and clean.value == pytest.approx(clean.floor, abs=0.9) and 1 < clean.floor < 4
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    assert Oracle().glyph_distance(blurred).value > 5 * clean.floor
    plain = {key: torch.full_like(value[:1000], 1 if key in "s" else 0) for key, value in seen.attrs.items()}
    plain |= {"d": seen.attrs["d"][:1000], "r": torch.full((1000,), -1)}
    large_and_red, _ = scenes.render(plain, generator(0), "test")
    assert Oracle().glyph_distance(large_and_red).value < 2 * clean.floor
    assert Oracle().features(x[:3]).shape == (3, 128)


def test_an_image_does_not_depend_on_its_neighbours(seen, reading):
    alone = Oracle().decode(seen.x[300:301])
    assert all(alone.attrs[key][0] == reading.attrs[key][300] for key in ATTRIBUTES)
    assert torch.allclose(alone.crops[0], reading.crops[300], atol=1e-5)
    assert torch.allclose(Oracle().features(seen.x[:4])[3:], Oracle().features(seen.x[3:4]), atol=1e-4)


def test_samples_come_from_any_device(seen):
    with MpsRehearsal():
        x, tokens = seen.x[:32].to(device.device()), seen.tokens[:32].to(device.device())
        attrs = {key: value[:32] for key, value in seen.attrs.items()}
        assert Oracle().score(x, attrs, captions.mentioned(tokens))["c"] == 1
        assert Scenes().batch(3, generator(0)).x.to(device.device()).shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda x, attrs: Oracle().decode(x[:, :1]), r"\[n, 3, 32, 32\], not"),
        (lambda x, attrs: Oracle().decode(F.interpolate(x, scale_factor=2)), r"\[n, 3, 32, 32\], not"),
        (lambda x, attrs: Oracle().decode(x / 0), "not finite"),
        (lambda x, attrs: Oracle().score_two(x, attrs), "use score for those of one"),
        (lambda x, attrs: Oracle().score(x, Scenes(two=1).draw(4, generator(0))), "use score_two"),
        (lambda x, attrs: Oracle().glyph_distance(x[:1]), "at least 2"),
        (lambda x, attrs: diversity(torch.tensor([3, -1]), scenes.allowed("c", {"d": 7})), "allows none"),
    ],
)
def test_wrong_input_is_named(seen, wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong(seen.x[:4], {key: value[:4] for key, value in seen.attrs.items()})


def test_shipped_network_is_small_half_and_frozen():
    file = paths.data_dir() / oracle.FILE
    net, facts = oracle.load(), json.loads(file.with_suffix(".json").read_text())
    assert file.stat().st_size == facts["bytes"] < 1e6
    assert facts["parameters"] == sum(p.numel() for p in net.parameters()) == 430890
    assert net is oracle.load() and not net.training and not any(p.requires_grad for p in net.parameters())
    assert all(torch.equal(p, p.half().float()) for p in net.parameters())


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda file: file.unlink(), "missing"),
        (lambda file: file.with_suffix(".json").unlink(), "missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"), "damaged"),
    ],
)
def test_missing_or_damaged_file_is_named(monkeypatch, tmp_path, damage, said):
    (tmp_path / "data").mkdir()
    for end in (".safetensors", ".json"):
        shutil.copy((paths.data_dir() / oracle.FILE).with_suffix(end), tmp_path / "data")
    damage(tmp_path / "data" / oracle.FILE)
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    with pytest.raises((FileNotFoundError, RuntimeError), match=f"{said}.*git checkout -- data/scenes_oracle"):
        oracle.load.__wrapped__()

"""The shared networks of captioned scenes, as they are shipped, do what the notebooks rely on."""

import pytest
import torch

from lab import captioned
from litrev import device
from litrev.data import captions, scenes
from litrev.quality.oracle import Oracle


@pytest.fixture(autouse=True)
def shipped(monkeypatch, tmp_path):
    """The laptop preset, and nothing kept beside what is shipped."""
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))


def test_the_autoencoder_keeps_what_the_oracle_reads():
    run, batch = captioned.autoencoder(), scenes.Scenes("seen", "test").batch(256, device.generator(7))
    assert run.source == "shipped"
    with torch.no_grad():
        again = run.net.decode(run.net.encode(batch.x)[0]).clamp(-1, 1)
    kept, real = (Oracle().score(x, batch.attrs)["all"] for x in (again, batch.x))
    assert kept >= real - 0.01 and real > 0.97
    assert (again - batch.x).square().mean() < 4 * 10**-3.8  # a peak signal-to-noise ratio of 38 dB


def test_two_digits_obey_their_caption():
    run, batch = captioned.two_digits_by_caption(), scenes.Scenes("seen", "test", 1.0, drop=0.0)
    assert run.source == "shipped"
    batch = batch.batch(64, device.generator(7))
    score = Oracle().score_two(captioned.draw(run.net, batch.tokens, device.generator(8)), batch.attrs)
    assert score["all"] >= 0.9 and score["swapped"] <= 0.03


def test_one_digit_obeys_its_caption():
    run, batch = captioned.scenes_by_caption(), scenes.Scenes("seen", "test", drop=0.0).batch(64, device.generator(7))
    assert run.source == "shipped"
    score = Oracle().score(captioned.draw(run.net, batch.tokens, device.generator(8)), batch.attrs)
    assert score["d"] >= 0.93 and min(score[key] for key in ("c", "s", "p", "b", "valid")) >= 0.95


def test_a_caption_that_names_only_the_digit_is_obeyed():
    run, ids = captioned.scenes_by_caption(), captions.tokenize([f"a {captions.DIGITS[i % 10]}" for i in range(60)])
    assert run.source == "shipped"
    found = Oracle().decode(captioned.draw(run.net, ids, device.generator(8)))  # scale 3, 25 steps
    assert (found.attrs["d"] == torch.arange(60) % 10).float().mean() >= 0.8

"""The recipe trains at the noise levels it says, in standardised units, and draws images in the units it was given."""

import math
from dataclasses import replace

import pytest
import torch

from lab import recipe
from litrev import data
from litrev.device import generator


def test_noise_levels_are_log_normal_or_uniform():
    t = recipe.noise_times(20_000, 1.4, generator(0))
    log_ratio = (recipe.SCHEDULE.sigma(t) / recipe.SCHEDULE.alpha(t)).log()
    assert log_ratio.mean() == pytest.approx(math.log(1.4), abs=0.03)
    assert log_ratio.std() == pytest.approx(recipe.SPREAD, abs=0.03)
    t = recipe.noise_times(20_000, None, generator(0))
    assert t.mean() == pytest.approx(0.5, abs=0.01) and t.var() == pytest.approx(1 / 12, abs=0.005)


def test_the_exact_denoiser_of_unit_gaussians_has_loss_1_and_another_more():
    # For x0 ~ N(0, 1), E[v | x_t] = 0: the best answer is zero, and what is left is the variance of v, 1.
    x0 = torch.randn(20_000, 1, 1, 1, generator=generator(1))
    loss = recipe.noise_loss(1.4, "v")
    best = loss(lambda xt, time: torch.zeros_like(xt), (x0,), generator(0))
    assert best == pytest.approx(1, abs=0.05)
    assert loss(lambda xt, time: 0.3 * xt, (x0,), generator(0)) > best
    # ... and E[eps | x_t] = sigma x_t leaves alpha^2, whose mean over the noise levels is computed here.
    t = recipe.noise_times(20_000, 1.4, generator(0))
    left = recipe.noise_loss(1.4, "eps")(
        lambda xt, time: recipe.SCHEDULE.sigma((time + 1) / 1000).float().view(-1, 1, 1, 1) * xt, (x0,), generator(0)
    )
    assert left == pytest.approx(float(recipe.SCHEDULE.alpha(t).square().mean()), abs=0.03)


def test_trained_and_sampled_in_the_units_of_the_images(monkeypatch, tmp_path):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    images = data.mnist("train")[0][:256]
    made = recipe.train(images, name="recipe_test", steps=3, batch=16)
    assert made.mean == pytest.approx(float(images.mean())) and made.std == pytest.approx(float(images.std()))
    samples = made.sample(3, 4, generator(0))
    assert samples.shape == (3, 1, 28, 28) and samples.abs().max() <= 1
    assert torch.equal(samples, made.sample(3, 4, generator(0)))
    again = recipe.train(images, name="recipe_test", steps=3, batch=16)
    assert again.run.key == made.run.key and again.run.source == "this machine's cache"
    plain = recipe.train(
        images, name="recipe_test", steps=3, batch=16, standardise=False, centre=None, optimiser="adamw"
    )
    assert (plain.mean, plain.std) == (0, 1) and plain.run.key != made.run.key


def test_a_part_of_the_steps_trains_a_weaker_network_and_a_guided_step_makes_two_calls(monkeypatch, tmp_path):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    monkeypatch.setattr(recipe, "WEAKER", 3)
    images = data.mnist("train")[0][:64]
    few, many, alone = (
        recipe.train(images, name="w", steps=steps, batch=4, guidance=scale)
        for steps, scale in [(10, 2.0), (20, 2.0), (20, 1.0)]
    )
    taken = [made.run.history.step[-1] for made in (few, many, alone)]
    assert taken == [8, 17, 20] and alone.weaker is None  # a fifth, but at most three
    assert [made.weaker.history.step[-1] for made in (few, many)] == [2, 3]

    calls = []
    for net in (many.run.net, many.weaker.net, alone.run.net):
        net.register_forward_hook(lambda net, x, y: calls.append(net))
    many.sample(2, 9, generator(0))
    assert [calls.count(net) for net in (many.run.net, many.weaker.net)] == [7, 2] and calls[:2] == [many.run.net] * 2
    calls.clear()
    alone.sample(2, 9, generator(0))
    assert calls == [alone.run.net] * 9


@pytest.mark.parametrize("calls", [1, 2, 3, 10, 50])
def test_no_more_calls_than_were_asked_for_and_no_fewer_than_need_be(calls):
    trained = recipe.Trained(None, "weaker", 0.0, 1.0, "v", 2.0)
    times = trained.times(calls)
    ratios = torch.tensor(times[:-1]).mul(math.pi / 2).tan()
    spent = len(ratios) + ((ratios >= recipe.GUIDED[0]) & (ratios <= recipe.GUIDED[1])).sum()
    assert calls - 2 < spent <= calls
    assert len(replace(trained, weaker=None).times(calls)) == calls + 1


def test_the_weaker_network_guides_where_they_were_trained_most(monkeypatch, tmp_path):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    made = recipe.train(data.mnist("train")[0][:64], name="w", steps=20, batch=8)
    xt = torch.randn(2, 1, 28, 28, generator=generator(1))
    low, high = ((edge - made.mean) / made.std for edge in (-1, 1))
    for t, guides in [(0.9, False), (0.7, True), (0.1, False)]:  # sigma / alpha 6.3, 2.0 and 0.16
        strong, weak, found = (
            d.denoiser(xt, t).x0 for d in (alone_of(made, made.run), alone_of(made, made.weaker), made)
        )
        inside = (strong - weak).abs() > 1e-4
        for x0 in (strong, weak):
            inside &= (x0 > low) & (x0 < high)
        assert inside.any()
        expected = (2 * strong - weak).clamp(low, high) if guides else strong
        torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-4)


def alone_of(trained, run):
    return replace(trained, run=run, weaker=None)


def test_it_learns_quickly(monkeypatch, tmp_path):
    """Images that are all black or all white: 60 steps suffice to draw both and nothing between."""
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    images = torch.ones(64, 1, 8, 8)
    images[::2] = -1
    made = recipe.train(images, name="two_greys", steps=60, batch=32)
    means = made.sample(24, 10, generator(0), shape=(1, 8, 8)).mean((1, 2, 3))
    assert (means.abs() > 0.5).all() and 4 <= (means > 0).sum() <= 20


def test_unknown_prediction():
    with pytest.raises(ValueError, match="v or eps, not on 'x0'"):
        recipe.noise_loss(1.4, "x0")

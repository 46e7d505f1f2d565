"""Guidance against exact mixtures, diffusers' formula, and the closed forms of what guided samplers end in."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance

from litrev.data.toys import GaussianMixture
from litrev.diffusion.denoiser import Denoiser, as_prediction, clip_x0, exact, from_network, given, threshold_x0
from litrev.diffusion.guidance import (
    autoguidance,
    classifier,
    classifier_free,
    drop,
    extrapolate,
    limited,
    scale_from_w,
)
from litrev.diffusion.samplers import ancestral, ddim, final
from litrev.diffusion.schedules import CosineVP, LinearChain, LinearVP

CHAIN, VP = LinearChain(), LinearVP()
MEANS = torch.tensor([[0.0, 1.0], [-0.866, -0.5], [0.866, -0.5]])
CLASSES = [GaussianMixture(mean[None], 0.5) for mean in MEANS]
ALL = GaussianMixture(MEANS, 0.5)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_class(xt, alpha, sigma, label):
    """E[x0 | xt, label] of the three classes, and of all of them for label 3."""
    answers = torch.stack([data.posterior_mean(xt, alpha, sigma) for data in (*CLASSES, ALL)])
    return answers[label, torch.arange(len(xt))]


def labelled(schedule=VP):
    def predict(xt, t, label):
        alpha, sigma = schedule.levels(t, xt)
        x0 = by_class(xt, alpha.expand(len(xt), 1), sigma.expand(len(xt), 1), label)
        return as_prediction("x0", x0, xt, alpha, sigma)

    return Denoiser(schedule, predict)


def log_posterior(xt, t, label=0, schedule=VP):
    noisy = ALL.diffused(float(schedule.alpha(t)), float(schedule.sigma(t)))
    return noisy.responsibilities(xt)[:, label].log()


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_classifier_free_and_classifier_guidance_are_the_same_for_exact_models(t):
    """grad log p(y | x_t) = score(x_t | y) - score(x_t): s (unconditional plus classifier) = 1 + w."""
    xt, label = noise(50, 2).double(), torch.zeros(50, dtype=torch.long)
    for scale in (0.5, 1, 2, 4):
        free = classifier_free(labelled(), scale, {"label": 3})(xt, t, label=label)
        nothing = given(labelled(), label=torch.full_like(label, 3))
        graded = classifier(nothing, log_posterior, scale)(xt, t)
        torch.testing.assert_close(free.eps, graded.eps, rtol=0, atol=1e-10)
        on_conditional = classifier(labelled(), log_posterior, scale - 1)(xt, t, label=label)
        torch.testing.assert_close(free.x0, on_conditional.x0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("w", [0.0, 0.3, 3.0])
def test_formula_and_conversion_agree_with_diffusers(w):
    alpha, sigma, (c, u, xt) = torch.tensor(0.6), torch.tensor(0.8), noise(3, 2, 4)
    c, u = (as_prediction("eps", eps, xt, alpha, sigma) for eps in (c, u))
    ours = extrapolate(c, u, scale_from_w(w))
    torch.testing.assert_close(ours.eps, (1 + w) * c.eps - w * u.eps)
    for original, number in [(True, w), (False, 1 + w)]:
        theirs = ClassifierFreeGuidance(guidance_scale=number, use_original_formulation=original)
        theirs.set_state(step=0, num_inference_steps=1, timestep=torch.tensor(1))
        torch.testing.assert_close(ours.eps, theirs.forward(c.eps, u.eps).pred)
    # linear, hence the same for every kind of prediction
    for kind in ("x0", "v", "score", "flow"):
        torch.testing.assert_close(getattr(ours, kind), (1 + w) * getattr(c, kind) - w * getattr(u, kind))


def test_both_branches_go_through_the_network_in_one_call():
    calls = []

    def network(x, time, label, text):
        calls.append((len(x), label.tolist(), text.tolist(), time.tolist()))
        return torch.cat([x * label[:, None], text], 1)

    model = from_network(network, CHAIN, learned_variance=True)
    guided = classifier_free(model, 2.0, {"label": 10})
    found = guided(noise(2, 3), torch.tensor([7, 8]), label=torch.tensor([1, 2]), text=torch.arange(6.0).reshape(2, 3))
    text = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert calls == [(4, [1, 2, 10, 10], [*text, *text], [6.0, 7.0, 6.0, 7.0])]
    torch.testing.assert_close(found.eps, (2 * torch.tensor([[1.0], [2]]) - 10) * noise(2, 3))
    torch.testing.assert_close(found.fraction, (torch.tensor(text) + 1) / 2)  # the conditional branch's


def test_wrappers_compose_in_any_order():
    model, xt, label = labelled(), noise(6, 2, seed=3) * 3, torch.zeros(6, dtype=torch.long)
    free = lambda d: classifier_free(d, 3.0, {"label": 3})  # noqa: E731
    graded = lambda d: classifier(d, log_posterior, 2.0)  # noqa: E731
    for inner, middle, outer in [(free, graded, clip_x0), (clip_x0, free, graded), (graded, threshold_x0, free)]:
        found = outer(middle(inner(model)))(xt, 0.5, label=label)
        torch.testing.assert_close(found.alpha * found.x0 + found.sigma * found.eps, xt)
    assert clip_x0(free(model))(xt, 0.5, label=label).x0.abs().max() <= 1


def gaussians(a, b, scale, schedule):
    """Guidance from N(0, b) to a class N(0, a), both exact."""

    def predict(xt, t):
        alpha, sigma = schedule.levels(t, xt)
        c, u = (as_prediction("x0", alpha * v * xt / (alpha**2 * v + sigma**2), xt, alpha, sigma) for v in (a, b))
        return extrapolate(c, u, scale)

    return Denoiser(schedule, predict)


def final_variance(sampler, schedule, times):
    """The variance that a sampler ends in, when every step maps x to gain x + std z, from x = 0 and x = 1."""
    variance, z = float(schedule.sigma(times[0])) ** 2, noise(2, 1).double()
    start = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for step in pairwise(times):
        end = final(sampler(start, step, torch.Generator().manual_seed(0)))
        std = float(end[0] / z[0])
        variance = float(end[1] - std * z[1]) ** 2 * variance + std**2
    return variance


@pytest.mark.parametrize(
    "a, b, w, tilted, limit, deterministic, stochastic",
    [
        (1, 2, 1, 0.6667, 0.5, 0.4997, 0.582),
        (0.25, 1.25, 3, 0.0735, 0.002, 0.00199, 0.044),
    ],
)
def test_a_guided_gaussian_ends_in_the_variance_of_the_table(a, b, w, tilted, limit, deterministic, stochastic):
    """The paper's schedule, log-SNR from -20 to 20 in 4000 steps. ODE limit a (a / b)^w; the tilted density, of
    variance 1 / ((1 + w) / a - w / b), is not what any sampler ends in."""
    assert 1 / ((1 + w) / a - w / b) == pytest.approx(tilted, abs=5e-5) and a * (a / b) ** w == pytest.approx(limit)
    denoiser = gaussians(a, b, scale_from_w(w), CosineVP())
    start, end = CosineVP().time_of([-20, 20]).tolist()
    times = torch.linspace(start, end, 4001, dtype=torch.float64).tolist()
    ode = final_variance(lambda x, step, generator: ddim(denoiser, x, step), CosineVP(), times)
    sde = final_variance(lambda x, step, generator: ancestral(denoiser, x, step, generator, "small"), CosineVP(), times)
    assert ode == pytest.approx(deterministic, abs=5e-6 if limit < 0.01 else 5e-5)  # every digit of the table
    assert sde == pytest.approx(stochastic, abs=5e-4) and ode < sde < tilted


@pytest.mark.parametrize("error, further", [(1.3, 2), (1.3, 4), (0.8, 1.5)])
def test_autoguidance_undoes_an_error_that_the_weaker_model_makes_further(error, further):
    """Data N(0, 1); one model believes in the variance `error`, the weaker one in error^further. The ODE ends in the
    variance error^(s + (1 - s) further), which s = further / (further - 1) makes 1."""
    model, weaker = (
        exact(lambda x, alpha, sigma, v=v: alpha * v * x / (alpha**2 * v + sigma**2), CosineVP())
        for v in (error, error**further)
    )
    times = torch.linspace(*CosineVP().time_of([-20, 20]).tolist(), 2001, dtype=torch.float64).tolist()
    scale = further / (further - 1)
    for s in (1, scale, 0.5):
        guided = autoguidance(model, weaker, s)
        found = final_variance(lambda x, step, generator, guided=guided: ddim(guided, x, step), CosineVP(), times)
        assert found == pytest.approx(error ** (s + (1 - s) * further), rel=2e-3)
    assert error ** (scale + (1 - scale) * further) == pytest.approx(1)


def test_autoguidance_at_its_neutral_scales_asks_one_model_and_passes_conditions_on():
    asked = []

    def network(name):
        def forward(x, time, label):
            asked.append(name)
            return (2.0 if name == "strong" else 3.0) * x + label[:, None]

        return from_network(forward, VP)

    strong, weak, xt, label = network("strong"), network("weak"), noise(4, 3), torch.arange(4)
    plain = [denoiser(xt, 0.5, label=label) for denoiser in (weak, strong)]
    asked.clear()
    found = [autoguidance(strong, weak, s)(xt, 0.5, label=label) for s in (0, 1, 3.0)]
    assert asked == ["weak", "strong", "strong", "weak"]
    assert all(torch.equal(a.x0, b.x0) and torch.equal(a.eps, b.eps) for a, b in zip(found, plain, strict=False))
    torch.testing.assert_close(found[2].eps, plain[0].eps + 3 * (plain[1].eps - plain[0].eps))
    torch.testing.assert_close(found[2].alpha * found[2].x0 + found[2].sigma * found[2].eps, xt)
    with pytest.raises(ValueError, match="denoisers of one schedule, not of LinearVP.* and CosineVP"):
        autoguidance(strong, from_network(noise, CosineVP()), 2.0)


def test_limited_guidance_asks_the_guided_model_inside_its_interval_alone():
    """LinearVP's sigma / alpha rises with t: 0.33 lies at t = 0.10, 5 at t = 0.57."""
    plain, guided = (from_network(lambda x, time, k=k: k * x, VP) for k in (0.5, 0.7))
    xt = noise(3, 2)
    for t in (0.05, 0.2, torch.full((3,), 0.5), torch.tensor(0.8)):
        alpha, sigma = VP.levels(t, xt)
        inside = 0.33 <= float((sigma / alpha).flatten()[0]) <= 5
        expected = (guided if inside else plain)(xt, t)
        assert torch.equal(limited(guided, plain, 0.33, 5)(xt, t).eps, expected.eps)
    edge = float(VP.log_snr(0.2) / -2)
    assert torch.equal(limited(guided, plain, 0, math.exp(edge) + 1e-9)(xt, 0.2).eps, guided(xt, 0.2).eps)
    assert torch.equal(limited(guided, plain, math.exp(edge) + 1e-9, 9)(xt, 0.2).eps, plain(xt, 0.2).eps)
    with pytest.raises(ValueError, match="one time for the whole batch"):
        limited(guided, plain, 0.33, 5)(xt, torch.tensor([0.1, 0.2, 0.2]))
    with pytest.raises(ValueError, match="of one schedule"):
        limited(guided, from_network(noise, CosineVP()), 0.33, 5)


FIGURE_2 = {  # w: (height, std_x, std_y) of the tilted density, of DDIM's samples, of ancestral ones
    1: ((1.086, 0.477, 0.445), (1.416, 0.419, 0.356), (1.251, 0.457, 0.414)),
    3: ((1.146, 0.463, 0.416), (1.866, 0.379, 0.287), (1.432, 0.444, 0.395)),
    8: ((1.210,), (2.54,), (1.61,)),
}


def tilted_moments(w):
    """Height, std_x and std_y of p(x | c)^(1 + w) / p(x)^w for the top class, summed on a grid."""
    line = torch.linspace(-5, 7, 601, dtype=torch.float64)
    x, y = torch.meshgrid(line, line, indexing="xy")
    points, angles = torch.stack([x, y], -1).flatten(0, 1), torch.tensor([90.0, 210.0, 330.0]).double().deg2rad()
    log_p = -torch.cdist(points, torch.stack([angles.cos(), angles.sin()], 1)).square() / (2 * 0.5**2)
    weight = ((1 + w) * log_p[:, 0] - w * log_p.logsumexp(1)).softmax(0)[:, None]
    mean = (weight * points).sum(0)
    return [float(mean[1]), *(weight * (points - mean).square()).sum(0).sqrt().tolist()]


@pytest.mark.parametrize("w", FIGURE_2)
def test_guidance_overshoots_the_class_it_aims_at(w):
    """Three classes on the unit circle (figure 2), the top one wanted: its centre is at height 1, that of the tilted
    density a little above, and the samples are far above, the more so the less noise a sampler adds."""
    label = torch.zeros(2000, dtype=torch.long)
    denoiser = given(classifier_free(labelled(), scale_from_w(w), {"label": 3}), label=label)
    xT, rng = noise(2000, 2), torch.Generator().manual_seed(1)
    clouds = [final(ddim(denoiser, xT, VP.grid(200))), final(ancestral(denoiser, xT, VP.grid(200), rng, "small"))]
    found = [tilted_moments(w), *([float(x[:, 1].mean()), *x.std(0).tolist()] for x in clouds)]
    for ours, table, tolerance in zip(found, FIGURE_2[w], (2e-3, 0.03, 0.03), strict=True):
        assert ours[: len(table)] == pytest.approx(table, abs=tolerance)
    assert 1 < found[0][0] < found[2][0] < found[1][0]


def test_conditions_are_dropped_at_the_given_rate_one_by_one():
    label = torch.arange(10_000) % 10
    dropped = drop(label, 10, 0.1, torch.Generator().manual_seed(0))
    assert ((dropped == 10) | (dropped == label)).all() and float((dropped == 10).double().mean()) == pytest.approx(
        0.1, abs=0.01
    )
    text = drop(torch.ones(4, 3, dtype=torch.long), torch.tensor([0, 0, 7]), 1.0, torch.Generator())
    assert text.tolist() == [[0, 0, 7]] * 4
    assert torch.equal(drop(label, 10, 0.0, torch.Generator()), label)


def test_a_missing_condition_gets_one_clear_sentence():
    with pytest.raises(ValueError, match="needs the condition 'label'"):
        classifier_free(labelled(), 2.0, {"label": 3})(noise(2, 2), 0.5)

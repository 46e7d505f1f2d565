"""Whatever a network predicts, the denoiser answers all five quantities, and they agree with x_t = alpha x0 + sigma
eps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litrev.diffusion.denoiser import (
    PREDICTS,
    as_prediction,
    clip_x0,
    exact,
    from_network,
    rescheduled,
    threshold_x0,
    velocity,
)
from litrev.diffusion.denoiser import (
    given as fixed,
)
from litrev.diffusion.schedules import CosineVP, Geometric, LinearChain, LinearVP, RectifiedFlow

settings.register_profile("steady", deadline=None, derandomize=True, database=None)  # a busy machine is slow
settings.load_profile("steady")


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 1, 3, 3, dtype=torch.float64, generator=generator) for _ in range(2)]


@given(alpha=st.floats(0.01, 1), sigma=st.floats(0.01, 80))
@pytest.mark.parametrize("predicts", PREDICTS)
def test_every_prediction_determines_x0_and_eps(predicts, alpha, sigma):
    x0, eps = batch()
    alpha, sigma = torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
    xt = alpha * x0 + sigma * eps
    truth = as_prediction("eps", eps, xt, alpha, sigma)
    found = as_prediction(predicts, getattr(truth, predicts), xt, alpha, sigma)
    torch.testing.assert_close(found.x0, x0, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.eps, eps, rtol=1e-7, atol=1e-7)
    for kind in PREDICTS:
        torch.testing.assert_close(getattr(found, kind), getattr(truth, kind), rtol=1e-6, atol=1e-6)


def test_definitions_of_the_five_quantities():
    x0, eps = batch()
    alpha, sigma = torch.tensor(0.6), torch.tensor(0.8)
    p = as_prediction("x0", x0, alpha * x0 + sigma * eps, alpha, sigma)
    torch.testing.assert_close(p.v, 0.6 * eps - 0.8 * x0, check_dtype=False, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(p.score, -eps / 0.8, check_dtype=False, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(p.flow, eps - x0, check_dtype=False, rtol=1e-6, atol=1e-6)


def test_the_network_is_given_the_official_index():
    seen = []
    denoiser = from_network(lambda x, time: seen.append(time) or x, LinearChain())
    denoiser(torch.zeros(3, 1, 2, 2), 1000)
    denoiser(torch.zeros(3, 1, 2, 2), torch.tensor([1, 2, 3]))
    assert seen[0].tolist() == [999.0] * 3 and seen[1].tolist() == [0.0, 1.0, 2.0] and seen[0].dtype == torch.float32


def test_clipping_keeps_x0_in_range_and_eps_consistent():
    schedule = LinearVP()
    xt = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 3
    prediction = clip_x0(from_network(lambda x, time: torch.zeros_like(x), schedule))(xt, 0.3)
    assert prediction.x0.abs().max() <= 1
    torch.testing.assert_close(prediction.alpha * prediction.x0 + prediction.sigma * prediction.eps, xt)


def test_exact_denoiser_of_a_gaussian():
    """For x_0 ~ N(0, s^2): E[x_0 | x_t] = alpha s^2 x_t / (alpha^2 s^2 + sigma^2), hence eps* = sigma x_t / (alpha^2
    s^2 + sigma^2)."""
    s2, schedule, xt = 0.25, LinearChain(), torch.randn(5, 2, dtype=torch.float64)
    denoiser = exact(lambda x, alpha, sigma: alpha * s2 * x / (alpha**2 * s2 + sigma**2), schedule)
    alpha, sigma = schedule.levels(300, xt)
    torch.testing.assert_close(denoiser(xt, 300).eps, sigma * xt / (alpha**2 * s2 + sigma**2))


def test_learned_variance_is_read_from_the_second_half_of_the_channels():
    raw = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    net = lambda x, time: torch.cat([0.5 * x, raw.expand_as(x)], 1)  # noqa: E731
    xt = torch.randn(3, 1, 2, 2)
    found = from_network(net, LinearVP(), learned_variance=True)(xt, 0.4)
    assert torch.equal(found.eps, 0.5 * xt) and found.fraction[:, 0, 0, 0].tolist() == [0, 0.5, 1]
    clipped = clip_x0(from_network(net, LinearVP(), learned_variance=True))(xt, 0.4)
    assert torch.equal(clipped.fraction, found.fraction)


def test_dynamic_thresholding_scales_each_image_by_its_own_quantile():
    x0 = torch.stack([torch.linspace(-4, 4, 401), torch.linspace(-0.5, 0.5, 401)]).double()
    xt = 0.8 * x0 + 0.6
    base = from_network(lambda x, time: x0, RectifiedFlow(), predicts="x0")
    found = threshold_x0(base, quantile=0.5)(xt, 0.3)
    torch.testing.assert_close(found.x0[0], (x0[0] / 2).clamp(-1, 1))  # the median of |x0| is 2
    torch.testing.assert_close(found.x0[1], x0[1])  # a small image is left as it is
    torch.testing.assert_close(found.alpha * found.x0 + found.sigma * found.eps, xt)


def test_a_condition_can_be_fixed():
    seen = []
    net = lambda x, time, label, text=None: seen.append((label, text)) or x  # noqa: E731
    fixed(from_network(net, LinearVP()), label=3)(torch.zeros(1, 1), 0.5, text="a")
    assert seen == [(3, "a")]


def test_velocity_is_f_x_minus_half_g2_score():
    for schedule in (LinearVP(), Geometric(), RectifiedFlow()):
        xt = torch.randn(4, 2, dtype=torch.float64)
        p = exact(lambda x, alpha, sigma: alpha * 0.3 * x / (alpha**2 * 0.3 + sigma**2), schedule)(xt, 0.4)
        expected = schedule.drift(0.4) * xt - schedule.diffusion(0.4) / 2 * p.score
        torch.testing.assert_close(velocity(p, schedule.rates(0.4)), expected, rtol=1e-9, atol=1e-9)


def test_one_network_serves_two_schedules():
    """A VP network asked at VE noise levels: s_VE(x, sigma) = -eps(alpha x, t(sigma)) / sigma, alpha = 1 / sqrt(1 +
    sigma^2) (Score-SDE, sec. 3)."""
    s2 = 0.25
    vp = exact(lambda x, alpha, sigma: alpha * s2 * x / (alpha**2 * s2 + sigma**2), LinearVP())
    xt, sigma = torch.randn(5, 2, dtype=torch.float64), float(Geometric().sigma(0.6))
    torch.testing.assert_close(rescheduled(vp, Geometric())(xt, 0.6).score, -xt / (s2 + sigma**2))
    chain = exact(lambda x, alpha, sigma: alpha * s2 * x / (alpha**2 * s2 + sigma**2), LinearChain())
    torch.testing.assert_close(rescheduled(chain, Geometric())(xt, 0.6).score, -xt / (s2 + sigma**2), rtol=1e-2, atol=0)


def test_bad_input_gets_one_clear_sentence():
    with pytest.raises(ValueError, match="one of eps, x0, v, score, flow"):
        from_network(lambda x, time: x, LinearVP(), predicts="noise")
    with pytest.raises(ValueError, match="equal shapes"):
        from_network(lambda x, time: x[:, :1], LinearVP())(torch.zeros(2, 3, 4, 4), 0.5)
    with pytest.raises(ValueError, match="learned_variance=True"):
        from_network(lambda x, time: torch.cat([x, x], 1), LinearVP())(torch.zeros(2, 3, 4, 4), 0.5)
    with pytest.raises(ValueError, match="twice the channels"):
        from_network(lambda x, time: x, LinearVP(), learned_variance=True)(torch.zeros(2, 3, 4, 4), 0.5)
    for schedule in (CosineVP(), RectifiedFlow()):
        with pytest.raises(ValueError, match="alpha = 0"):
            from_network(lambda x, time: x, schedule)(torch.zeros(2, 3), 1.0)
        assert from_network(lambda x, time: x, schedule, "v")(torch.zeros(2, 3), 1.0).x0.isfinite().all()

"""Whatever a network predicts, the denoiser answers all five quantities, and they agree with x_t = alpha x0 + sigma
eps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litrev.denoiser import PREDICTS, as_prediction, clip_x0, exact, from_network
from litrev.schedules import LinearChain, LinearVP


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


def test_bad_input_gets_one_clear_sentence():
    with pytest.raises(ValueError, match="one of eps, x0, v, score, flow"):
        from_network(None, LinearVP(), predicts="noise")
    with pytest.raises(ValueError, match="equal shapes"):
        from_network(lambda x, time: x[:, :1], LinearVP())(torch.zeros(2, 3, 4, 4), 0.5)

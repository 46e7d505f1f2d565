"""Schedules against the papers' figures, the VP law, and the limit that ties the chain to its continuous view."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litrev.schedules import CosineChain, CosineVP, LinearChain, LinearVP

CHAINS = [LinearChain(), CosineChain(), LinearChain(T=50, first=1e-3, last=0.3)]
CONTINUOUS = [LinearVP(), CosineVP()]


@pytest.mark.parametrize("schedule", CHAINS, ids=repr)
def test_chain_is_variance_preserving_from_clean_to_noise(schedule):
    t = torch.arange(schedule.T + 1)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert alpha[0] == 1 and sigma[0] == 0
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-14)
    assert (schedule.log_snr(t[1:]).diff() < 0).all()
    # one step of noising: x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) z composes to the same alpha
    torch.testing.assert_close(alpha[1:], alpha[:-1] * (1 - schedule.betas).sqrt())


@given(t=st.floats(1e-6, 1 - 1e-6))
def test_continuous_schedules_are_variance_preserving(t):
    for schedule in CONTINUOUS:
        assert float(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) == pytest.approx(1, abs=1e-12)
        assert schedule.log_snr(t) > schedule.log_snr(min(t * 1.01, 1 - 1e-7))


def test_ddpm_figures():
    """alpha-bar_T = 4.0358e-5 and the log-SNR at the official code's indices 0, 1, 10, 100, 500, 999."""
    chain = LinearChain()
    assert float(chain.alpha(1000) ** 2) == pytest.approx(4.0358e-5, rel=1e-4)
    expected = {0: 9.21, 1: 8.42, 10: 6.12, 100: 2.14, 500: -2.47, 999: -10.12}
    for index, log_snr in expected.items():
        assert float(chain.log_snr(index + 1)) == pytest.approx(log_snr, abs=0.005)
    assert chain.network_time(1) == 0 and chain.network_time(1000) == 999
    assert float(chain.betas[0]) == pytest.approx(1e-4) and float(chain.betas[-1]) == pytest.approx(0.02)


def test_cosine_chain_matches_its_formula_where_beta_is_not_clipped():
    chain, t = CosineChain(), 400
    f = [math.cos((u / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for u in (0, t)]
    assert float(chain.alpha(t) ** 2) == pytest.approx(f[1] / f[0], rel=1e-9)
    assert float(chain.betas.max()) == 0.999


def test_a_finer_chain_approaches_the_continuous_schedule():
    """beta_i = beta(i/T)/T tends to the VP SDE: the gap in log alpha shrinks as 1/T."""
    gaps = []
    for T in (500, 1000, 2000):
        chain = LinearChain(T=T, first=0.1 / T, last=20 / T)
        gaps.append(abs(float(chain.alpha(T // 2).log() - LinearVP().alpha(0.5).log())))
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1) and gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)
    assert float(LinearVP().alpha(1.0) ** 2) == pytest.approx(4.32e-5, rel=1e-3)
    assert float(LinearVP().network_time(1.0)) == 999


def test_add_noise_mixes_signal_and_noise():
    x0, eps = torch.full((2, 1, 2, 2), 0.5), torch.ones(2, 1, 2, 2)
    xt = LinearChain().add_noise(x0, torch.tensor([1, 1000]), eps)
    assert xt.dtype == torch.float32
    assert float(xt[0, 0, 0, 0]) == pytest.approx(0.5 * math.sqrt(1 - 1e-4) + 0.01)
    assert float(xt[1, 0, 0, 0]) == pytest.approx(0.5 * math.sqrt(4.0358e-5) + 1, abs=1e-4)
    torch.testing.assert_close(LinearChain().add_noise(x0, 0, eps), x0)


def test_grids_run_from_noise_to_data():
    assert LinearChain().grid(4) == [1000, 667, 334, 1, 0]
    assert LinearChain().grid(1000) == list(range(1000, -1, -1))
    assert LinearVP().grid(4) == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: LinearChain().alpha(1001), "between 0"),
        (lambda: LinearChain().alpha(-1), "between 0"),
        (lambda: LinearChain().alpha(2.5), "whole times"),
        (lambda: LinearVP().sigma(1.5), "between 0"),
        (lambda: LinearVP().sigma(float("nan")), "between 0"),
        (lambda: LinearChain().grid(2000), "at most 1000"),
        (lambda: LinearVP().grid(0), "at least 1"),
        (
            lambda: LinearChain().add_noise(torch.zeros(3, 1), torch.tensor([1, 2]), torch.zeros(3, 1)),
            "2 times for a batch of 3",
        ),
    ],
)
def test_bad_times_get_one_clear_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()

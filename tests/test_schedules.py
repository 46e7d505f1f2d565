"""Schedules against the papers' figures, the VP law, and the limit that ties the chain to its continuous view."""

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from litrev.diffusion.grids import karras_grid, log_snr_grid
from litrev.diffusion.schedules import (
    CosineChain,
    CosineVP,
    Geometric,
    Karras,
    LinearChain,
    LinearVP,
    RectifiedFlow,
    SubVP,
)

settings.register_profile("steady", deadline=None, derandomize=True, database=None)  # a busy machine is slow
settings.load_profile("steady")

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


def test_drift_and_diffusion_are_the_papers_closed_forms():
    t = torch.linspace(0.001, 0.99, 50, dtype=torch.float64)
    beta, B = 0.1 + 19.9 * t, 0.1 * t + 9.95 * t**2
    ratio = math.log(50 / 0.01)
    closed = {
        LinearVP(): (-beta / 2, beta),
        SubVP(): (-beta / 2, beta * (1 - torch.exp(-2 * B))),
        Geometric(0.01, 50): (0 * t, 2 * (0.01 * torch.exp(ratio * t)) ** 2 * ratio),
        RectifiedFlow(): (-1 / (1 - t), 2 * t / (1 - t)),
        CosineVP(): (-math.pi / 2 * (math.pi * t / 2).tan(), math.pi * (math.pi * t / 2).tan()),
    }
    for schedule, (f, g2) in closed.items():
        torch.testing.assert_close(schedule.drift(t), f, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(schedule.diffusion(t), g2, rtol=1e-9, atol=1e-12)
    alpha_rate, sigma_rate = RectifiedFlow().rates(t)
    assert (alpha_rate == -1).all() and (sigma_rate == 1).all()


def test_sub_vp_has_less_noise_than_vp_and_the_same_signal():
    t = torch.linspace(0.001, 1, 100)
    assert (SubVP().sigma(t) < LinearVP().sigma(t)).all() and torch.equal(SubVP().alpha(t), LinearVP().alpha(t))
    torch.testing.assert_close(SubVP().sigma(t), 1 - SubVP().alpha(t) ** 2)


def test_variance_exploding_levels_end_at_clean_data():
    for schedule, low, high in [(Geometric(), 0.01, 50), (Karras(), 0.002, 80)]:
        assert float(schedule.sigma(1e-12)) == pytest.approx(low) and float(schedule.sigma(1)) == pytest.approx(high)
        assert schedule.sigma(0) == 0 and schedule.alpha(0.3) == 1
        assert float(schedule.network_time(1)) == pytest.approx(250 * math.log(high))
    x0 = torch.randn(3, 2)
    torch.testing.assert_close(Karras().add_noise(x0, 0, torch.randn(3, 2)), x0)
    prior = Geometric().prior((50_000,), torch.Generator().manual_seed(0))
    assert prior.dtype == torch.float32 and float(prior.std()) == pytest.approx(50, rel=0.02)


def test_karras_levels_are_those_of_diffusers():
    schedule = Karras(0.1, 10.0)
    theirs = EulerDiscreteScheduler()._convert_to_karras(torch.tensor([10.0, 0.1]), 18)
    ours = schedule.sigma(torch.tensor(schedule.grid(18), dtype=torch.float64))
    torch.testing.assert_close(ours[:-1], torch.as_tensor(theirs, dtype=torch.float64), rtol=1e-6, atol=0)
    assert ours[-1] == 0
    assert float(Karras().sigma(0.5)) == pytest.approx(((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7)


def test_shift_of_rectified_flow_moves_log_snr_and_agrees_with_diffusers():
    """lambda falls by 2 log shift at every time; SD3's levels for 4 steps at shift 3 are 1, .9, .75, .5, 0."""
    t = torch.linspace(0.01, 0.99, 20)
    moved = RectifiedFlow().log_snr(t) - RectifiedFlow(3.0).log_snr(t)
    torch.testing.assert_close(moved, torch.full_like(moved, 2 * math.log(3)))
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(sigmas=[1, 0.75, 0.5, 0.25])
    schedule = RectifiedFlow(3.0)
    ours = schedule.sigma(torch.tensor(schedule.grid(4), dtype=torch.float64))
    torch.testing.assert_close(ours, theirs.sigmas.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours, torch.tensor([1, 0.9, 0.75, 0.5, 0], dtype=torch.float64))
    assert float(schedule.network_time(0.5)) == pytest.approx(750)


def test_grids_in_log_snr_and_karras_space():
    for schedule in (LinearVP(), SubVP(), Geometric()):
        times = log_snr_grid(schedule, 9)
        assert len(times) == 10 and times[-1] == 0 and times[0] == pytest.approx(1) and min(times[:-1]) > 0
        gaps = schedule.log_snr(torch.tensor(times[:-1], dtype=torch.float64)).diff()
        torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-6, atol=0)
        times = torch.tensor(karras_grid(schedule, 9)[:-1], dtype=torch.float64)
        gaps = (schedule.sigma(times) / schedule.alpha(times)).pow(1 / 7).diff()
        torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-6, atol=0)
    times = log_snr_grid(LinearChain(), 10)
    assert times[0] == 1000 and times[-2:] == [1, 0] and all(isinstance(t, int) for t in times)
    assert times == sorted(set(times), reverse=True)
    assert log_snr_grid(RectifiedFlow(), 3, start=0.9, end=0.1)[:3] == pytest.approx([0.9, 0.5, 0.1])
    assert RectifiedFlow().grid(4, start=0.8) == pytest.approx([0.8, 0.6, 0.4, 0.2, 0])


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: LinearChain().drift(3), "no slopes"),
        (lambda: RectifiedFlow().drift(1.0), "infinite slope"),
        (lambda: LinearVP().diffusion(0.0), "infinite slope"),
        (lambda: LinearVP().time_of(-30.0), "no time for a log-SNR"),
        (lambda: Geometric().time_of(float("nan")), "no time for a log-SNR"),
        (lambda: log_snr_grid(CosineVP(), 10), "give a start and an end inside"),
        (lambda: karras_grid(LinearVP(), 10, start=0.2, end=0.3), "give a start and an end inside"),
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

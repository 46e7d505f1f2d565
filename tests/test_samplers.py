"""Samplers against closed forms of Gaussian data, against each other, and against diffusers' schedulers step by
step."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from litrev.denoiser import Denoiser, clip_x0, exact, from_network
from litrev.samplers import ancestral, ddim, final, posterior_coefficients
from litrev.schedules import CosineChain, LinearChain, LinearVP

CHAIN = LinearChain()


def gaussian(s2, schedule=CHAIN):
    return exact(lambda x, alpha, sigma: alpha * s2 * x / (alpha**2 * s2 + sigma**2), schedule)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "variance, expected",
    [
        ("small", {1000: 0.246, 250: 0.236, 100: 0.219, 50: 0.196, 20: 0.151, 10: 0.104}),
        ("large", {1000: 0.251, 250: 0.253, 100: 0.259, 50: 0.268, 20: 0.298, 10: 0.359}),
    ],
)
def test_few_ancestral_steps_shrink_or_inflate_a_gaussian_by_the_exact_amount(variance, expected):
    """The exact denoiser of N(0, 1/4) makes every step linear, so the final variance is a recursion; the sampler must
    land on it."""
    s2 = 0.25
    for steps, figure in expected.items():
        var = 1.0
        for t, s in pairwise(CHAIN.grid(steps)):
            a, b, beta, posterior = posterior_coefficients(CHAIN, t, s)
            alpha, sigma = float(CHAIN.alpha(t)), float(CHAIN.sigma(t))
            gain = a * alpha * s2 / (alpha**2 * s2 + sigma**2) + b
            var = gain**2 * var + (0 if s == 0 else beta if variance == "large" else posterior)
        assert var == pytest.approx(figure, abs=6e-4)
        samples = final(ancestral(gaussian(s2), noise(40_000, 1), CHAIN.grid(steps), generator(), variance))
        assert float(samples.var()) == pytest.approx(var, rel=0.03)  # four standard errors of a variance at this n


def test_posterior_is_bayes_rule():
    """q(x_s | x_t, x_0) from q(x_s | x_0) and q(x_t | x_s): product of two Gaussians, written with precisions."""
    for t, s in [(1000, 999), (500, 250), (2, 1)]:
        a, b, beta, c = posterior_coefficients(CHAIN, t, s)
        alpha_s, sigma_s, ratio = float(CHAIN.alpha(s)), float(CHAIN.sigma(s)), float(CHAIN.alpha(t) / CHAIN.alpha(s))
        precision = 1 / sigma_s**2 + ratio**2 / beta
        assert c == pytest.approx(1 / precision, rel=1e-9)
        assert a == pytest.approx(alpha_s / sigma_s**2 / precision, rel=1e-9)
        assert b == pytest.approx(ratio / beta / precision, rel=1e-9)


@pytest.mark.parametrize("schedule", [CHAIN, CosineChain(), LinearVP()], ids=repr)
def test_ddim_with_full_noise_is_ancestral_sampling(schedule):
    denoiser, xT, times = clip_x0(gaussian(0.3, schedule)), noise(16, 1, 4, 4), schedule.grid(20)
    if isinstance(schedule, CosineChain):
        times = times[
            1:
        ]  # alpha at T is 2e-5 of noise: x0 there divides by it, and float32 differences grow beyond the tolerance
    a = final(ddim(denoiser, xT, times, eta=1.0, generator=generator()))
    b = final(ancestral(denoiser, xT, times, generator(), variance="small"))
    torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


def test_ddim_follows_the_exact_flow_of_a_gaussian():
    """The probability-flow ODE of N(0, s^2) is a rescaling: x_0 = x_T s / sqrt(alpha_T^2 s^2 + sigma_T^2)."""
    s2, xT = 0.25, noise(64, 1, dtype=torch.float64)
    scale = (s2 / (CHAIN.alpha(1000) ** 2 * s2 + CHAIN.sigma(1000) ** 2)).sqrt()
    errors = [
        float((final(ddim(gaussian(s2), xT, CHAIN.grid(steps))) - scale * xT).abs().max()) for steps in (250, 500, 1000)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01


def toy_network(x, time):
    return torch.tanh(0.7 * x + time[:, None, None, None] / 2000)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_steps_agree_with_diffusers(clip, variance):
    theirs = DDPMScheduler(1000, 1e-4, 0.02, "linear", variance_type=f"fixed_{variance}", clip_sample=clip)
    # diffusers accumulates alpha-bar in float32 (1e-4 off at t = 1); float64 tables make this a comparison of formulas.
    theirs.alphas_cumprod, theirs.betas, theirs.alphas = (
        CHAIN.alpha(torch.arange(1, 1001)) ** 2,
        CHAIN.betas,
        1 - CHAIN.betas,
    )
    theirs.set_timesteps(1000)
    plain, xt = from_network(toy_network, CHAIN), noise(4, 1, 8, 8)
    denoiser = clip_x0(plain) if clip else plain
    for t in (1000, 999, 500, 100, 2, 1):
        mine = next(ancestral(denoiser, xt, [t, t - 1], generator(), variance)).xt
        peers = theirs.step(plain(xt, t).eps, t - 1, xt, generator=generator()).prev_sample
        torch.testing.assert_close(mine, peers, rtol=0, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_steps_agree_with_diffusers(eta):
    theirs = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=False, set_alpha_to_one=True)
    theirs.alphas_cumprod, theirs.final_alpha_cumprod = (
        CHAIN.alpha(torch.arange(1, 1001)) ** 2,
        torch.tensor(1.0, dtype=torch.float64),
    )
    theirs.set_timesteps(10)  # its steps lead from index i to i - 100
    plain, xt = from_network(toy_network, CHAIN), noise(4, 1, 8, 8)
    for t in (901, 501, 101):
        mine = next(ddim(plain, xt, [t, t - 100], eta, generator())).xt
        peers = theirs.step(plain(xt, t).eps, t - 1, xt, eta=eta, generator=generator()).prev_sample
        torch.testing.assert_close(mine, peers, rtol=0, atol=1e-5, check_dtype=False)


def test_samplers_yield_every_state_and_repeat_with_the_same_generator():
    denoiser, xT, times = clip_x0(from_network(toy_network, CHAIN)), noise(2, 1, 4, 4), CHAIN.grid(5)
    states = list(ancestral(denoiser, xT, times, generator()))
    assert [state.t for state in states] == times[1:]
    torch.testing.assert_close(states[-1].xt, states[-1].x0)  # the last step returns x0-hat, without noise
    assert torch.equal(states[-1].xt, final(ancestral(denoiser, xT, times, generator())))
    assert not torch.equal(states[-1].xt, final(ancestral(denoiser, xT, times, generator(2))))


def test_bad_input_gets_one_clear_sentence():
    with pytest.raises(ValueError, match="large.*small"):
        next(ancestral(Denoiser(CHAIN, None), noise(1, 1), [2, 1], generator(), variance="learned"))
    with pytest.raises(ValueError, match="generator"):
        next(ddim(Denoiser(CHAIN, None), noise(1, 1), [2, 1], eta=1.0))

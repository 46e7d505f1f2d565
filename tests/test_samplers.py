"""Samplers against closed forms of Gaussian data, against each other, and against diffusers' schedulers step by
step."""

import math
from dataclasses import replace
from itertools import cycle, pairwise

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    ScoreSdeVeScheduler,
)

from litrev.data.toys import GaussianMixture
from litrev.diffusion.denoiser import PREDICTS, Denoiser, as_prediction, clip_x0, exact, from_network
from litrev.diffusion.grids import karras_grid, log_snr_grid
from litrev.diffusion.ode import solve
from litrev.diffusion.samplers import (
    ancestral,
    annealed_langevin,
    ddim,
    ddim_inversion,
    dpm_solver,
    euler,
    euler_maruyama,
    final,
    heun,
    posterior_coefficients,
    predictor_corrector,
    sde_dpm_solver,
)
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


def linear_step(sampler, step):
    """(gain, std) of a step that maps x to gain x + std z, from where it takes x = 0 and x = 1."""
    z, start = noise(2, 1, seed=1).double(), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    end = final(sampler(start, step, generator(1)))
    std = float(end[0] / z[0])
    return float(end[1] - std * z[1]), std


def std_ratio(sampler, times, s2):
    """Final over true standard deviation when every step is linear."""
    variance = 1.0
    for step in pairwise(times):
        gain, std = linear_step(sampler, step)
        variance = gain**2 * variance + std**2
    return math.sqrt(variance / s2)


STEPS = (10, 20, 50, 100, 200, 1000)


@pytest.mark.parametrize(
    "eta, ratios",
    [
        (0.0, (0.368, 0.556, 0.784, 0.883, 0.937, 0.983)),
        (0.5, (0.358, 0.544, 0.767, 0.866, 0.924, 0.979)),
        (1.0, (0.291, 0.471, 0.685, 0.794, 0.872, 0.963)),
        ("large", (3.238, 1.883, 1.279, 1.129, 1.060, 1.008)),
    ],
)
def test_ddim_table_for_a_gaussian(eta, ratios):
    """Std of samples over std of data 0.1, at DDIM's evenly strided times; "large" is the paper's sigma-hat row."""
    denoiser = gaussian(0.01)
    for steps, ratio in zip(STEPS, ratios, strict=True):
        times = [*(i + 1 for i in reversed(range(0, 1000, 1000 // steps))), 0]
        if eta == "large":
            found = std_ratio(lambda x, step, g: ancestral(denoiser, x, step, g, "large"), times, 0.01)
        else:
            found = std_ratio(lambda x, step, g: ddim(denoiser, x, step, eta, g), times, 0.01)
        assert found == pytest.approx(ratio, abs=6e-4)


def test_ddim_at_quadratic_times_and_in_cosine_time():
    tau = [int(x) + 1 for x in torch.linspace(0, 800**0.5, 10, dtype=torch.float64) ** 2]
    found = std_ratio(lambda x, step, g: ddim(gaussian(0.01), x, step), [*reversed(tau), 0], 0.01)
    assert found == pytest.approx(0.766, abs=5e-4)
    for steps in (2, 4):  # for unit variance every step in the angle is a projection: cos(pi / (2 S))^S
        found = std_ratio(lambda x, step, g: ddim(gaussian(1.0, CosineVP()), x, step), CosineVP().grid(steps), 1.0)
        assert found == pytest.approx(math.cos(math.pi / (2 * steps)) ** steps, rel=1e-6)


def optimal_variance(s2, times):
    """The exact denoiser of N(0, s2) with the exact fraction of the best reverse variance for steps between `times`:
    beta-tilde + (alpha_s beta / sigma_t^2)^2 Var(x0 | x_t)."""
    earlier = dict(pairwise(times))

    def predict(xt, t):
        weight, _, beta, small = posterior_coefficients(CHAIN, t, earlier[t])
        alpha, sigma = float(CHAIN.alpha(t)), float(CHAIN.sigma(t))
        best = small + weight**2 * s2 * sigma**2 / (alpha**2 * s2 + sigma**2)
        fraction = 1.0 if small == 0 else (math.log(best) - math.log(small)) / (math.log(beta) - math.log(small))
        return replace(gaussian(s2)(xt, t), fraction=torch.full_like(xt, fraction))

    return Denoiser(CHAIN, predict)


@pytest.mark.parametrize(
    "variance, ratios",
    [
        ("small", (0.143, 0.268, 0.519, 0.681, 0.793, 0.963)),
        ("large", (6.85, 3.54, 1.69, 1.29, 1.13, 1.008)),
        ("learned", (0.995,) * 6),
    ],
)
def test_adm_table_of_reverse_variances(variance, ratios):
    """Std of samples over std of data 0.1 in 5..1000 steps, no noise on the last: the best variance is right at any
    number of steps (ADM, improved DDPM)."""
    for steps, ratio in zip((5, 10, 25, 50, 100, 1000), ratios, strict=True):
        denoiser = optimal_variance(0.01, CHAIN.grid(steps))
        found = std_ratio(lambda x, step, g: ancestral(denoiser, x, step, g, variance), CHAIN.grid(steps), 0.01)  # noqa: B023
        assert found == pytest.approx(ratio, abs=6e-3 if ratio > 1.2 else 6e-4)


def test_best_variance_is_the_small_one_but_near_the_data():
    denoiser = optimal_variance(0.01, CHAIN.grid(1000))
    for index, fraction in {999: 0.01, 500: 0.01, 100: 0.09, 20: 0.63, 2: 0.97}.items():
        assert float(denoiser(torch.zeros(1, 1), index + 1).fraction) == pytest.approx(fraction, abs=0.005)


def test_learned_variance_steps_agree_with_diffusers():
    theirs = DDPMScheduler(1000, 1e-4, 0.02, "linear", variance_type="learned_range", clip_sample=False)
    theirs.alphas_cumprod, theirs.betas = CHAIN.alpha(torch.arange(1, 1001)) ** 2, CHAIN.betas
    theirs.alphas = 1 - CHAIN.betas
    theirs.set_timesteps(1000)
    net = lambda x, time: torch.cat([toy_network(x, time), torch.tanh(x)], 1)  # noqa: E731
    denoiser, xt = from_network(net, CHAIN, learned_variance=True), noise(4, 1, 8, 8)
    for t in (1000, 500, 100, 3):
        mine = next(ancestral(denoiser, xt, [t, t - 1], generator(), "learned")).xt
        answer = net(xt, torch.full((4,), t - 1.0))
        peers = theirs.step(answer, t - 1, xt, generator=generator()).prev_sample
        torch.testing.assert_close(mine, peers, rtol=0, atol=1e-5, check_dtype=False)


SCHEDULES = [
    LinearVP(),
    SubVP(),
    CosineVP(),
    RectifiedFlow(),
    RectifiedFlow(3.0),
    Geometric(0.01, 20),
    Karras(0.01, 20),
]
FLOWS = {"ddim": ddim, "heun": heun, "dpm_solver": dpm_solver, "euler": euler}
NOISY = {
    "ancestral": lambda d, x, times: ancestral(d, x, times, generator(), 0.5),
    "ddim": lambda d, x, times: ddim(d, x, times, 1.0, generator()),
    "euler_maruyama": lambda d, x, times: euler_maruyama(d, x, times, generator()),
    "predictor_corrector": lambda d, x, times: predictor_corrector(d, x, times, generator(), 0.05),
}


def through(kind, denoiser):
    """The same denoiser, told as a prediction of this kind."""

    def predict(xt, t):
        p = denoiser(xt, t)
        return as_prediction(kind, getattr(p, kind), xt, p.alpha, p.sigma)

    return Denoiser(denoiser.schedule, predict)


@pytest.mark.parametrize("schedule", [*SCHEDULES, CHAIN, CosineChain()], ids=repr)
def test_every_deterministic_sampler_follows_the_exact_flow_of_a_gaussian(schedule):
    """x_0 = x_T s / sqrt(alpha_T^2 s^2 + sigma_T^2), from every kind of prediction."""
    s2, t = 0.25, 900 if schedule.t_max > 1 else 0.9
    xT = noise(16, 1, seed=2, dtype=torch.float64) * float(schedule.sigma(t))
    exactly = xT * (s2 / (schedule.alpha(t) ** 2 * s2 + schedule.sigma(t) ** 2)).sqrt()
    for kind in PREDICTS:
        denoiser = through(kind, gaussian(s2, schedule))
        for name, sampler in FLOWS.items():
            if name == "euler" and schedule.t_max > 1:
                continue  # needs slopes, which a chain has not
            found = final(sampler(denoiser, xT, log_snr_grid(schedule, 100, start=t)))
            close = {"ddim": 0.05, "euler": 0.16}.get(name, 0.006)
            torch.testing.assert_close(found, exactly, rtol=close, atol=0)


@pytest.mark.parametrize("schedule, kind", list(zip(SCHEDULES, cycle(PREDICTS), strict=False)), ids=repr)
def test_every_sampler_draws_an_exact_mixture(schedule, kind):
    """Two modes of unequal weight: the share of the left one, and the mean and std of both, as the data's. A sampler
    cannot see what the network predicts, so each kind with one or two schedules is enough."""
    data = GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.2, torch.tensor([0.3, 0.7]))
    denoiser = through(kind, exact(data.posterior_mean, schedule))
    times, n = karras_grid(schedule, 60, start=0.99), 3000
    xT = float(schedule.sigma(0.99)) * noise(n, 1, seed=4) + float(schedule.alpha(0.99)) * data.sample(n, generator(5))
    for name, sampler in (FLOWS | NOISY).items():
        samples = final(sampler(denoiser, xT, times))
        left, right = samples[samples < 0], samples[samples > 0]
        found = [len(left) / n, *(float(x.mean()) for x in (left, right)), *(float(x.std()) for x in (left, right))]
        close = {"euler": 0.08, "predictor_corrector": 0.06}.get(name, 0.035)  # biased at 60 steps, as they should be
        assert found == pytest.approx([0.3, -1, 1, 0.2, 0.2], abs=close), name


def test_annealed_langevin_finds_the_weights_that_langevin_alone_misses():
    """NCSN's mixture 0.8 N((5, 5), I) + 0.2 N((-5, -5), I), from uniform points; and the last step denoises."""
    data = GaussianMixture(torch.tensor([[5.0, 5.0], [-5.0, -5.0]]), 1.0, torch.tensor([0.8, 0.2]))
    denoiser = exact(data.posterior_mean, Geometric(0.1, 20))
    start = 16 * torch.rand(1280, 2, generator=generator()) - 8
    annealed = final(annealed_langevin(denoiser, start, Geometric(0.1, 20).grid(10), generator(), steps=100, size=0.05))
    alone = final(annealed_langevin(denoiser, start, [1e-9], generator(), steps=1000, size=5.0 / 10))
    share = float((annealed.sum(1) > 0).double().mean())
    assert 0.7 < share < 0.82  # slightly too few: the modes part while x still moves too fast to follow
    assert float((alone.sum(1) > 0).double().mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("size", [0.1, 0.2, 1.0])
def test_annealed_langevin_follows_the_variance_recursion_of_ncsnv2(size):
    """For one-point data, with k = 1 - e, b = 2 e / (1 - k^2) and g = sigma_{i-1} / sigma_i (NCSNv2, prop. 3):
    s_T^2 / sigma_i^2 = k^(2 T) (g^2 - b) + b after the first level, e our size."""
    schedule, T = Geometric(0.1, 0.4), 5
    point = exact(lambda x, alpha, sigma: torch.zeros_like(x), schedule)
    times = [0.5, 1e-9]  # sigma 0.2, then 0.1: g = 2
    start = 0.2 * noise(4, 50_000)
    k, variance = 1 - size, 1.0
    b = 2 * size / (1 - k**2)
    for state, ratio in zip(annealed_langevin(point, start, times, generator(), T, size), (1, 2), strict=True):
        variance = k ** (2 * T) * (ratio**2 * variance - b) + b
        sigma = float(schedule.sigma(state.t))
        assert float(state.xt.var()) / sigma**2 == pytest.approx(variance, rel=0.02)
    assert k ** (2 * 100) * (1.6681**2 - b) + b == pytest.approx({0.1: 1.053, 0.2: 1.111, 1.0: 2.0}[size], abs=2e-3)


def test_a_corrector_alone_keeps_the_distribution_a_little_too_wide():
    """Its stationary variance for N(0, v) is v / (1 - step / (2 v)) (sheet's closed form)."""
    schedule = Geometric(0.5, 2.0)
    denoiser, t = gaussian(1.0, schedule), 0.5
    v = 1 + float(schedule.sigma(t)) ** 2
    xt, g = v**0.5 * noise(20_000, 64), generator()
    step = 2 * 0.16**2 * v  # (|z| / |score|)^2 = v
    still = [t, t - 1e-12]  # a predictor step over no time changes nothing
    for _ in range(60):
        xt = final(predictor_corrector(denoiser, xt[:2000], still, g, snr=0.16, noise=False))
    assert float(xt.var()) == pytest.approx(v / (1 - step / (2 * v)), rel=0.01)


CURVED = GaussianMixture(torch.tensor([[-1.0, 0.0], [0.5, 1.0], [1.0, -1.0]]), 0.4)


ORDERS = {"ddim": (1, 40), "euler": (1, 80), "heun": (2, 20), "dpm_solver": (2, 40)}  # order, steps


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_convergence_order(schedule):
    """Halving the steps of a smooth stretch of the flow of a mixture divides the error by 2^order, within 3 %."""
    denoiser = exact(CURVED.posterior_mean, schedule)
    xT = float(schedule.sigma(0.7)) * noise(20, 2, seed=3, dtype=torch.float64)

    def slope(t, x):
        p, (da, ds) = denoiser(x, t), schedule.rates(t)
        return float(da) * p.x0 + float(ds) * p.eps

    *_, (_, truth) = solve(slope, xT, 0.7, 0.3, 1e-12, 1e-12)
    for name, (order, steps) in ORDERS.items():
        errors = []
        for n in (steps, 2 * steps):
            times = torch.linspace(0.7, 0.3, n + 1, dtype=torch.float64).tolist()
            errors.append(float((final(FLOWS[name](denoiser, xT, times)) - truth).norm()))
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, rel=0.03), (name, errors)


def ve_network(x, sigma):
    """An arbitrary eps(x, sigma)."""
    return torch.tanh(x / (1 + sigma)) + 0.3 * torch.cos(3 * x / (1 + sigma) + sigma)


def ve_denoiser(schedule):
    def predict(xt, t):
        alpha, sigma = schedule.levels(t, xt)
        return as_prediction("eps", ve_network(xt, sigma), xt, alpha, sigma)

    return Denoiser(schedule, predict)


def on_levels(sigmas):
    """A denoiser, and the times at which its schedule has the levels of a diffusers scheduler (the last is 0)."""
    schedule = Geometric(float(sigmas[-2]) / 2, 2 * float(sigmas[0]))
    return ve_denoiser(schedule), [*schedule.time_of(-2 * sigmas[:-1].double().log()).tolist(), 0.0]


@pytest.mark.parametrize("karras", [False, True])
def test_euler_and_heun_agree_with_diffusers(karras):
    """EDM's Euler step is DDIM's, in the coordinates where alpha = 1. The states here are of size 10 to 100."""
    for scheduler, sampler in [(EulerDiscreteScheduler, ddim), (HeunDiscreteScheduler, heun)]:
        theirs = scheduler(1000, 1e-4, 0.02, "linear", use_karras_sigmas=karras)
        theirs.set_timesteps(8)
        sigmas = theirs.sigmas if scheduler is EulerDiscreteScheduler else theirs.sigmas[[*range(0, 16, 2), -1]]
        denoiser, times = on_levels(sigmas)
        peer = noise(4, 1, 8, 8) * sigmas[0]
        states = iter(list(sampler(denoiser, peer, times)))
        for i, t in enumerate(theirs.timesteps):
            peer = theirs.step(ve_network(peer, theirs.sigmas[i]), t, peer).prev_sample
            if sampler is ddim or i % 2 == 1 or i == len(theirs.timesteps) - 1:
                mine = next(states).xt
                torch.testing.assert_close(mine, peer, rtol=0, atol=1e-5 * max(1, float(peer.abs().max())))
        assert next(states, None) is None


def test_flow_matching_euler_agrees_with_diffusers():
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(sigmas=torch.linspace(1, 1 / 8, 8).tolist())
    flow = lambda x, time: torch.tanh(x + time[:, None, None, None] / 500)  # noqa: E731
    schedule, peer = RectifiedFlow(3.0), noise(4, 1, 8, 8)
    denoiser = from_network(flow, schedule, "flow")
    for state, t in zip(ddim(denoiser, peer, schedule.grid(8)), theirs.timesteps, strict=True):
        peer = theirs.step(flow(peer, t.expand(4)), t, peer).prev_sample
        torch.testing.assert_close(state.xt, peer, rtol=0, atol=1e-5)
    straight = from_network(flow, RectifiedFlow(), "flow")
    a, b = (final(s(straight, noise(4, 1, 8, 8), RectifiedFlow().grid(8))) for s in (euler, ddim))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_predictor_and_corrector_agree_with_diffusers():
    theirs = ScoreSdeVeScheduler(20, snr=0.15, sigma_min=0.01, sigma_max=5.0)
    theirs.set_timesteps(20)
    theirs.set_sigmas(20)
    schedule = Geometric(0.01, 5.0)
    denoiser, _ = on_levels(torch.tensor([5.0, 0.02, 0.0]))
    denoiser = Denoiser(
        schedule,
        lambda xt, t: as_prediction("eps", ve_network(xt, schedule.levels(t, xt)[1]), xt, *schedule.levels(t, xt)),
    )
    times, g, h = schedule.grid(20), generator(), generator()
    xT = noise(4, 1, 8, 8) * 5
    peer = xT
    for state, t in zip(
        predictor_corrector(denoiser, xT, times, g, snr=0.15, corrections=2), theirs.timesteps, strict=True
    ):
        sigma = theirs.discrete_sigmas[(t * 19).long()]
        for _ in range(2):
            peer = theirs.step_correct(-ve_network(peer, sigma) / sigma, peer, generator=h).prev_sample
        answer = theirs.step_pred(-ve_network(peer, sigma) / sigma, t, peer, generator=h)
        peer = answer.prev_sample
        expected = answer.prev_sample_mean if state.t == 0 else peer
        torch.testing.assert_close(state.xt, expected, rtol=0, atol=1e-5 * max(1, float(peer.abs().max())))


@pytest.mark.parametrize("kind, noisy", [("dpmsolver++", 0), ("sde-dpmsolver++", 1)])
def test_dpm_solver_agrees_with_diffusers(kind, noisy):
    options = dict(algorithm_type=kind, final_sigmas_type="zero", lower_order_final=False)
    theirs = DPMSolverMultistepScheduler(1000, 1e-4, 0.02, "linear", **options)
    theirs.set_timesteps(12)
    times = [*(int(t) + 1 for t in theirs.timesteps), 0]
    bars = CHAIN.alpha(torch.tensor(times)) ** 2
    theirs.sigmas = ((1 - bars) / bars).sqrt().float()
    denoiser, peer = from_network(toy_network, CHAIN), noise(4, 1, 8, 8)
    ours = sde_dpm_solver(denoiser, peer, times, generator()) if noisy else dpm_solver(denoiser, peer, times)
    rng = generator()
    for state, t in zip(ours, theirs.timesteps, strict=True):
        if state.t == 0:
            break  # the peer divides infinity by infinity there, or ends on an order of its own
        peer = theirs.step(toy_network(peer, t.expand(4).float()), t, peer, generator=rng).prev_sample
        torch.testing.assert_close(state.xt, peer, rtol=0, atol=1e-5 * max(1, float(peer.abs().max())))


@pytest.mark.parametrize("amount", [0.5, 1.0, 1.7])
def test_sde_dpm_solver_keeps_the_variance_of_a_gaussian_whatever_its_noise(amount):
    """Each c is another SDE of the same marginals: at many steps all end on the data's variance."""
    grid = log_snr_grid(CHAIN, 200)
    samples = final(sde_dpm_solver(gaussian(0.25), noise(40_000, 1), grid, generator(), amount))
    assert float(samples.var()) == pytest.approx(0.25, rel=0.04)


def test_fast_solvers_need_a_third_of_the_calls():
    """On the flow of a mixture, 18 calls of dpm_solver or heun beat 50 of DDIM on either grid."""
    schedule = LinearVP()
    denoiser = exact(CURVED.posterior_mean, schedule)
    xT = noise(200, 2, seed=6, dtype=torch.float64)
    truth = final(heun(denoiser, xT, log_snr_grid(schedule, 500)))

    def error(sampler, times):
        return float((final(sampler(denoiser, xT, times)) - truth).norm(dim=1).median())

    slow = min(error(ddim, schedule.grid(50)), error(ddim, log_snr_grid(schedule, 50)))
    assert error(dpm_solver, log_snr_grid(schedule, 18)) < slow
    assert error(heun, log_snr_grid(schedule, 9)) < slow


def test_inversion_of_ddim_is_exact_in_the_limit():
    """Encode, decode: the error halves, at least, when the steps do."""
    data = noise(64, 1, seed=8, dtype=torch.float64) / 2
    for schedule in (CHAIN, LinearVP(), Geometric(0.01, 20)):
        errors = []
        for steps in (50, 100, 200):
            times = log_snr_grid(schedule, steps)
            *_, code = ddim_inversion(gaussian(0.25, schedule), data, times[::-1])
            assert code.t == times[0]
            errors.append(float((final(ddim(gaussian(0.25, schedule), code.xt, times)) - data).abs().max()))
        exactly = data * ((schedule.alpha(times[0]) ** 2 * 0.25 + schedule.sigma(times[0]) ** 2) / 0.25).sqrt()
        torch.testing.assert_close(code.xt, exactly, rtol=0.05, atol=0)
        assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2] and errors[2] < 0.03, (schedule, errors)


def test_bad_input_gets_one_clear_sentence():
    with pytest.raises(ValueError, match="large.*small"):
        next(ancestral(gaussian(1.0), noise(1, 1), [2, 1], generator(), variance="median"))
    with pytest.raises(ValueError, match="learned_variance=True"):
        next(ancestral(gaussian(1.0), noise(1, 1), [2, 1], generator(), variance="learned"))
    with pytest.raises(ValueError, match="between 0 and 2"):
        next(annealed_langevin(gaussian(1.0), noise(1, 1), [2, 1], generator(), size=2.5))
    with pytest.raises(ValueError, match="generator"):
        next(ddim(gaussian(1.0), noise(1, 1), [2, 1], eta=1.0))

"""The formulas of the survey (its frame and its table of conversions) against litrev, which the notebooks test."""

import math

import pytest
import torch

from litrev.data.toys import GaussianMixture
from litrev.diffusion.denoiser import PREDICTS, as_prediction, exact, velocity
from litrev.diffusion.samplers import (
    ancestral,
    ddim,
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

T = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
LOW, HIGH = 0.002 ** (1 / 7), 80 ** (1 / 7)
RATIO = math.log(5000)
DATA = GaussianMixture(torch.tensor([[-1.0, 0.5], [0.7, -0.2], [0.2, 1.0]]), 0.2, torch.tensor([2.0, 1.0, 3.0]))
ALL = [LinearVP(), CosineVP(), SubVP(), Geometric(), Karras(), RectifiedFlow(), RectifiedFlow(3.0)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(ours, theirs, rtol=1e-9):
    """Both equal up to rounding."""
    ours, theirs = (torch.as_tensor(side, dtype=torch.float64) for side in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-9)


def rows_of_schedules():
    """litrev's schedule; lambda, density of lambda for uniform t, f, g^2 as the survey's table has them."""
    t, B, beta = T, 0.1 * T + 9.95 * T**2, 0.1 + 19.9 * T
    e = (-B).exp()
    yield LinearVP(), -torch.log(B.exp() - 1), (1 - e) / beta, -beta / 2, beta
    lam = -2 * torch.log(torch.tan(math.pi * t / 2))
    tan = torch.tan(math.pi * t / 2)
    yield CosineVP(), lam, 1 / (2 * math.pi * torch.cosh(lam / 2)), -math.pi / 2 * tan, math.pi * tan
    lam = -B - 2 * torch.log(1 - e)
    yield SubVP(), lam, (1 - e) / (beta * (1 + e)), -beta / 2, beta * (1 - e**2)
    sigma = 0.01 * 5000**t
    yield Geometric(), -2 * sigma.log(), 1 / (2 * RATIO) + 0 * t, 0 * t, 2 * RATIO * sigma**2
    root = LOW + t * (HIGH - LOW)
    lam = -14 * root.log()
    density = (-lam / 14).exp() / (14 * (HIGH - LOW))
    yield Karras(), lam, density, 0 * t, 14 * (HIGH - LOW) * root**13
    for a in (1.0, 3.0):
        lam = 2 * torch.log((1 - t) / t) - 2 * math.log(a)
        density = torch.cosh((lam + 2 * math.log(a)) / 4) ** -2 / 8
        slow = 1 + (a - 1) * t
        yield RectifiedFlow(a), lam, density, -a / ((1 - t) * slow), 2 * a**2 * t / ((1 - t) * slow**2)


@pytest.mark.parametrize("row", list(rows_of_schedules()), ids=lambda row: str(row[0]))
def test_the_table_of_schedules(row):
    schedule, log_snr, density, f, g2 = row
    near(log_snr, schedule.log_snr(T))
    near(f, schedule.drift(T))
    near(g2, schedule.diffusion(T))
    alpha_rate, sigma_rate = schedule.rates(T)
    slope = 2 * (alpha_rate / schedule.alpha(T) - sigma_rate / schedule.sigma(T))
    near(density, -1 / slope)


def test_the_ranges_of_chains():
    """First and last log-SNR of DDPM's chain, improved DDPM's and Stable Diffusion's, and what the last leaves."""
    ends = torch.tensor([1, 1000])
    near(LinearChain().log_snr(ends), [9.21, -10.12], 1e-3)
    near(CosineChain().log_snr(ends)[1], -19.8, 3e-3)
    kept = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)[[0, -1]]
    near((kept / (1 - kept)).log(), [7.07, -5.36], 1e-3)
    near(kept[1].sqrt(), 0.068, 5e-3)


def test_logit_normal_times_are_a_bell_in_log_snr():
    """ln(m, s) is lambda ~ N(-2m, (2s)^2), and a shift by a makes it ln(m + log a, s)."""
    n, m, s, a = noise(200_000), 0.4, 0.8, 3.0
    t = torch.sigmoid(m + s * n)
    lam = RectifiedFlow().log_snr(t)
    near(lam, -2 * (m + s * n), 1e-7)
    near(RectifiedFlow(a).sigma(t), torch.sigmoid(m + math.log(a) + s * n))


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_the_table_of_predictions(schedule):
    alpha, sigma = (level[:, None] for level in (schedule.alpha(T), schedule.sigma(T)))
    x0, eps = noise(len(T), 4), noise(len(T), 4, seed=1)
    x, both, power = alpha * x0 + sigma * eps, alpha + sigma, alpha**2 + sigma**2
    v, score, u = alpha * eps - sigma * x0, -eps / sigma, eps - x0
    given = {"x0": x0, "eps": eps, "v": v, "score": score, "flow": u}
    x0_of = {
        "x0": x0,
        "eps": (x - sigma * eps) / alpha,
        "v": (alpha * x - sigma * v) / power,
        "score": (x + sigma**2 * score) / alpha,
        "flow": (x - sigma * u) / both,
    }
    eps_of = {
        "x0": (x - alpha * x0) / sigma,
        "eps": eps,
        "v": (sigma * x + alpha * v) / power,
        "score": -sigma * score,
        "flow": (x + alpha * u) / both,
    }
    for kind in PREDICTS:
        answer = as_prediction(kind, given[kind], x, alpha, sigma)
        near(x0_of[kind], answer.x0)
        near(eps_of[kind], answer.eps)


def errors(alpha, sigma):
    """Squared error of each kind in units of that of x0, as the survey says, and as litrev converts."""
    snr = alpha**2 / sigma**2
    said = {"x0": 1 + 0 * snr, "eps": snr, "score": snr / sigma**2}
    said |= {"v": (alpha**2 + sigma**2) ** 2 / sigma**2, "flow": (alpha + sigma) ** 2 / sigma**2}
    x0, eps, off = noise(3, len(T), 1)
    xt = alpha * x0 + sigma * eps
    here, moved = (as_prediction("x0", guess, xt, alpha, sigma) for guess in (x0, x0 + off))
    found = {kind: ((getattr(moved, kind) - getattr(here, kind)) / off) ** 2 for kind in PREDICTS}
    return said, found


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_squared_errors_are_proportional(schedule):
    said, found = errors(schedule.alpha(T)[:, None], schedule.sigma(T)[:, None])
    for kind in PREDICTS:
        near(said[kind], found[kind], 1e-6)


def gaussian(x, mean, std):
    return (-((x - mean) ** 2) / (2 * std**2)).exp() / (std * math.sqrt(2 * math.pi))


def rows_of_weights():
    """Name, log-SNRs and their density in training, weight of x0's squared error, and w(lambda) as the survey says."""
    lam = CosineVP().log_snr(T)
    for name, schedule, x0_weight, said in (
        ("NCSN: eps, geometric", Geometric(), lambda x: x.exp(), lambda x: 1 + 0 * x),
        ("Improved DDPM, CFG: eps, cosine", CosineVP(), lambda x: x.exp(), lambda x: 1 / torch.cosh(x / 2)),
        ("v, cosine", CosineVP(), lambda x: x.exp() + 1, lambda x: (-x / 2).exp()),
        ("truncated SNR, cosine", CosineVP(), lambda x: x.exp().clamp(min=1),
         lambda x: (-x).exp().clamp(min=1) / torch.cosh(x / 2)),
        ("min-SNR-5, cosine", CosineVP(), lambda x: x.exp().clamp(max=5),
         lambda x: (5 * (-x).exp()).clamp(max=1) / torch.cosh(x / 2)),
        ("rectified flow", RectifiedFlow(), lambda x: (1 + (x / 2).exp()) ** 2, lambda x: (-x / 2).exp()),
    ):  # fmt: skip
        alpha_rate, sigma_rate = schedule.rates(T)
        density = -0.5 / (alpha_rate / schedule.alpha(T) - sigma_rate / schedule.sigma(T))
        yield name, schedule.log_snr(T), density, x0_weight, said
    edm = gaussian(lam, 2.4, 2.4)
    yield "EDM", lam, edm, lambda x: x.exp() + 4, lambda x: gaussian(x, 2.4, 2.4) * ((-x).exp() + 0.25)
    bell = gaussian(lam, 0.0, 2.0)
    yield (
        "SD3", lam, bell, lambda x: (1 + (x / 2).exp()) ** 2,
        lambda x: gaussian(x, 0.0, 2.0) * (1 + (-x / 2).exp()) ** 2,
    )  # fmt: skip


@pytest.mark.parametrize("row", list(rows_of_weights()), ids=lambda row: row[0])
def test_the_table_of_weights(row):
    """w is the density of lambda times the weight in units of eps's squared error, up to a constant."""
    _, lam, density, x0_weight, said = row
    ratio = density * x0_weight(lam) * (-lam).exp() / said(lam)
    near(ratio / ratio[0], torch.ones_like(ratio))


def test_ddpm_weighs_by_sigma_squared_over_beta():
    """The plain loss of the linear chain: between two steps lambda moves by about beta / sigma^2."""
    chain, t = LinearChain(), torch.arange(100, 1000)
    moved = chain.log_snr(t) - chain.log_snr(t + 1)
    near(moved, chain.betas[t] / chain.sigma(t + 1) ** 2, 0.02)


def test_edm_predicts_minus_v():
    """EDM's F, for data divided by sigma_data, is -v of the VP process with the same log-SNR."""
    sigma, data = torch.logspace(-2, 2, 20, dtype=torch.float64)[:, None], 0.5
    x0, F = noise(20, 3), noise(20, 3, seed=1)
    x, total = x0 + sigma * noise(20, 3, seed=2), (sigma**2 + data**2).sqrt()
    D = data**2 / total**2 * x + sigma * data / total * F
    vp = as_prediction("v", -F, x / total, data / total, sigma / total)
    near(D, data * vp.x0)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_the_posterior_in_terms_of_rho(schedule):
    for t, s in ((0.9, 0.4), (0.5, 0.49), (0.3, 0.05)):
        x0_weight, xt_weight, b, variance = posterior_coefficients(schedule, t, s)
        rho = float((schedule.log_snr(t) - schedule.log_snr(s)).exp())
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            (float(schedule.alpha(time)), float(schedule.sigma(time))) for time in (t, s)
        )
        near(x0_weight, alpha_s * (1 - rho), 1e-6)
        near(xt_weight, alpha_s * rho / alpha_t, 1e-6)
        near(b, sigma_t**2 * (1 - rho), 1e-6)
        near(variance, sigma_s**2 * (1 - rho), 1e-6)
        kl = x0_weight**2 / (2 * variance)  # of two posteriors whose x0 differ by 1
        near(kl, 0.5 * (alpha_s**2 / sigma_s**2 - alpha_t**2 / sigma_t**2), 1e-6)


def test_the_bound_is_an_integral_over_log_snr():
    """For Gaussian data and the best denoiser it is the entropy, and the prior's mismatch as the only excess."""
    s2, lam = 0.25, torch.linspace(-6, 12, 200_001, dtype=torch.float64)
    error = s2 / (lam.exp() * s2 + 1) * lam.exp()  # of eps: VP, data N(0, s2)
    integral = 0.5 * torch.trapezoid(error, lam)
    left = s2 / (1 + s2 * math.exp(12))  # variance of x0 after the last noise
    alpha2 = 1 / (1 + math.exp(6))
    kl = 0.5 * (alpha2 * s2 - alpha2 - math.log(1 - alpha2))
    bound = kl + 0.5 * math.log(2 * math.pi * math.e * left) + integral
    total = alpha2 * s2 + 1 - alpha2
    entropy = 0.5 * math.log(2 * math.pi * math.e * s2)
    near(bound, entropy + 0.5 * (total - 1 - math.log(total)), 1e-7)


def test_a_wrong_reverse_sde_stays_within_girsanov():
    """KL of Gaussian samples at most that of the prior and half the integral of eps's error, for eps off by 10 %."""
    s2, off, lam = 0.25, 0.1, torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    V, h, total = 1.0, float(lam[1] - lam[0]), 0.0
    for at in lam.tolist():  # VP in lambda: f dt = sigma^2 / 2 d lambda, g^2 dt = -sigma^2 d lambda
        alpha2 = 1 / (1 + math.exp(-at))
        sigma2 = 1 - alpha2
        now = alpha2 * s2 + sigma2
        V = V + h * (-sigma2 * V + 2 * (sigma2 - sigma2 * (1 + off) / now) * V + sigma2)
        total += 0.5 * h * off**2 * sigma2 / now
    now = alpha2 * s2 + sigma2
    kl = 0.5 * (now / V - 1 - math.log(now / V))
    start = (s2 - 1) / (1 + math.exp(8)) + 1
    assert 0 < kl <= total + 0.5 * (start - 1 - math.log(start)) + 1e-6


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_the_flow_is_the_mean_velocity(schedule):
    """f x - g^2 score / 2 = alpha' x0 + sigma' eps, and d(x / alpha) / d(sigma / alpha) = eps."""
    for t in (0.2, 0.5, 0.9):
        x = noise(5, 2) * float(schedule.sigma(t))
        seen = exact(DATA.posterior_mean, schedule)(x, t)
        flow = schedule.drift(t) * x - schedule.diffusion(t) / 2 * seen.score
        rates = schedule.rates(t)
        near(flow, velocity(seen, rates))
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        bar = flow / alpha - x * float(rates[0]) / alpha**2
        near(bar / ((float(rates[1]) * alpha - sigma * float(rates[0])) / alpha**2), seen.eps)


def one_step(sampler, schedule, t, s, *arguments, **options):
    denoiser = exact(DATA.posterior_mean, schedule)
    x = noise(6, 2, seed=3) * float(schedule.sigma(t))
    return final(sampler(denoiser, x, [t, s], *arguments, **options)), denoiser(x, t), x


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_samplers_that_are_the_same(schedule):
    t, s = 0.8, 0.55
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (float(schedule.alpha(time)), float(schedule.sigma(time))) for time in (t, s)
    )
    plain, seen, x = one_step(ddim, schedule, t, s)
    bar = x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * seen.eps
    near(plain, alpha_s * bar)  # Euler in sigma / alpha
    near(plain, one_step(dpm_solver, schedule, t, s)[0])
    h = float(schedule.log_snr(s) - schedule.log_snr(t)) / 2
    near(plain, sigma_s / sigma_t * x + alpha_s * (1 - math.exp(-h)) * seen.x0)  # DPM-Solver++(1)
    near(plain, alpha_s / alpha_t * x - sigma_s * (math.exp(h) - 1) * seen.eps)  # DPM-Solver-1
    u = (x / (alpha_t + sigma_t), sigma_t / (alpha_t + sigma_t), sigma_s / (alpha_s + sigma_s))
    near(plain, (alpha_s + sigma_s) * (u[0] + (u[2] - u[1]) * seen.flow))  # Euler along the straight path

    def rng():
        return torch.Generator().manual_seed(7)

    small = one_step(ancestral, schedule, t, s, rng(), "small")[0]
    near(small, one_step(ddim, schedule, t, s, 1.0, rng())[0])
    near(small, one_step(sde_dpm_solver, schedule, t, s, rng())[0])
    up = math.sqrt(sigma_s**2 - (alpha_t * sigma_s**2 / (alpha_s * sigma_t)) ** 2)  # Euler ancestral
    z = torch.randn(x.shape, generator=rng()).double()
    near(small, alpha_s * seen.x0 + math.sqrt(sigma_s**2 - up**2) * seen.eps + up * z, 1e-6)
    near(up**2, posterior_coefficients(schedule, t, s)[3], 1e-6)


def test_samplers_that_are_the_same_on_one_path():
    t, s = 0.8, 0.55
    near(one_step(ddim, RectifiedFlow(), t, s)[0], one_step(euler, RectifiedFlow(), t, s)[0])
    plain, seen, x = one_step(ddim, CosineVP(), t, s)
    d = math.pi / 2 * (t - s)
    near(plain, math.cos(d) * x - math.sin(d) * seen.v)  # a rotation
    t_sigma, s_sigma = (float(Karras().sigma(time)) for time in (t, s))
    once, seen, x = one_step(heun, Karras(), t, s)  # EDM's second-order step
    slope = (x - seen.x0) / t_sigma
    end = x + (s_sigma - t_sigma) * slope
    there = exact(DATA.posterior_mean, Karras())(end, s)
    near(once, x + (s_sigma - t_sigma) * (slope + (end - there.x0) / s_sigma) / 2)


def test_ddpm_writes_its_step_with_the_score():
    """Large variance, VP: (x + beta score) / sqrt(1 - beta), plus sqrt(beta) z."""
    chain, t = LinearChain(), 400
    beta = float(chain.betas[t - 1])
    large, seen, x = one_step(ancestral, chain, t, t - 1, torch.Generator().manual_seed(1), "large")
    z = (large - (x + beta * seen.score) / math.sqrt(1 - beta)) / math.sqrt(beta)
    near(z, torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double(), 1e-6)


@pytest.mark.parametrize("schedule", [LinearVP(), Geometric()], ids=str)
def test_samplers_that_agree_to_first_order(schedule):
    """Euler-Maruyama, reverse diffusion and ancestral steps: their gaps fall faster than the step."""
    gaps = []
    for step in (0.01, 0.001):
        t, rng = 0.5, lambda: torch.Generator().manual_seed(7)
        first = one_step(ancestral, schedule, t, t - step, rng(), "small")[0]
        others = [
            one_step(euler_maruyama, schedule, t, t - step, rng())[0],
            one_step(predictor_corrector, schedule, t, t - step, rng(), corrections=0)[0],
        ]
        gaps.append(max(float((first - other).abs().max()) for other in others))
    assert gaps[1] < gaps[0] / 10

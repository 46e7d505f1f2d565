"""The adaptive solver against SciPy's, its order, the exact flow; likelihoods against exact mixtures."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import solve_ivp

from litrev.data.toys import GaussianMixture, ring
from litrev.diffusion.denoiser import exact, from_network
from litrev.diffusion.ode import bits_per_dim, dequantised, log_likelihood, probability_flow, runge_kutta_step, solve
from litrev.diffusion.samplers import final
from litrev.diffusion.schedules import CosineVP, Geometric, LinearVP, RectifiedFlow, SubVP

SCHEDULES = [LinearVP(), SubVP(), CosineVP(), RectifiedFlow(), Geometric(0.01, 50)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(s2, schedule):
    return exact(lambda x, alpha, sigma: alpha * s2 * x / (alpha**2 * s2 + sigma**2), schedule)


def predator(t, y):
    """Lotka and Volterra's predator and prey."""
    return torch.stack([y[0] * (1.5 - y[1]), y[1] * (y[0] - 1)])


def by_scipy(y0, span, tolerance):
    return solve_ivp(lambda t, y: predator(t, torch.tensor(y)).numpy(), span, y0, rtol=tolerance, atol=tolerance)


def test_a_step_is_of_order_five_and_its_error_estimate_of_that_size():
    """On y' = y cos t, solved by exp(sin t), where time and state both matter."""
    f, errors = lambda t, y: y * math.cos(t), []
    for n in (20, 40):
        t, y = 0.0, torch.ones(1, dtype=torch.float64)
        slope = f(t, y)
        for _ in range(n):
            y, _, slope = runge_kutta_step(f, t, y, 3 / n, slope)
            t += 3 / n
            torch.testing.assert_close(slope, f(t, y))  # first same as last
        errors.append(float(y - math.exp(math.sin(t))))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5, rel=0.1)
    large, small = (float(runge_kutta_step(f, t, y, h, slope)[1]) for h in (0.1, 0.05))
    assert math.log2(large / small) == pytest.approx(5, rel=0.1)  # of the twin of order 4: h^5 a step


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_solver_is_as_exact_and_as_frugal_as_scipy(tolerance):
    calls = [0]

    def f(t, y):
        calls[0] += 1
        return predator(t, y)

    y0 = torch.tensor([2.0, 1.0], dtype=torch.float64)
    theirs, truth = by_scipy(y0, (10, 0), tolerance), torch.tensor(by_scipy(y0, (10, 0), 1e-13).y[:, -1])
    *_, (t, y) = solve(f, y0, 10.0, 0.0, tolerance, tolerance)
    assert t == 0.0 and calls[0] < 1.3 * theirs.nfev + 12
    assert (y - truth).norm() < 3 * (torch.tensor(theirs.y[:, -1]) - truth).norm() + 10 * tolerance


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_codes_of_a_gaussian_are_a_rescaling_and_decode_to_the_data(schedule):
    """x_T = x_0 sqrt(Sigma_T / Sigma_eps), Sigma_t = alpha^2 s^2 + sigma^2, to 1e-6; and back."""
    s2, start, end, data = 0.25, 1e-4, 0.99, noise(64, 3)
    total = lambda t: schedule.alpha(t) ** 2 * s2 + schedule.sigma(t) ** 2  # noqa: E731
    states = list(probability_flow(gaussian(s2, schedule), data, start, end, 1e-8, 1e-8))
    code, seen = states[-1].xt, states[-1].x0
    assert states[-1].t == end and [s.t for s in states] == sorted(s.t for s in states)
    torch.testing.assert_close(code, data * (total(end) / total(start)).sqrt(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(seen, gaussian(s2, schedule)(code, end).x0, rtol=1e-9, atol=1e-9)
    back = final(probability_flow(gaussian(s2, schedule), code, end, start, 1e-8, 1e-8))
    torch.testing.assert_close(back, data, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_likelihood_of_a_gaussian_to_a_thousandth_of_a_bit(schedule, dtype):
    s2, dims = 0.3, 8
    data = (s2**0.5 * noise(64, dims)).reshape(64, 2, 2, 2).to(dtype)
    spread = s2 * float(schedule.alpha(1e-5)) ** 2 + float(schedule.sigma(1e-5)) ** 2  # VE starts at sigma_min
    truth = -(data.double().square() / spread + math.log(2 * math.pi * spread)).flatten(1).sum(1) / 2
    found = log_likelihood(gaussian(s2, schedule), data)
    assert found.dtype == dtype and found.shape == (64,)
    error = bits_per_dim(found.double(), dims) - bits_per_dim(truth, dims)
    assert float(error.mean().abs()) < 1e-3 and float(error.abs().max()) < 3e-3


@pytest.mark.parametrize(
    "schedule, largest",
    [(LinearVP(), 0.012), (SubVP(), 0.012), (RectifiedFlow(), 0.012), (Geometric(0.01, 50), 0.037)],
    ids=repr,
)
def test_likelihood_of_a_mixture(schedule, largest):
    """Eight Gaussians on a ring, weights 1 to 8; what is left is the prior's mismatch, as large as it should be."""
    data = replace(ring(8, 2.0, 0.15), weights=torch.arange(1, 9))
    x0, base = data.sample(200, torch.Generator().manual_seed(0)).double(), exact(data.posterior_mean, schedule)
    calls = [0]

    def counted(xt, t):
        calls[0] += 1
        return base(xt, t)

    found = log_likelihood(replace(base, predict=counted), x0)
    truth = data.diffused(float(schedule.alpha(1e-5)), float(schedule.sigma(1e-5))).log_prob(x0)
    assert float((found - truth).mean().abs()) < 1e-3 and float((found - truth).abs().max()) < largest
    assert 80 < calls[0] < 170  # about a hundred, as SciPy needs


def test_hutchinson_estimates_the_divergence_without_bias():
    """Over 400 probes the mean meets the exact value within four standard errors; the same probe, the same answer."""
    data = GaussianMixture(torch.tensor([[-1.0, 0.5, 0], [1, 0, 1]]), 0.4)
    denoiser, x0 = exact(data.posterior_mean, LinearVP()), data.sample(3, torch.Generator().manual_seed(1)).double()
    exactly = log_likelihood(denoiser, x0, rtol=1e-4, atol=1e-4)
    many = log_likelihood(denoiser, x0.repeat(400, 1), torch.Generator().manual_seed(0), rtol=1e-4, atol=1e-4).reshape(
        400, 3
    )
    assert (many.mean(0) - exactly).abs().lt(4 * many.std(0) / 20 + 1e-3).all() and many.std(0).min() > 0.01
    again = [log_likelihood(denoiser, x0, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*again)
    # a round Gaussian's divergence is the same along every probe of signs
    a, b = (log_likelihood(gaussian(0.3, LinearVP()), x0, g) for g in (None, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)


def test_likelihood_of_a_network_leaves_no_gradients_behind():
    net = torch.nn.Linear(2, 2)
    found = log_likelihood(from_network(lambda x, time: torch.tanh(net(x)), LinearVP()), noise(3, 2).float(), rtol=1e-3)
    assert found.isfinite().all() and not found.requires_grad and net.weight.grad is None


def test_bits_per_dim_and_dequantisation():
    """Data uniform over its 256 grey levels, density 1/2 over [-1, 1], costs 8 bits a pixel."""
    pixels = torch.randint(256, (2000, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = dequantised(pixels, torch.Generator().manual_seed(1))
    assert x.dtype == torch.float32 and x.min() >= -1 and x.max() < 1
    assert torch.equal(((x + 1) * 128).floor().to(torch.uint8), pixels)
    assert float(bits_per_dim(torch.tensor(4 * math.log(0.5)), 4)) == pytest.approx(8)
    assert float(bits_per_dim(torch.tensor(0.0), 4, offset=8.0)) == 8  # density 1 over [0, 1]


def test_a_thin_layer_at_the_start_is_not_jumped_over():
    """One entry that changes fast at first, beside many that rest: the error, a mean over all, would let it pass."""

    def slope(t, y):
        return torch.cat([torch.zeros(784), 100 / torch.tensor([t])]).double()

    *_, (_, end) = solve(slope, torch.cat([torch.ones(784), torch.zeros(1)]).double(), 1e-5, 1.0, 1e-3, 1e-3)
    assert float(end[-1]) == pytest.approx(100 * math.log(1e5), rel=5e-3)


def test_it_leaves_a_start_at_zero():
    *_, (t, y) = solve(lambda t, y: torch.ones_like(y), torch.zeros(3, dtype=torch.float64), 0.0, 1.0)
    assert t == 1.0 and torch.allclose(y, torch.ones_like(y))


def test_a_solver_that_cannot_move_says_so():
    with pytest.raises(RuntimeError, match="stuck at t = "):
        list(solve(lambda t, y: y**2, torch.ones(1, dtype=torch.float64), 0.0, 2.0))  # infinite at t = 1

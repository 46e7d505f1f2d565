"""The mixture's formulas against autograd, integration and sampling; the shapes against their descriptions."""

import pytest
import torch

from litrev.data import toys
from litrev.device import generator

MIX = toys.GaussianMixture(
    means=torch.tensor([[-1.0, 0.5], [1.5, 0.0], [0.2, -1.0]]),
    stds=torch.tensor([[0.3, 0.6], [0.5, 0.5], [0.2, 0.4]]),
    weights=torch.tensor([2.0, 1.0, 1.0]),
)
TIMES = [(1.0, 0.0), (0.8, 0.6), (0.1, 0.995), (1.0, 3.0)]


def points(n=50, seed=0):
    return torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)


def test_weights_are_normalised():
    assert MIX.weights.tolist() == [0.5, 0.25, 0.25]


def test_density_integrates_to_one():
    axis = torch.linspace(-5, 5, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    assert (MIX.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2).item() == pytest.approx(1, abs=1e-9)


def test_score_is_the_gradient_of_the_log_density():
    x = points().requires_grad_()
    (gradient,) = torch.autograd.grad(MIX.log_prob(x).sum(), x)
    assert torch.allclose(MIX.score(x), gradient, rtol=1e-10)


def test_one_gaussian_in_high_dimension():
    one = toys.GaussianMixture(torch.full((1, 100), 2.0), 0.5)
    x = torch.randn(7, 100, generator=generator(1), dtype=torch.float64)
    assert torch.allclose(one.score(x), (2 - x) / 0.25)
    exact = torch.distributions.Normal(2.0, 0.5).log_prob(x).sum(1)
    assert torch.allclose(one.log_prob(x), exact)


def test_samples_have_the_mixtures_moments():
    x = MIX.sample(200_000, generator(2)).double()
    mean = MIX.weights @ MIX.means
    second = MIX.weights @ (MIX.stds**2 + MIX.means**2)
    assert torch.allclose(x.mean(0), mean, atol=0.01)
    assert torch.allclose(x.square().mean(0), second, atol=0.02)
    assert x.shape == (200_000, 2)
    assert torch.equal(MIX.sample(5, generator(3)), MIX.sample(5, generator(3)))


@pytest.mark.parametrize("alpha, sigma", TIMES)
def test_diffused_is_the_distribution_of_noised_samples(alpha, sigma):
    rng = generator(4)
    x0 = MIX.sample(200_000, rng)
    xt = (alpha * x0 + sigma * torch.randn(x0.shape, generator=rng)).double()
    noisy = MIX.diffused(alpha, sigma)
    for probe in points(5, seed=5):  # the whole distribution, through its characteristic function
        phase = xt @ probe
        centre, spread = noisy.means @ probe, (noisy.stds.square() @ probe.square()).mul(-0.5).exp()
        assert phase.cos().mean().item() == pytest.approx((noisy.weights @ (spread * centre.cos())).item(), abs=0.01)
        assert phase.sin().mean().item() == pytest.approx((noisy.weights @ (spread * centre.sin())).item(), abs=0.01)


@pytest.mark.parametrize("alpha, sigma", TIMES)
def test_posterior_mean_is_tweedies_formula(alpha, sigma):
    xt = points()
    tweedie = (xt + sigma**2 * MIX.diffused(alpha, sigma).score(xt)) / alpha
    assert torch.allclose(MIX.posterior_mean(xt, alpha, sigma), tweedie, atol=1e-9)


def test_posterior_mean_is_the_average_of_what_could_have_been():
    x0 = MIX.sample(400_000, generator(6)).double()
    for xt in points(4, seed=7):
        weight = torch.distributions.Normal(0.8 * x0, 0.6).log_prob(xt).sum(1).softmax(0)
        assert torch.allclose(MIX.posterior_mean(xt[None], 0.8, 0.6)[0], weight @ x0, atol=0.01)


def test_posterior_mean_of_pure_noise_is_the_mean():
    assert torch.allclose(MIX.posterior_mean(points(), 0.0, 1.0), MIX.weights @ MIX.means)


def test_points_can_be_diffused():
    atoms = toys.GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.0)
    xt = torch.linspace(-3, 3, 9, dtype=torch.float64)[:, None]
    assert torch.allclose(atoms.posterior_mean(xt, 0.8, 0.6), (0.8 * xt / 0.36).tanh())
    assert atoms.sample(100, generator(0)).abs().eq(1).all()


def test_each_point_can_have_its_own_time():
    xt = points(len(TIMES))
    alpha, sigma = torch.tensor(TIMES, dtype=torch.float64)[:, :1], torch.tensor(TIMES, dtype=torch.float64)[:, 1:]
    together = MIX.posterior_mean(xt, alpha, sigma), MIX.diffused(alpha, sigma).score(xt)
    for i, (a, s) in enumerate(TIMES):
        assert torch.allclose(together[0][i], MIX.posterior_mean(xt[i : i + 1], a, s)[0])
        assert torch.allclose(together[1][i], MIX.diffused(a, s).score(xt[i : i + 1])[0])


def test_answers_come_in_the_type_of_the_question():
    x = points().float()
    assert MIX.score(x).dtype == MIX.posterior_mean(x, 0.8, 0.6).dtype == torch.float32
    assert torch.allclose(MIX.score(x).double(), MIX.score(x.double()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((torch.zeros(3), 1.0), r"\[components, dimensions\]"),
        ((torch.zeros(3, 2), 1.0, torch.ones(2)), "one weight per component"),
        ((torch.zeros(3, 2), 1.0, torch.tensor([1.0, 1.0, -1.0])), "below 0"),
        ((torch.zeros(3, 2), -1.0), "below 0"),
    ],
)
def test_wrong_mixtures_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        toys.GaussianMixture(*arguments)


def test_ring_is_a_ring():
    ring = toys.ring(components=6, radius=2.0, std=0.1)
    assert torch.allclose(ring.means.norm(dim=1), torch.full((6,), 2.0, dtype=torch.float64))
    assert torch.allclose(ring.means.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("shape", [toys.swiss_roll, toys.two_moons, toys.checkerboard])
def test_shapes_are_small_and_repeatable(shape):
    x = shape(5000, generator(0))
    assert x.shape == (5000, 2) and x.dtype == torch.float32
    assert x.abs().max() < 1.5 and x.std(0).min() > 0.3
    assert torch.equal(x, shape(5000, generator(0)))


def test_shapes_lie_where_they_say():
    rng = generator(1)
    board = ((toys.checkerboard(4000, rng) + 1) * 2).floor()
    assert (board.sum(1) % 2 == 0).all() and len(board.unique(dim=0)) == 8
    roll = toys.swiss_roll(4000, rng, noise=0.0)
    turn = torch.atan2(roll[:, 1], roll[:, 0]) - 4.5 * torch.pi * roll.norm(dim=1)
    assert torch.allclose(turn.cos(), torch.ones(4000), atol=1e-4)  # the radius grows with the angle
    moons = toys.two_moons(4000, rng, noise=0.0) * 1.5
    centre = torch.tensor([0.5, 0.25])
    radii = torch.stack([(moons + centre).norm(dim=1), (moons - centre).norm(dim=1)])
    assert torch.allclose((radii - 1).abs().amin(0), torch.zeros(4000), atol=1e-5)

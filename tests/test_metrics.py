"""Every distance against a case whose value is known, and the digits' figures against real digits."""

import math

import pytest
import scipy.linalg
import torch

from litrev import data
from litrev.device import generator
from litrev.diffusion import ode
from litrev.quality import metrics


def normal(n, d, seed, mean=0.0, std=1.0):
    return mean + std * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def covariance(d, seed):
    root = normal(d, d, seed)
    return root @ root.T / d + 0.1 * torch.eye(d)


def digits(n, split="test", start=0):
    return data.mnist(split)[0][start : start + n]


def test_frechet_of_diagonal_gaussians():
    a, b = torch.tensor([1.0, 4.0, 0.0]), torch.tensor([9.0, 4.0, 0.25])
    got = metrics.gaussian_frechet(torch.zeros(3), a.diag(), torch.tensor([1.0, 2.0, 0.0]), b.diag())
    assert got == pytest.approx(1 + 4 + (1 - 3) ** 2 + 0 + 0.5**2)


def test_frechet_of_gaussians_that_do_not_commute():
    a, b = covariance(20, 0), covariance(20, 1)
    root = torch.as_tensor(scipy.linalg.sqrtm((a @ b).numpy()).real)
    exact = (a + b - 2 * root).trace().item()
    assert metrics.gaussian_frechet(torch.zeros(20), a, torch.zeros(20), b) == pytest.approx(exact, rel=1e-9)
    assert metrics.gaussian_frechet(torch.zeros(20), b, torch.zeros(20), a) == pytest.approx(exact, rel=1e-9)


def test_frechet_of_samples_approaches_the_gaussians_distance():
    mean, cov = normal(1, 5, 2)[0], covariance(5, 3)
    a = normal(100_000, 5, 4)
    b = mean + normal(100_000, 5, 5) @ torch.linalg.cholesky(cov).T
    exact = metrics.gaussian_frechet(torch.zeros(5), torch.eye(5), mean, cov)
    assert metrics.frechet_distance(a, b) == pytest.approx(exact, rel=0.02)


def test_frechet_is_zero_for_the_same_set_and_blind_to_rotation():
    a, b = normal(300, 8, 6), normal(200, 8, 7, mean=0.3)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    turn = torch.linalg.qr(normal(8, 8, 8)).Q
    assert metrics.frechet_distance(a @ turn, b @ turn) == pytest.approx(metrics.frechet_distance(a, b))


def test_frechet_survives_fewer_points_than_dimensions():
    assert metrics.frechet_distance(normal(4, 30, 0), normal(5, 30, 1)) > 0


@pytest.mark.parametrize("distance", [metrics.frechet_distance, metrics.sliced_wasserstein, metrics.precision_recall])
@pytest.mark.parametrize(
    "a, b, said",
    [
        (torch.zeros(5), torch.zeros(5, 2), r"\[n, d\]"),
        (torch.zeros(1, 2), torch.zeros(5, 2), "at least 2"),
        (torch.zeros(5, 3), torch.zeros(5, 2), "one d"),
        (torch.full((5, 2), torch.nan), torch.zeros(5, 2), "diverged"),
    ],
)
def test_wrong_features_are_refused(distance, a, b, said):
    with pytest.raises(ValueError, match=said):
        distance(a, b)


def test_sliced_wasserstein_of_a_shift():
    a, shift = normal(500, 4, 0), torch.tensor([3.0, 0.0, 4.0, 0.0], dtype=torch.float64)
    got = metrics.sliced_wasserstein(a, a + shift, directions=20_000)
    assert got == pytest.approx(shift.norm().item() / math.sqrt(4), rel=0.02)  # E (theta . m)^2 = |m|^2 / d
    assert metrics.sliced_wasserstein(a, a) == 0


def test_sliced_wasserstein_on_a_line_is_wasserstein():
    a, b = normal(100, 1, 0), normal(100, 1, 1, mean=1.0, std=2.0)
    exact = (a.sort(0).values - b.sort(0).values).square().mean().sqrt().item()
    assert metrics.sliced_wasserstein(a, b) == pytest.approx(exact)


def test_sliced_wasserstein_of_gaussians_of_other_size():
    a, b = normal(8000, 1, 0), normal(4000, 1, 1, mean=1.0, std=2.0)
    assert metrics.sliced_wasserstein(a, b) == pytest.approx(math.sqrt(1 + 1), rel=0.04)  # (m - m')^2 + (s - s')^2
    assert metrics.sliced_wasserstein(a, a.repeat(2, 1)) == pytest.approx(0, abs=1e-12)


def test_mmd_of_two_gaussians():
    a, b, h = normal(3000, 3, 0), normal(2000, 3, 1, mean=0.5, std=1.5), 2.0

    def mean_kernel(variances, squared):  # E exp(-|x - y|^2 / 2 h^2) where x - y is normal
        return (h**2 / (h**2 + variances)) ** 1.5 * math.exp(-squared / (2 * (h**2 + variances)))

    exact = mean_kernel(2, 0) + mean_kernel(4.5, 0) - 2 * mean_kernel(3.25, 0.75)
    assert metrics.mmd(a, b, h) == pytest.approx(exact, rel=0.1)


def test_mmd_is_unbiased():
    scores = torch.tensor([metrics.mmd(normal(50, 2, 2 * k), normal(40, 2, 2 * k + 1), 1.0) for k in range(200)])
    assert abs(scores.mean()) < 3 * scores.std() / math.sqrt(200) and scores.min() < 0


def test_precision_and_recall_know_dropped_modes_from_invented_ones():
    left, right = normal(400, 2, 0, mean=-10.0), normal(400, 2, 1, mean=10.0)
    both, fresh = torch.cat([left, right]), torch.cat([normal(400, 2, 2, mean=-10.0), normal(400, 2, 3, mean=10.0)])
    precision, recall = metrics.precision_recall(fresh, both)
    assert precision > 0.9 and recall > 0.9
    precision, recall = metrics.precision_recall(normal(800, 2, 4, mean=-10.0), both)
    assert precision > 0.9 and 0.4 < recall < 0.55  # one of two modes
    assert metrics.precision_recall(both + 100, both) == (0.0, 0.0)
    assert metrics.precision_recall(both, both) == (1.0, 1.0)


def test_floor_is_the_distance_of_two_draws_that_share_nothing():
    rows = torch.arange(40.0)[:, None]

    def seen(a, b):
        assert len(a) == len(b) == 20 and sorted(torch.cat([a, b]).flatten().tolist()) == rows.flatten().tolist()
        halves.append(a.mean().item())
        return halves[-1]

    halves = []
    mean, spread = metrics.floor(seen, rows, 20, seeds=4)
    assert len(set(halves)) == 4 and mean == pytest.approx(sum(halves) / 4)
    assert spread == pytest.approx(torch.tensor(halves).std().item())


def test_floors_of_the_distances():
    points, n = normal(2000, 4, 0), 500
    mean, spread = metrics.floor(metrics.frechet_distance, points, n, seeds=8)
    assert 0 < mean < 0.1 and 0 < spread < mean  # 0 only for infinitely many
    assert metrics.floor(metrics.frechet_distance, points, n // 4, seeds=8)[0] > 3 * mean  # in proportion to 1 / n
    assert metrics.floor(metrics.sliced_wasserstein, points, n)[0] < metrics.sliced_wasserstein(points, points + 0.3)
    mean, spread = metrics.floor(lambda a, b: metrics.mmd(a, b, 2.0), points, n, seeds=8)
    assert abs(mean) < 3 * spread  # unbiased: its floor is 0
    mean, spread = metrics.floor(metrics.precision_recall, points, n)
    assert all(0.8 < share < 1 for share in mean) and all(0 <= s < 0.1 for s in spread)


@pytest.mark.parametrize("n, seeds", [(1, 3), (6, 3), (5, 1)])
def test_a_floor_needs_two_sets_and_seeds(n, seeds):
    with pytest.raises(ValueError, match="out of 10 and at least 2 seeds"):
        metrics.floor(metrics.frechet_distance, normal(10, 2, 0), n, seeds)


def test_bits_per_dim_of_a_model_that_knows_the_histograms():
    levels = torch.tensor([0, 7, 255])[torch.randint(3, (4000, 1, 2, 5), generator=generator(0))].to(torch.uint8)
    levels[:, 0, 0, 0] = 9  # costs nothing
    nine = -9 * math.log(3) * torch.ones(4000)  # log-probability: nine pixels of three equally likely levels
    known = metrics.bits_per_dim(nine, levels, offset=0)
    assert known.value == pytest.approx(0.9 * math.log2(3)) and known.error < 1e-9 and known.n == 4000
    assert known.histograms == pytest.approx(known.value, abs=1e-3)
    density = metrics.bits_per_dim(nine + 10 * math.log(128), levels)  # of k / 128 - 1 + u / 128, u uniform in [0, 1)
    assert density.value == pytest.approx(known.value) and density.histograms == known.histograms
    assert "n = 4,000" in str(known) and f"histogram: {known.histograms:.3f}" in str(known) and "unknown" in str(known)


def test_bits_per_dim_has_the_error_of_its_mean_and_agrees_with_ode():
    log_p = -100 + 30 * normal(2500, 1, 0)[:, 0]
    pixels = torch.zeros(2500, 1, 4, 5, dtype=torch.uint8)
    got, bits = metrics.bits_per_dim(log_p, pixels), ode.bits_per_dim(log_p, 20)
    assert got.value == pytest.approx(bits.mean().item()) and got.histograms == 0
    assert got.error == pytest.approx(30 / 20 / math.log(2) / 50, rel=0.05)


def test_histograms_of_digits_need_one_to_three_bits():
    pixels = data.to_pixels(digits(2000))
    assert 1 < metrics.bits_per_dim(torch.zeros(2000), pixels).histograms < 3


@pytest.mark.parametrize(
    "log_p, pixels, sentence",
    [
        (torch.zeros(3), torch.zeros(3, 4), "pixels must be grey levels .* as from data.to_pixels"),
        (torch.zeros(3), torch.zeros(4, 4, dtype=torch.uint8), "log_p .* and grey levels"),
        (torch.zeros(3, 1), torch.zeros(3, 4, dtype=torch.uint8), "log_p must be a float tensor"),
        (torch.zeros(1), torch.zeros(1, 4, dtype=torch.uint8), "log_p .* and grey levels"),
        (torch.full((3,), -torch.inf), torch.zeros(3, 4, dtype=torch.uint8), "log_p .* and grey levels"),
    ],
)
def test_bits_per_dim_refuses_what_it_cannot_count(log_p, pixels, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.bits_per_dim(log_p, pixels)


def test_precision_needs_neighbours():
    with pytest.raises(ValueError, match="more than 3 points"):
        metrics.precision_recall(normal(3, 2, 0), normal(9, 2, 1))


def test_features_are_standardised_on_real_digits():
    features = metrics.mnist_features(digits(4000, "train"))
    assert features.shape == (4000, 64)
    assert features.mean(0).abs().max() < 0.1
    assert (features.std(0) - 1).abs().max() < 0.1


def test_features_see_images_as_a_file_would_hold_them():
    x = digits(20)
    noise = 0.003 * torch.rand(x.shape, generator=generator(0))  # under half a grey level of 2 / 255
    assert torch.equal(metrics.mnist_features(x + noise), metrics.mnist_features(x))
    white, brighter = torch.ones(3, 1, 28, 28), torch.full((3, 1, 28, 28), 2.0)
    assert torch.equal(metrics.mnist_features(brighter), metrics.mnist_features(white))


@pytest.mark.parametrize("measure", [metrics.mnist_features, metrics.mnist_fd, metrics.class_balance])
def test_wrong_digits_are_refused(measure):
    with pytest.raises(ValueError, match=r"\[n, 1, 28, 28\], not .* \[5, 1, 32, 32\]"):
        measure(torch.zeros(5, 1, 32, 32))
    with pytest.raises(ValueError, match="diverged"):
        measure(torch.full((5, 1, 28, 28), torch.inf))


def test_real_digits_score_the_floor():
    floor, spread = metrics.fd_floor(1000)
    real = metrics.mnist_fd(digits(1000, "train", start=30_000))
    assert real.n == 1000 and real.floor == floor
    assert abs(real.value - floor) < max(5 * spread, 0.2 * floor)
    assert f"{floor:.2f}" in str(real) and "1,000" in str(real)


def test_distance_grows_with_the_damage():
    x = digits(500, "train")
    noise = torch.randn(x.shape, generator=generator(0))
    scores = [metrics.mnist_fd(x + level * noise).value for level in (0.0, 0.2, 0.5, 2.0)]
    assert scores == sorted(scores) and scores[-1] > 20 * scores[0]


def test_all_test_digits_are_the_reference():
    features = metrics.mnist_features(data.mnist("test")[0])
    assert metrics._to_test_digits(features) == pytest.approx(0, abs=1e-3)


def test_the_floor_falls_with_n():
    assert metrics.fd_floor(200)[0] > metrics.fd_floor(800)[0] > 0
    for wrong in [(1, 3), (60_001, 3), (100, 1)]:
        with pytest.raises(ValueError, match="2 to 60,000 digits"):
            metrics.fd_floor(*wrong)


def test_class_balance_of_real_digits_and_of_one_class():
    images, labels = data.mnist("test")
    balance = metrics.class_balance(images[:2000])
    true = labels[:2000].bincount(minlength=10)
    assert (torch.tensor(balance.counts) - true).abs().max() <= 5
    assert balance.entropy == pytest.approx(math.log(10), abs=0.02) and balance.confidence > 0.98
    sevens = metrics.class_balance(images[labels == 7][:100])
    assert sevens.counts[7] >= 98 and sevens.entropy < 0.1 and "nats" in str(sevens)

"""How good samples are, in numbers; every number goes with the sample size n and what real data score at that n."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from litrev import classifier, data, device


def _features_ok(*features: Tensor) -> list[Tensor]:
    """Return sets of feature vectors as float64 on the CPU, or say what is wrong with them."""
    checked = [x.detach().cpu().double() for x in features]
    for x in checked:
        if x.ndim != 2 or len(x) < 2 or x.shape[1] != checked[0].shape[1]:
            raise ValueError(
                f"Features must be [n, d] with n at least 2 and one d, not {[tuple(x.shape) for x in features]}."
            )
        if not x.isfinite().all():
            raise ValueError(
                "The features hold values that are not finite: look at the samples, the model has diverged."
            )
    return checked


def gaussian_frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Return the squared 2-Wasserstein distance of two Gaussians with means [d] and covariances [d, d].

    |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), in float64 on the CPU. Source: Dowson & Landau 1982.
    """
    mean_a, cov_a, mean_b, cov_b = (x.detach().cpu().double() for x in (mean_a, cov_a, mean_b, cov_b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()  # clamp: rounding makes -1e-16 of 0
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance of two sets of features [n, d] and [m, d]: `gaussian_frechet` of their moments.

    Finite samples raise it in proportion to 1/n: compare only figures of equal n. Raises ValueError for a wrong shape,
    fewer than two rows or values that are not finite. Source: Heusel et al. 2017, eq. 6.
    """
    a, b = _features_ok(a, b)
    return gaussian_frechet(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def _digits(images: Tensor) -> Tensor:
    """Return images as a file would hold them: on the CPU, clipped to [-1, 1] and rounded to 8 bits."""
    if images.ndim != 4 or images.shape[1:] != (1, 28, 28):
        raise ValueError(f"Digits must be [n, 1, 28, 28], not {list(images.shape)}.")
    if not images.isfinite().all():
        raise ValueError("The images hold values that are not finite: the model or the sampler has diverged.")
    return data.to_unit(data.to_pixels(images.cpu()))


def mnist_features(images: Tensor) -> Tensor:
    """Map digits [n, 1, 28, 28] in [-1, 1] to the shipped classifier's features [n, 64], of variance 1 on real digits.

    Images are clipped and rounded to 8 bits first. Raises ValueError for another shape or values that are not finite.
    """
    return classifier.in_batches(classifier.load().features, _digits(images))


@dataclass(frozen=True)
class Distance:
    """A Frechet distance `value` of `n` samples, beside the `floor` that n real training digits score."""

    value: float
    n: int
    floor: float

    def __str__(self) -> str:
        return f"FD {self.value:.2f} (n = {self.n:,}; {self.n:,} real digits score {self.floor:.2f})"


def _to_test_digits(features: Tensor) -> float:
    """Return the Frechet distance of classifier features [n, 64] to those of all 10,000 test digits."""
    (features,) = _features_ok(features)
    net = classifier.load()
    return gaussian_frechet(features.mean(0), features.T.cov(), net.test_mean, net.test_cov)


@functools.cache
def fd_floor(n: int, seeds: int = 3) -> tuple[float, float]:
    """Return mean and standard deviation, over `seeds` draws, of the distance that n training digits score.

    No model can be told from the data below it. Raises ValueError unless 2 <= n <= 60,000 and seeds >= 2.
    """
    images, _ = data.mnist("train")
    if not (2 <= n <= len(images) and seeds >= 2):
        raise ValueError(f"The floor needs 2 to {len(images):,} digits and at least 2 seeds, not {n} and {seeds}.")
    draws = (torch.randperm(len(images), generator=device.generator(seed))[:n] for seed in range(seeds))
    scores = torch.tensor([_to_test_digits(mnist_features(images[draw])) for draw in draws])
    return scores.mean().item(), scores.std().item()


def mnist_fd(samples: Tensor) -> Distance:
    """Return the Frechet distance of digits [n, 1, 28, 28] in [-1, 1] to the 10,000 test digits, with its floor.

    In the features of `mnist_features`; not the FID of the papers, whose network was trained on ImageNet. Raises
    ValueError as `mnist_features` does, and for n below 2 or above 60,000.
    """
    floor, _ = fd_floor(len(samples))
    return Distance(_to_test_digits(mnist_features(samples)), len(samples), floor)


@dataclass(frozen=True)
class ClassBalance:
    """How samples spread over the ten digits: `counts`, their `entropy` in nats, the classifier's mean `confidence`."""

    counts: tuple[int, ...]
    entropy: float
    confidence: float

    def __str__(self) -> str:
        return f"class entropy {self.entropy:.3f} of {math.log(10):.3f} nats, mean confidence {self.confidence:.3f}"


def class_balance(samples: Tensor) -> ClassBalance:
    """Return which digits the shipped classifier sees in samples [n, 1, 28, 28] in [-1, 1], and how sure it is.

    Confidence alone says little: collapsed samples raise it. Raises ValueError as `mnist_features` does.
    """
    chances = classifier.in_batches(classifier.load(), _digits(samples)).softmax(1)
    counts = chances.argmax(1).bincount(minlength=10)
    shares = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(shares, shares).sum().item()
    return ClassBalance(tuple(counts.tolist()), entropy, chances.amax(1).mean().item())


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 256, seed: int = 0) -> float:
    """Return the sliced 2-Wasserstein distance of two sets of points [n, d] and [m, d].

    (E_theta W_2^2(theta.a, theta.b))^1/2 over random unit vectors theta; in one dimension W_2 compares quantiles.
    Raises ValueError as `frechet_distance` does. Source: Bonneel et al. 2015.
    """
    a, b = _features_ok(a, b)
    theta = torch.randn(directions, a.shape[1], generator=device.generator(seed), dtype=torch.float64)
    theta = (theta / theta.norm(dim=1, keepdim=True)).T
    n = max(len(a), len(b))
    levels = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    # with n == m these quantiles are the sorted points themselves
    at = [((x @ theta).sort(0).values, (levels * len(x)).long().clamp(max=len(x) - 1)) for x in (a, b)]
    quantiles = [ordered[index] for ordered, index in at]
    return (quantiles[0] - quantiles[1]).square().mean().sqrt().item()


def mmd(a: Tensor, b: Tensor, bandwidth: float) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy of points [n, d] and [m, d].

    E k(a, a') + E k(b, b') - 2 E k(a, b) with k = exp(-|x - y|^2 / 2 bandwidth^2); slightly negative values are normal
    where the two agree. Raises ValueError as `frechet_distance` does. Source: Gretton et al. 2012, eq. 3.
    """
    a, b = _features_ok(a, b)

    def kernel(x, y):
        return torch.exp(-torch.cdist(x, y).square() / (2 * bandwidth**2))

    def within(x):  # without the pairs of a point with itself, whose kernel is 1
        return (kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1))

    return (within(a) + within(b) - 2 * kernel(a, b).mean()).item()


def precision_recall(samples: Tensor, reference: Tensor, k: int = 3) -> tuple[float, float]:
    """Return the shares of samples [n, d] inside the reference's manifold [m, d], and of the reference inside theirs.

    A set's manifold is the union of balls around its points that reach each one's k-th neighbour. Raises ValueError as
    `frechet_distance` does, and when a set has no k neighbours. Source: Kynkaanniemi et al. 2019, eqs. 1-2.
    """
    samples, reference = _features_ok(samples, reference)
    if min(len(samples), len(reference)) <= k:
        raise ValueError(f"Precision and recall with k = {k} need more than {k} points on each side.")

    def covered(points, by):
        # "donot_use_mm": the fast form loses half the digits, and a point's distance to itself must be 0
        radius = torch.cdist(by, by, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(k + 1).values
        return (torch.cdist(points, by) <= radius).any(1).double().mean().item()

    return covered(samples, reference), covered(reference, samples)

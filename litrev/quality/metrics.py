"""How good samples are, in numbers; every number goes with the sample size n and what real data score at that n."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from litrev import checks, data, device
from litrev.diffusion import ode
from litrev.quality import classifier


def _features_ok(*features: Tensor) -> list[Tensor]:
    """Return sets of feature vectors as float64 on the CPU, or say what is wrong with them."""
    checks.numeric(**{f"Features {i}": x for i, x in enumerate(features, 1)})
    checks.kind(Tensor, "a tensor [n, d]", **{f"Features {i}": x for i, x in enumerate(features, 1)})
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


def floor(distance: Callable[[Tensor, Tensor], float], real: Tensor, n: int, seeds: int = 3) -> tuple:
    """Return mean and standard deviation, over `seeds` draws, of distance(a, b) for n real rows a and n others b.

    No model of the data can be told from it below (for precision and recall, which give a pair each: above). `real` is
    [m, ...], such as features. Raises ValueError unless 4 <= 2 n <= m and seeds >= 2.
    """
    checks.kind(callable, "a function of two sets of rows", distance=distance)
    checks.floats("m ...", real=real)
    checks.whole(n=n, seeds=seeds)
    if not (4 <= 2 * n <= len(real) and seeds >= 2):
        raise ValueError(
            f"The floor needs two sets of at least 2 out of {len(real):,} and at least 2 seeds, not {n} and {seeds}."
        )
    draws = (torch.randperm(len(real), generator=device.generator(seed)).to(real.device) for seed in range(seeds))
    scores = torch.tensor([distance(real[draw[:n]], real[draw[n : 2 * n]]) for draw in draws], dtype=torch.float64)
    return scores.mean(0).tolist(), scores.std(0).tolist()


def gaussian_frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Return the squared 2-Wasserstein distance of two Gaussians with means [d] and covariances [d, d].

    |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), in float64 on the CPU. Raises ValueError for other shapes and
    values that are no moments. Source: Dowson & Landau 1982.
    """
    checks.floats("d", mean_a=mean_a)
    d = len(mean_a)
    checks.floats(f"{d}", mean_b=mean_b)
    checks.floats(f"{d} {d}", cov_a=cov_a, cov_b=cov_b)
    checks.finite(mean_a=mean_a, cov_a=cov_a, mean_b=mean_b, cov_b=cov_b)
    mean_a, cov_a, mean_b, cov_b = (x.detach().cpu().double() for x in (mean_a, cov_a, mean_b, cov_b))
    for name, cov in (("cov_a", cov_a), ("cov_b", cov_b)):
        if not ((cov - cov.T).abs() <= 1e-4 * cov.abs().max()).all() or (cov.diagonal() < 0).any():
            raise ValueError(f"{name} must be a covariance: symmetric, with no variance below 0, as x.T.cov() is.")
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
    checks.images("n 1 28 28", **{"The digits": images})
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
    checks.whole(n=n, seeds=seeds)
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
    features = mnist_features(samples)  # first: it says what is wrong with the samples
    floor, _ = fd_floor(len(samples))
    return Distance(_to_test_digits(features), len(samples), floor)


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
    checks.whole(directions=directions)
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
    checks.number(above=0, bandwidth=bandwidth)

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
    checks.whole(k=k)
    if min(len(samples), len(reference)) <= k:
        raise ValueError(f"Precision and recall with k = {k} need more than {k} points on each side.")

    def covered(points, by):
        # "donot_use_mm": the fast form loses half the digits, and a point's distance to itself must be 0
        radius = torch.cdist(by, by, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(k + 1).values
        return (torch.cdist(points, by) <= radius).any(1).double().mean().item()

    return covered(samples, reference), covered(reference, samples)


@dataclass(frozen=True)
class BitsPerDim:
    """A code length `value` of `n` images with its standard `error`, beside what the `histograms` of pixels allow."""

    value: float
    error: float
    n: int
    histograms: float

    def __str__(self) -> str:
        return (
            f"{self.value:.3f} +- {self.error:.3f} bits/dim (n = {self.n:,}; each pixel's own histogram: "
            f"{self.histograms:.3f}; the floor, the entropy of the data, is unknown)"
        )


def bits_per_dim(log_p: Tensor, pixels: Tensor, offset: float = 7.0) -> BitsPerDim:
    """Return the mean of `ode.bits_per_dim` over n images whose log p(x) is log_p [n], in nats.

    pixels [n, ...] are the images' grey levels 0..255, uint8. `histograms` is what a code needs on these images that
    knows the share q_i(k) of each level k at each pixel i, and nothing of how pixels depend on each other: the mean
    over i of -sum_k q_i(k) log2 q_i(k). A model that needs more has learnt less than that; few images, whose histograms
    fit them too well, lower it. The offset is 7 for log-densities of `ode.dequantised` pixels, 0 for log-probabilities
    of the levels themselves, such as DDPM's bound. Raises ValueError for other pixels, another shape, n below 2 or a
    log p that is not finite.
    """
    checks.pixels(pixels=pixels)
    checks.floats("n", log_p=log_p)
    checks.number(offset=offset)
    if pixels.dtype != torch.uint8 or log_p.shape != pixels.shape[:1] or len(log_p) < 2 or not log_p.isfinite().all():
        raise ValueError(
            "Bits per dimension need finite log_p [n] and grey levels [n, ...] as from data.to_pixels, with n at least "
            f"2; here are log_p {list(log_p.shape)} and {pixels.dtype} {list(pixels.shape)}."
        )
    n, levels = len(pixels), pixels.cpu().flatten(1).long()
    bits = ode.bits_per_dim(device.double(log_p.detach()), levels.shape[1], offset)
    cells = levels + 256 * torch.arange(levels.shape[1])
    shares = cells.flatten().bincount(minlength=256 * levels.shape[1]).double() / n
    entropy = -torch.special.xlogy(shares, shares).sum().item() / levels.shape[1] / math.log(2)
    return BitsPerDim(bits.mean().item(), bits.std().item() / n**0.5, n, entropy)

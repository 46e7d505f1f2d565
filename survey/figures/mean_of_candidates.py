"""Draw mean_of_candidates.svg: a noisy digit, the training digits that it may be, and their mean.

Usage: python survey/figures/mean_of_candidates.py (numpy and matplotlib; reads MNIST from data/mnist)
"""

import lzma
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).resolve().parent
SEEN, SEED = 26, 1  # the training digit under the noise; the noise
RATIOS = (16, 5, 2, 1)  # sigma / alpha, one row each
SHOWN = 6  # candidates in a row


def digits():
    """The 60,000 training digits [n, 784], ink from 0 to 1."""
    with lzma.open(HERE.parents[1] / "data/mnist/train-images-idx3-ubyte.xz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255


def posterior(noisy, ratio, known):
    """p(x_0 | noisy) over the known digits, where noisy = x_0 + ratio * eps, in units of [-1, 1]."""
    far = np.square(known).sum(1) - 2 * known @ noisy  # the squared distance but for |noisy|^2
    log_p = -far.astype(np.float64) / (2 * ratio**2)
    p = np.exp(log_p - log_p.max())
    return p / p.sum()


def rows():
    """For each ratio: the noisy digit, its most probable originals with their probabilities, the mean of all."""
    known = 2 * digits() - 1
    eps = np.random.default_rng(SEED).standard_normal(784).astype(np.float32)
    for ratio in RATIOS:
        noisy = known[SEEN] + ratio * eps
        p = posterior(noisy, ratio, known)
        best = np.argsort(p)[::-1][:SHOWN]
        yield ratio, noisy, known[best], p[best], p @ known


def percent(p):
    return f"{100 * p:.0f} %" if p >= 0.01 else f"{100 * p:.2g} %" if p > 1e-4 else "0 %"


def draw():
    mpl.rcParams.update({"svg.hashsalt": "litrev", "font.family": "DejaVu Sans", "font.size": 10})
    figure, axes = plt.subplots(len(RATIOS), SHOWN + 2, figsize=(8.2, 5.0), layout="constrained")
    for row, (ratio, noisy, best, p, mean) in zip(axes, rows(), strict=True):
        span = 1.2 + 2 * ratio
        row[0].imshow(noisy.reshape(28, 28), cmap="gray_r", vmin=-span, vmax=span)
        row[0].set_ylabel(rf"$\sigma/\alpha$ = {ratio:g}")
        for ax, image, share in zip(row[1:-1], best, p, strict=True):
            ax.imshow(image.reshape(28, 28), cmap="gray_r", vmin=-1, vmax=1)
            ax.set_xlabel(percent(share), fontsize=9, labelpad=3)
        row[-1].imshow(mean.reshape(28, 28), cmap="gray_r", vmin=-1, vmax=1)
        row[-1].spines[:].set(color="#0072b2", linewidth=2)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    axes[0, 0].set_title("seen", fontsize=10)
    over = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "annotation_clip": False}
    said = axes[0, 1].annotate("what it may be, most probable first", (0, 1), (0, 6), **over)
    said.set_in_layout(False)  # it is wider than its panel
    axes[0, -1].set_title("mean of all", fontsize=10)
    figure.savefig(HERE / "mean_of_candidates.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    draw()

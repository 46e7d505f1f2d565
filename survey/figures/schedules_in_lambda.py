"""Draw schedules_in_lambda.svg: the log-SNR of six schedules over time, and where uniform times put their weight.

Usage: python survey/figures/schedules_in_lambda.py (numpy and matplotlib)
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).resolve().parent


def linear_vp(t):
    """beta(t) = 0.1 + 19.9 t: alpha^2 = exp(-B), sigma^2 = 1 - exp(-B)."""
    B = 0.1 * t + 9.95 * t**2
    return -np.log(np.expm1(B))


def cosine(t):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2)."""
    return -2 * np.log(np.tan(np.pi * t / 2))


def geometric(t):
    """alpha = 1, sigma = 0.01 * 5000^t."""
    return -2 * np.log(0.01 * 5000**t)


def karras(t):
    """alpha = 1, the grid of EDM's sampler from 0.002 to 80, rho = 7."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    return -14 * np.log(low + t * (high - low))


def rectified_flow(t, shift=1.0):
    """alpha = 1 - t, sigma = t; a shift moves lambda by -2 log(shift)."""
    return 2 * np.log((1 - t) / t) - 2 * np.log(shift)


SCHEDULES = {
    "VP, linear": (linear_vp, "#0072b2", "-"),
    "cosine": (cosine, "#d55e00", "-"),
    "VE, geometric": (geometric, "#009e73", "-"),
    "EDM's grid": (karras, "#cc79a7", "--"),
    "rectified flow": (rectified_flow, "#000000", "-"),
    "the same, shift 3": (lambda t: rectified_flow(t, 3.0), "#000000", ":"),
}


def draw():
    mpl.rcParams.update({"svg.hashsalt": "litrev", "font.family": "DejaVu Sans", "font.size": 10})
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.5), layout="constrained")
    t = np.linspace(1e-3, 1 - 1e-3, 2001)
    for name, (log_snr, colour, style) in SCHEDULES.items():
        at = log_snr(t)
        density = -1 / np.gradient(at, t)
        left.plot(t, at, style, color=colour, label=name)
        right.plot(at, density, style, color=colour)
    left.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    left.set(xlabel="time $t$", ylabel=r"log-SNR $\lambda_t$", xlim=(0, 1), ylim=(-12, 14))
    right.set(xlabel=r"log-SNR $\lambda$ (left is noise)", ylabel="density", xlim=(-12, 14), ylim=(0, 0.18))
    left.legend(frameon=False, fontsize=9)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "schedules_in_lambda.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    draw()

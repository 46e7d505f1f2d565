"""Fewer steps: what the multistep solver makes of the shared DDPM, beside 50 steps of DDIM from the same noise; and as
many steps with noise."""

import torch

from lab import base, recipe
from litrev import data
from litrev.device import device, generator, randn
from litrev.diffusion.denoiser import clip_x0, from_network
from litrev.diffusion.grids import karras_grid
from litrev.diffusion.samplers import ddim, dpm_solver, final, sde_dpm_solver
from litrev.quality import metrics

DDIM, SOLVER, NOISY = "DDIM", "2M solver", "2M solver with noise"
PLAIN = {DDIM: ddim, SOLVER: dpm_solver}


def times(name: str, steps: int) -> list:
    """Return the times of a sampler: even in t for DDIM; for the solver those of EDM, down to t = 10, where hardly any
    noise is left (chosen among four spacings, on a seed that is not reported), or with noise down to the last."""
    return base.CHAIN.grid(steps) if name == DDIM else karras_grid(base.CHAIN, steps, end=10 if name == SOLVER else 1)


class Sampler:
    """The shared DDPM on one thread, asked for Frechet distances."""

    def __init__(self):
        torch.set_num_threads(1)
        self.denoiser = clip_x0(from_network(base.ddpm_mnist().net, base.CHAIN, "v"))

    def distance(self, name: str, steps: int, seed: int, n: int) -> dict:
        """Return the Frechet distance of n samples of a sampler, what real digits score, and the network's calls."""
        grid, rng, made = times(name, steps), generator(seed), []
        for start in range(0, n, 250):
            given = self.denoiser, randn((min(250, n - start), 1, 28, 28), rng, device()), grid
            states = sde_dpm_solver(*given, rng, recipe.NOISE) if name == NOISY else PLAIN[name](*given)
            made.append(final(states).cpu())
        score = metrics.mnist_fd(data.to_unit(data.to_pixels(torch.cat(made))))
        return {"distance": score.value, "floor": score.floor, "n": n, "calls": len(grid) - 1}

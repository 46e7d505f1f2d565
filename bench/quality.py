"""Quality per minute: the Frechet distance of digits after equal CPU time of training from nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import subjects
from bench.subjects import Subject
from lab import optim
from litrev import data, metrics
from litrev.device import generator

MILLIONS, SIZE = 0.4, 28


@dataclass
class Trial:
    """What a training from nothing gave: `sample(n, evaluations)` draws digits; it took `steps` of `batch` images."""

    sample: Callable[[int, int], Tensor]
    steps: int
    batch: int

    def score(self, n: int, evaluations: int) -> dict:
        """Return the Frechet distance of n samples, clipped and rounded to 8 bits, and what real digits score."""
        parts = [self.sample(min(250, n - start), evaluations) for start in range(0, n, 250)]
        score = metrics.mnist_fd(torch.cat(parts))
        distances = {"distance": float(f"{score.value:.4g}"), "floor": float(f"{score.floor:.4g}")}
        return distances | {"n": n, "evaluations": evaluations, "steps": self.steps, "batch": self.batch}


def litrev_recipe(seconds: float, seed: int) -> Trial:
    """This library's network after `seconds` of CPU time: v-prediction, Muon, warm-up, then linearly to zero."""
    _prepare(seed)
    subject = subjects.litrev_unet(MILLIONS, SIZE)
    subject.optimisers = optim.optimisers(subject.net, "muon", 4e-3, 0.0)
    subject.rate = lambda step, done: min(1.0, done / 0.03, (1 - done) / 0.97)
    return Trial(subject.sample, train(subject, 64, seconds, seed), 64)


def peer_recipe(build: str, options: dict, seconds: float, seed: int) -> Trial:
    """A peer after `seconds` of CPU time, trained as the function `build` of subjects.py says, in batches of 16: what
    both peers' own training code takes."""
    _prepare(seed)
    subject = getattr(subjects, build)(MILLIONS, SIZE, **options)
    return Trial(subject.sample, train(subject, 16, seconds, seed), 16)


def _prepare(seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data.mnist("train")  # unpacking it is no part of the budget


def train(subject: Subject, batch: int, seconds: float, seed: int) -> int:
    """Train on MNIST for `seconds` of this process's CPU time, at least one step; return the number of steps."""
    images, rng = data.mnist("train")[0], generator(seed)
    groups = [group for optimiser in subject.optimisers for group in optimiser.param_groups]
    rates = [group["lr"] for group in groups]
    start, done, step = time.process_time(), 0.0, 0
    while done < 1:
        for group, lr in zip(groups, rates, strict=True):
            group["lr"] = lr * subject.rate(step, done)
        subjects.step(subject, images[torch.randint(len(images), (batch,), generator=rng)])
        step, done = step + 1, (time.process_time() - start) / seconds
    return step

"""Quality per minute: the Frechet distance of digits after equal CPU time of training from nothing."""

import functools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import subjects
from bench.subjects import Subject
from lab import recipe
from litrev import data
from litrev.device import generator
from litrev.quality import metrics

MILLIONS, SIZE = 0.4, 28


@dataclass
class Trial:
    """What a training from nothing gave: `sample(n, evaluations)` draws digits; it took `steps` and `spent` CPU
    seconds."""

    sample: Callable[[int, int], Tensor]
    steps: int
    spent: float

    def score(self, n: int, evaluations: int) -> dict:
        """Return the Frechet distance of n samples, clipped and rounded to 8 bits, and what real digits score."""
        parts = [self.sample(min(250, n - start), evaluations) for start in range(0, n, 250)]
        score = metrics.mnist_fd(torch.cat(parts))
        rounded = {"distance": score.value, "floor": score.floor, "spent": self.spent}
        found = {name: float(f"{value:.4g}") for name, value in rounded.items()}
        return found | {"n": n, "evaluations": evaluations, "steps": self.steps}


def litrev_recipe(options: dict, seconds: float, seed: int) -> Trial:
    """`lab.recipe.train` with `options` and as many steps as take `seconds` of CPU time in all, by two short runs
    before."""
    _prepare(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LITREV_RUNS"] = folder  # nothing that is kept elsewhere is loaded instead of trained
        _recipe(2, seed, options)  # prepares kernels and memory
        few, more = _recipe(5, seed, options)[1], _recipe(25, seed, options)[1]
        each = (more - few) / 20
        steps = max(1, round((seconds - few) / each) + 5)
        trained, spent = _recipe(steps, seed, options)
    rng = generator(seed)
    return Trial(lambda n, evaluations: trained.sample(n, evaluations, rng), steps, spent)


def attentive_recipe(seconds: float, seed: int) -> Trial:
    """`litrev_recipe` with two heads of attention in each block of the network's middle."""
    return litrev_recipe({"build": functools.partial(recipe.small_net, heads=2)}, seconds, seed)


def _recipe(steps: int, seed: int, options: dict) -> tuple[recipe.Trained, float]:
    """Return a network trained by the recipe, and the CPU seconds that it took."""
    start = time.process_time()
    trained = recipe.train(data.mnist("train")[0], name="bench", steps=steps, seed=seed, **options)
    return trained, time.process_time() - start


def peer_recipe(build: str, options: dict, seconds: float, seed: int) -> Trial:
    """A peer after `seconds` of CPU time, trained as the function `build` of subjects.py says."""
    _prepare(seed)
    subject = getattr(subjects, build)(MILLIONS, SIZE, **options)
    return Trial(subject.sample, *train(subject, subject.batch, seconds, seed))


def _prepare(seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data.mnist("train")  # unpacking it is no part of the budget


def train(subject: Subject, batch: int, seconds: float, seed: int) -> tuple[int, float]:
    """Train on MNIST for `seconds` of this process's CPU time, at least one step; return steps and CPU seconds."""
    images, rng = data.mnist("train")[0], generator(seed)
    groups = [group for optimiser in subject.optimisers for group in optimiser.param_groups]
    rates = [group["lr"] for group in groups]
    start, done, step = time.process_time(), 0.0, 0
    while done < 1:
        for group, lr in zip(groups, rates, strict=True):
            group["lr"] = lr * subject.rate(step, done)
        subjects.step(subject, images[torch.randint(len(images), (batch,), generator=rng)])
        step, done = step + 1, (time.process_time() - start) / seconds
    return step, done * seconds

"""Quality per minute: the Frechet distance of digits after equal CPU time of training from nothing, and whether labels
and captions are obeyed."""

import functools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from bench import subjects
from bench.subjects import Subject
from lab import captioned, recipe
from lab.training import fit
from litrev import data
from litrev.data import scenes
from litrev.device import generator
from litrev.diffusion import guidance
from litrev.nets.laptop_unet import LaptopUNet
from litrev.nets.mmdit import CaptionMMDiT
from litrev.quality import classifier, metrics, oracle

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
        found = _distance(torch.cat(parts)) | _rounded({"spent": self.spent})
        return found | {"n": n, "evaluations": evaluations, "steps": self.steps}


@dataclass
class Asked:
    """As `Trial`, of a network that is told what to draw: `read(n, evaluations)` says how far it did in n images."""

    read: Callable[[int, int], dict]
    steps: int
    spent: float

    def score(self, n: int, evaluations: int) -> dict:
        """Return what `read` finds in n images."""
        about = {"n": n, "evaluations": evaluations, "steps": self.steps}
        return about | _rounded({"spent": self.spent}) | self.read(n, evaluations)


def _distance(digits: Tensor) -> dict:
    found = metrics.mnist_fd(digits)
    return _rounded({"distance": found.value, "floor": found.floor})


def _rounded(found: dict[str, float]) -> dict:
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def litrev_recipe(options: dict, seconds: float, seed: int) -> Trial:
    """`lab.recipe.train` with `options` for `seconds` of CPU time, as `_within` has it."""
    _prepare(seed)
    (trained, steps), spent = _within(functools.partial(_recipe, seed=seed, options=options), seconds)
    rng = generator(seed)
    return Trial(lambda n, evaluations: trained.sample(n, evaluations, rng), steps, spent)


def attentive_recipe(seconds: float, seed: int) -> Trial:
    """`litrev_recipe` with two heads of attention in each block of the network's middle."""
    return litrev_recipe({"build": functools.partial(recipe.small_net, heads=2)}, seconds, seed)


def by_class(seconds: float, seed: int) -> Asked:
    """The recipe with labels, of which `_class_loss` hides a tenth. The network without its label is then the weaker
    one that the recipe leads away from, so that all steps are spent on one network: classifier-free guidance, at the
    recipe's scale and noise levels. `read` has the distance of digits drawn with the labels of random training digits,
    and the share that the classifier reads as the label asked for."""
    _prepare(seed)
    images, labels = data.mnist("train")
    mean, std = images.mean().item(), images.std().item()

    def train(steps):
        options = dict(steps=steps, batch=64, lr=6e-3, optimiser="muon", seed=seed)
        return fit(_labelled_net, _class_loss, ((images - mean) / std, labels), name="bench_by_class", **options)

    (run, steps), spent = _within(train, seconds)
    rng = generator(seed)

    def draw(label, evaluations):
        told, untold = (
            SimpleNamespace(net=lambda x, time, y=y: run.net(x, time, y)) for y in (label, torch.full_like(label, 10))
        )
        return recipe.Trained(told, untold, mean, std, "v", 2.0).sample(len(label), evaluations, rng)

    def read(n, evaluations):
        asked = labels[torch.randint(len(labels), (n,), generator=rng)]
        digits = torch.cat([draw(part, evaluations) for part in asked.split(250)])
        right = classifier.in_batches(classifier.load(), digits).argmax(1) == asked
        return _distance(digits) | {"read": _rounded({"right class": right.float().mean().item()})}

    return Asked(read, steps, spent)


def _labelled_net() -> LaptopUNet:
    return LaptopUNet(width=32, depth=1, middle=3, heads=0, classes=10)


def _class_loss(net, batch, rng: torch.Generator) -> Tensor:
    """The recipe's loss of (images, labels), a tenth of the labels hidden."""
    x0, label = batch
    label = guidance.drop(label, 10, 0.1, rng)
    return recipe.noise_loss(2.0, "v")(lambda x, time: net(x, time, label), (x0,), rng)


def scenes_by_caption(seconds: float, seed: int) -> Asked:
    """The base of notebook 08, `captioned.scenes_by_caption`, with as many steps as `seconds` hold. `read` has the
    oracle's shares of at most 512 scenes, drawn by `captioned.draw` for exact captions of the split 'seen'."""
    _prepare(seed)

    def train(steps):
        options = dict(steps=steps, batch=64, lr=5e-3, optimiser="muon", seed=seed)
        return fit(CaptionMMDiT, captioned.flow_loss, captioned.exact_and_partial, name="bench_scenes", **options)

    (run, steps), spent = _within(train, seconds)
    rng = generator(seed)

    def read(n, evaluations):
        asked = scenes.evaluation("seen")
        made = captioned.draw(run.net, asked.tokens[:n], rng, steps=evaluations // 2)  # of which each asks twice
        shares = oracle.Oracle().score(made, {name: values[:n] for name, values in asked.attrs.items()})
        told = {"digit": shares["d"], "all": shares["all"], "valid": shares["valid"]}
        return {"n": len(made), "read": _rounded(told)}

    return Asked(read, steps, spent)


def _recipe(steps: int, seed: int, options: dict) -> recipe.Trained:
    return recipe.train(data.mnist("train")[0], name="bench", steps=steps, seed=seed, **options)


def _within(train: Callable[[int], object], seconds: float) -> tuple[tuple[object, int], float]:
    """Return what `train(steps)` makes with as many steps as take `seconds` of CPU time in all, by two short runs
    before, with the steps; and the CPU seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LITREV_RUNS"] = folder  # nothing that is kept elsewhere is loaded instead of trained
        train(2)  # prepares kernels and memory
        few, more = _timed(train, 5)[1], _timed(train, 25)[1]
        each = (more - few) / 20
        steps = max(1, round((seconds - few) / each) + 5)
        trained, spent = _timed(train, steps)
    return (trained, steps), spent


def _timed(train: Callable[[int], object], steps: int) -> tuple[object, float]:
    """Return what `train` makes, and the CPU seconds that it took."""
    start = time.process_time()
    return train(steps), time.process_time() - start


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

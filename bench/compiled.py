"""torch.compile in training: of nothing, of the network, and of the optimiser (clipping, AdamW, average) as well.

A compiled optimiser must be given as tensors what changes from step to step, or each value would be compiled anew."""

import os
import resource
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench import speed, subjects
from bench.growth import NETWORKS
from litrev.nets import blocks

LR, EMA = 2e-3, 0.999


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it waited for, such as a C++ compiler."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Trainee:
    """A network in training on random images, of which "nothing", the "network" or the "network and optimiser" is
    `compiled`, its first two steps behind it."""

    def __init__(self, name: str, millions: float, compiled: str, batch: int):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        blocks.bfloat16_pays = torch.compiler.assume_constant_result(blocks.bfloat16_pays)  # else a graph ends at it
        subject = getattr(subjects, NETWORKS[name])(millions, 28)
        self.batch, self.images = batch, torch.rand(batch, 1, 28, 28) * 2 - 1
        self.step = lambda: subjects.step(subject, self.images)
        if compiled != "nothing":
            subject.net.compile(dynamic=False)
        if compiled == "network and optimiser":
            self.step = _compiled_step(subject, self.images)
        with tempfile.TemporaryDirectory() as folder:  # nothing is compiled yet
            os.environ |= {"TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            before = cpu_seconds()
            self.step()
            self.first = cpu_seconds() - before
            self.step()

    def facts(self) -> dict:
        """Return the CPU seconds of the first step, compilation included, and PyTorch's version."""
        return {"first": float(f"{self.first:.4g}"), "torch": torch.__version__.split("+")[0]}

    def train(self, seconds: float) -> float:
        """Return images per core-second."""
        return self.batch * speed.per_second(self.step, seconds)


def _compiled_step(subject: subjects.Subject, images: Tensor) -> Callable[[], None]:
    """Return a training step like `subjects.step`, of which all after the gradients is one compiled function."""
    params = list(subject.net.parameters())
    mean = [p.detach().clone() for p in params]
    adam = torch.optim.AdamW(params, torch.tensor(LR), weight_decay=0.0, foreach=True, capturable=True)

    @torch.compile(dynamic=False)
    def update(weight):
        nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(mean, params, weight)

    def step():
        subject.loss(images).backward()
        update(torch.tensor(1 - EMA))
        adam.zero_grad()

    return step

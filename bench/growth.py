"""What an image costs in training as images and networks grow: CPU time, and where it goes."""

from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from bench import children, speed, subjects
from litrev.nets.laptop_unet import LaptopUNet

NETWORKS = {"U-Net": "litrev_unet", "DiT": "litrev_dit"}  # their functions in subjects.py
# Kinds of operators in a step, by the beginnings of their names; what is left are norms, activations, sums.
KINDS = {
    "products": ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::mm", "aten::addmm"),
    "attention": ("aten::bmm", "aten::baddbmm", "aten::_softmax"),
    "copies": ("aten::copy_", "aten::cat"),
    "optimiser": ("aten::_fused", "aten::_foreach", "Optimizer"),
}
REST = "rest"


def kind(operator: str) -> str:
    """Return the one of KINDS that an operator belongs to, or the rest."""
    return next((name for name, beginnings in KINDS.items() if operator.startswith(beginnings)), REST)


class Grid:
    """Both networks in each number of `millions` of parameters and each size of images, in one process."""

    def __init__(self, millions: list[float], sizes: list[int], batch: int):
        asked = [(name, m, size) for name in NETWORKS for m in millions for size in sizes]
        self.trainees = {(name, *rest): speed.Trainee(NETWORKS[name], *rest, batch) for name, *rest in asked}

    def measure(self, rounds: int, seconds: float) -> list[dict]:
        """Return for each network the CPU milliseconds that an image costs, in rounds in which all take turns, its
        GFLOP, the rate of its main product alone, and the share of each kind of operator in a step's time."""
        costs = {key: [] for key in self.trainees}
        for _ in range(rounds):
            for key, trainee in self.trainees.items():
                costs[key].append(1000 / trainee.train(seconds))
        shares(next(iter(self.trainees.values())))  # a profiler's first step has its own start in it
        return [self._row(key, trainee, costs[key]) for key, trainee in self.trainees.items()]

    def torch_version(self) -> str:
        """Return PyTorch's version."""
        return torch.__version__.split("+")[0]

    def _row(self, key: tuple, trainee: speed.Trainee, costs: list[float]) -> dict:
        name, millions, size = key
        facts = trainee.facts()
        about = {"name": name, "millions": millions, "size": size, "parameters": facts["parameters"]}
        about |= {"gflop": float(f"{facts['gflop']:.4g}"), "precision": facts["precision"]}
        work, flops = main_product(trainee, size)
        alone = max(flops / 1e9 * speed.per_second(work, 0.2) for _ in range(3))
        return about | {"ms": children.spread(costs), "alone": float(f"{alone:.4g}"), "shares": shares(trainee)}


def main_product(trainee: speed.Trainee, size: int) -> tuple[Callable, int]:
    """Return what a network mostly does, by itself, and its FLOPs: a convolution of a U-Net's middle, forward and
    backward, or the first product of a DiT's MLP."""
    net, dtype = trainee.subject.net, max(trainee.flops, key=trainee.flops.get)
    if isinstance(net, LaptopUNet):
        return speed.conv(net.shrink.out_channels, size // 4, dtype, torch.channels_last)
    width = net.embed.out_features
    return speed.matmul(trainee.batch * (size // net.patch) ** 2, width, 4 * width, dtype)


def shares(trainee: speed.Trainee) -> dict[str, float]:
    """Return the part that each kind of operator has in the time of a training step; together they are 1. Each kind's
    time is its least of three steps, for the profiler's clock goes on while other work has the core."""
    steps = []
    for _ in range(3):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            subjects.step(trainee.subject, trainee.images)
        steps.append(Counter())
        for event in profiled.key_averages():
            steps[-1][kind(event.key)] += event.self_cpu_time_total
    least = {name: min(step[name] for step in steps) for name in (*KINDS, REST)}
    return {name: round(spent / sum(least.values()), 3) for name, spent in least.items()}

"""What an image costs in training as images and networks grow: CPU time, and where it goes."""

from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from bench import children, speed, subjects

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
        GFLOP, and the share of each kind of operator in a step's time."""
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
        return about | {"ms": children.spread(costs), "shares": shares(trainee)}


def shares(trainee: speed.Trainee) -> dict[str, float]:
    """Return the part that each kind of operator has in the time of a training step; together they are 1."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        subjects.step(trainee.subject, trainee.images)
    spent = Counter()
    for event in profiled.key_averages():
        spent[kind(event.key)] += event.self_cpu_time_total
    return {name: round(spent[name] / spent.total(), 3) for name in (*KINDS, REST)}

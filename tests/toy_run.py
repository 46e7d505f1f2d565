"""A training run of a hundredth of a second, shared by the tests of training, its cache and its robustness."""

import torch
from torch import nn

from lab.training import fit


def build():
    return nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 2))


def loss(net, x0, generator):
    eps = torch.randn(x0.shape, generator=generator).to(x0.device)
    return (net(x0 + eps) - eps).square().mean()


def examples(n, generator):
    return torch.randn(n, 2, generator=generator)


def train(**changed):
    arguments = {"name": "toy", "steps": 20, "batch": 8, "optimiser": "muon"} | changed
    return fit(arguments.pop("build", build), arguments.pop("loss", loss), arguments.pop("data", examples), **arguments)

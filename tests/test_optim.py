"""Muon's step is orthogonal and of AdamW's size, every parameter has one optimiser, and state comes back as it was."""

import copy

import pytest
import torch
from torch import nn

from lab import optim


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 32, 288), (2, 288, 32), (1, 16, 17)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    s = torch.linspace(1, 30, u.shape[-1])
    result = u.mT @ optim.orthogonalise(u * s @ v) @ v.mT
    diagonal = torch.diagonal(result, dim1=-2, dim2=-1)
    assert diagonal.min() > 0.65 and diagonal.max() < 1.25
    torch.testing.assert_close(result, torch.diag_embed(diagonal), atol=1e-4, rtol=0)


def test_the_polynomial_is_applied_five_times():
    s = torch.tensor([0.01, 0.1, 0.5, 0.9])
    x = s / s.norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    torch.testing.assert_close(optim.orthogonalise(torch.diag(s)[None])[0], torch.diag(x), atol=1e-5, rtol=1e-4)


def test_a_matrix_of_zeros_stays_zero():
    assert not optim.orthogonalise(torch.zeros(1, 16, 16)).any()


@pytest.mark.parametrize("shape", [(64, 64), (32, 96), (32, 16, 3, 3)])
def test_muon_moves_by_the_learning_rate_times_a_fifth(shape):
    p = nn.Parameter(torch.zeros(shape))
    p.grad = 1e-3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    optim.Muon([p], lr=0.1).step()
    assert 0.75 < p.square().mean().sqrt() / (0.1 * 0.2) < 1.15


def test_muon_is_momentum_with_nesterov_and_decoupled_decay():
    p = nn.Parameter(torch.eye(16))
    muon = optim.Muon([p], lr=0.1, weight_decay=0.5)
    average, expected = torch.zeros(16, 16), torch.eye(16)
    for seed in range(3):
        p.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed))
        average = 0.95 * average + 0.05 * p.grad
        direction = optim.orthogonalise((0.95 * average + 0.05 * p.grad)[None])[0]
        expected = (1 - 0.1 * 0.5) * expected - 0.1 * 0.2 * 16**0.5 * direction
        muon.step()
    torch.testing.assert_close(p.detach(), expected, atol=1e-5, rtol=1e-4)


class Net(nn.Module):
    """One of each kind of parameter; `tied` shares its weight with `linear`."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 32)
        self.first = nn.Conv2d(1, 32, 3)
        self.middle = nn.Conv2d(32, 32, 3)
        self.linear = nn.Linear(32, 32)
        self.tied = nn.Linear(32, 32)
        self.tied.weight = self.linear.weight
        self.frozen = nn.Linear(32, 32).requires_grad_(False)
        self.last = nn.Linear(32, 2)
        self.table = nn.Parameter(torch.zeros(49, 32))


def held(optimiser):
    return {id(p) for group in optimiser.param_groups for p in group["params"]}


def test_muon_gets_the_wide_matrices_and_adamw_all_else():
    net = Net()
    muon, adamw = optim.optimisers(net, "muon", 1e-3, 0.0)
    assert held(muon) == {id(net.middle.weight), id(net.linear.weight)}
    assert held(muon).isdisjoint(held(adamw))
    assert held(muon) | held(adamw) == {id(p) for p in net.parameters() if p.requires_grad}


def test_adamw_alone_gets_everything():
    net = Net()
    (adamw,) = optim.optimisers(net, "adamw", 1e-3, 0.0)
    assert held(adamw) == {id(p) for p in net.parameters() if p.requires_grad}


def stepped(net, optimisers, steps):
    for seed in steps:
        x = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(seed))
        net(x).square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_comes_back_bit_for_bit_even_in_channels_last(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.SiLU(), nn.Conv2d(32, 20, 3)).to(memory_format=torch.channels_last)
    optimisers = optim.optimisers(net, name, 1e-2, 0.1)
    stepped(net, optimisers, range(3))
    other = copy.deepcopy(net)
    state = {name: t.contiguous().clone() for name, t in optim.get_state(optimisers).items()}
    others = optim.optimisers(other, name, 1e-2, 0.1)
    optim.set_state(others, state)
    stepped(net, optimisers, range(3, 6))
    stepped(other, others, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))


def test_the_rate_rises_falls_and_never_reaches_zero():
    rates = [optim.rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:] == pytest.approx([n / 90 for n in range(90, 0, -1)])


@pytest.mark.parametrize("steps, warmup", [(1, 0.0), (1, 0.5), (2, 0.99), (10, 0.0)])
def test_the_rate_is_within_zero_and_one_for_short_runs(steps, warmup):
    assert all(0 < optim.rate(step, steps, warmup) <= 1 for step in range(steps))


def test_the_average_of_the_ramp_has_a_closed_form():
    """With decay (1 + n) / (10 + n), the weight of the start after n steps is 9! n! / (9 + n)!."""
    left = 1.0
    for n in range(50):
        left *= optim.decay(n, 0.999)
    closed = 1.0
    for k in range(1, 10):
        closed *= k / (50 + k)
    assert left == pytest.approx(closed, rel=1e-12)
    assert optim.decay(10**6, 0.999) == 0.999
    assert optim.decay(5, 0.0) == 0.0

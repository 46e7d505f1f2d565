"""Networks that draw digits in 16 to 1 steps, made from the base "digits by class"; notebooks 12 and 13 share them.

All predict v, and are trained on one that leads where it should: see `litrev.diffusion.distillation`. The shipped ones
were trained on a GPU, like the base; the loss, the batches and the noise are the ones of here.
"""

import copy

import torch

from lab import base, runs
from lab.training import fit
from litrev import data, device
from litrev.diffusion import distillation
from litrev.diffusion.denoiser import from_network
from litrev.diffusion.grids import karras_grid
from litrev.presets import preset

UPDATES = {16: 2000, 8: 2000, 4: 3000, 2: 5000, 1: 7000}  # of each student; the last two have further to go
POINTS_CD, POINTS_CT = 18, 40  # on the path from noise to data; fewer where the teacher's solver is of second order


def progressive() -> dict[int, runs.Run]:
    """The students of 16, 8, 4, 2 and 1 steps by their number of steps, each distilled from the one before, the first
    from 32 steps of the base; their denoisers are `from_network(run.net, base.COSINE, "v")`, at the times i / steps."""
    found, net = {}, base.digits_by_class().net
    for steps, updates in UPDATES.items():
        teacher = from_network(net, base.COSINE, "v")
        found[steps] = _student(f"pd_digits_{steps}", _from(net), progressive_loss(teacher, steps), updates, 2e-3)
        net = found[steps].net
    return found


def consistency_distillation() -> runs.Run:
    """The student that a consistency function is made of by `distillation.consistency(run.net)`: it starts as the base,
    and learns from Heun steps of the base."""
    net = base.digits_by_class().net
    loss = consistency_loss(POINTS_CD, from_network(net, base.COSINE, "v"))
    return _student("cd_digits", _from(net), loss, 14_000, 1e-3)


def consistency_training() -> runs.Run:
    """The network of a consistency function as `consistency_distillation`, trained from scratch without a teacher."""
    return _student("ct_digits", base.labelled_network, consistency_loss(POINTS_CT), 18_000, 2e-3)


def _from(net: torch.nn.Module):
    """A function that builds a network with the weights of `net`."""

    def build():
        return copy.deepcopy(net)

    return build


def _student(name: str, build, loss, updates: int, lr: float) -> runs.Run:
    return fit(
        build,
        loss,
        data.mnist("train"),
        name=name,
        steps=preset(laptop=updates, smoke=4),
        batch=preset(laptop=128, smoke=8),
        lr=lr,
        optimiser="muon",
    )


def progressive_loss(teacher, steps):
    """E |v_hat - v|^2 at t = i / steps, i uniform on 1..steps, v by which one step to t - 1 / steps lands where two of
    the teacher land. Progressive distillation, algorithm 2 with the weight SNR + 1."""

    def loss(net, batch, generator):
        x0, label = batch
        index = torch.randint(1, steps + 1, (len(x0),), generator=generator)
        t, s = index / steps, (index - 1) / steps
        xt = base.COSINE.add_noise(x0, t, device.randn(x0.shape, generator, x0.device))
        v = distillation.halved(teacher, xt, t, s, label=label)
        return (_answer(net, xt, t, label) - v).square().mean()

    return loss


def consistency_loss(points, teacher=None):
    """E |v_hat - v|^2, v that leads from x_t to f(x_s, s), t and s neighbours on a grid of `points` levels as in EDM.

    x_s is a Heun step of the teacher from x_t or, without one, the same image with the same noise; f is the network's
    own, without gradient. Consistency models, algorithms 2 and 3 with mu = 0 and l2 over sin^2 d, d the step's angle.
    """
    first, last = distillation.T_MIN, distillation.T_MAX
    times = torch.tensor([first, *karras_grid(base.COSINE, points, last, first)[-3::-1]], dtype=torch.float64)

    def loss(net, batch, generator):
        x0, label = batch
        index = torch.randint(len(times) - 1, (len(x0),), generator=generator)
        t, s = times[index + 1], times[index]
        eps = device.randn(x0.shape, generator, x0.device)
        xt = base.COSINE.add_noise(x0, t, eps)
        with torch.no_grad():
            if teacher is None:
                near = base.COSINE.add_noise(x0, s, eps)
            else:
                near = distillation.heun_step(teacher, xt, t, s, label=label)
            aim = distillation.consistency(net)(near, s, label=label)
        v = distillation.v_towards(aim, xt, t, distillation.T_MIN, base.COSINE)
        return (_answer(net, xt, t, label) - v).square().mean()

    return loss


def _answer(net, xt, t, label):
    return net(xt, base.COSINE.network_time(t).float().to(xt.device), label=label)

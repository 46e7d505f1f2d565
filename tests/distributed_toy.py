"""What two processes do for test_distributed.py: python -m distributed_toy MODE FOLDER starts itself by torchrun.

train      the gradients of one batch, then both toy runs; what each process saw lies in FOLDER
interrupt  the first toy run, in whose seventh step Ctrl-C reaches torchrun
kill       the same run, in whose seventh step the second process is killed
diverge    a run whose loss becomes infinite
"""

import hashlib
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn

from lab import batches, distributed, training
from litrev.device import generator

TOYS = {"adamw": 2e-3, "muon": 5e-3}


class Toy(nn.Module):
    """A network with a part that is frozen, asked with a label that has a name."""

    def __init__(self):
        super().__init__()
        self.label = nn.Embedding(3, 16)
        self.body = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 2))
        self.body[0].requires_grad_(False)

    def forward(self, x, time, label=None):
        return self.body[1:](self.body[0](x) + self.label(label) + time[:, None])


def examples(n, generator):
    return torch.randn(n, 2, generator=generator), torch.randint(3, (n,), generator=generator)


def loss(net, batch, generator):
    """A loss that the mean over parts would miss: it divides by what the whole batch holds."""
    x, label = batch
    weight = torch.rand(len(x), generator=generator)
    eps = torch.randn(x.shape, generator=generator)
    return (weight[:, None] * (net(x + eps, weight, label=label) - eps).square()).sum() / weight.sum()


def infinite(net, batch, generator):
    return loss(net, batch, generator) / 0


def recipe(optimiser, steps=40):
    numbers = {"ema": 0.9, "warmup": 0.1, "clip": 0.5, "weight_decay": 0.01, "seed": 3}
    return training.Recipe(steps=steps, batch=8, lr=TOYS[optimiser], optimiser=optimiser, **numbers)


def alone(optimiser, **changed):
    """The toy run by one process."""
    return training.fit(Toy, loss, examples, name=f"toy_{optimiser}", **asdict(recipe(optimiser)), **changed)


def together(optimiser, loss=loss):
    return distributed.fit(Toy, loss, examples, recipe(optimiser), name=f"toy_{optimiser}")


def seen() -> list[str]:
    """From now on a list of the digests of all batches that are drawn."""
    draw, found = batches.draw, []

    def noted(data, n, rng):
        batch = draw(data, n, rng)
        found.append(hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest())
        return batch

    batches.draw = noted
    return found


def gradients(prepare=lambda net: net):
    """Of each weight, that of one batch's loss by the network as it is prepared."""
    torch.manual_seed(0)
    net, rng = Toy(), generator(0)
    asked = prepare(net)
    loss(asked, examples(8, rng), rng).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.requires_grad}


def at_seventh_step(act):
    """Have the first run do something in its seventh step, and take its time from there on."""
    draw, steps = batches.draw, []

    def acting(data, n, rng):
        steps.append(n)
        if len(steps) == 7:
            act()
        time.sleep(0.1 * (len(steps) >= 7))
        return draw(data, n, rng)

    batches.draw = acting


def worker(mode: str, folder: Path) -> None:
    with distributed.processes():
        rank = dist.get_rank()
        (folder / f"pid-{rank}").write_text(str(os.getpid()))
        if mode == "train":
            batches_seen = seen()
            shared = gradients(distributed.data_parallel)
            safetensors.torch.save_file(shared, folder / f"gradients-{rank}.safetensors")
            runs = [together(optimiser) for optimiser in TOYS]
            (folder / f"seen-{rank}").write_text("\n".join([*map(str, map(bool, runs)), *batches_seen]))
        elif mode == "diverge":
            together("adamw", infinite)
        else:
            deed = {"interrupt": (os.getppid(), signal.SIGINT), "kill": (os.getpid(), signal.SIGKILL)}.get(mode)
            if deed and rank == 1:
                at_seventh_step(lambda: os.kill(*deed))
            training.CHECKPOINT_SECONDS = min(training.CHECKPOINT_SECONDS, -1.0 if rank == 0 else 1e9)
            together("muon")


if __name__ == "__main__":
    if dist.is_torchelastic_launched():
        worker(sys.argv[1], Path(sys.argv[2]))
    else:
        distributed.launch("distributed_toy", sys.argv[1:], 2)

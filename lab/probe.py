"""What a trained network answers to one fixed batch: kept with a run, and taken again when it is loaded.

Keys name litrev's code, so that it can be moved and tidied; an edit that changes what a network or its loss computes
shows here. The gradient is probed beside the loss: at its minimum a loss hardly moves when, say, times are off by one.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lab import batches
from litrev.device import derived_seed, generator
from litrev.nets.blocks import float32_inside

BATCHES, FEW = 2, 8
CLOSE = 3e-4  # processors differ by less than 1e-6 in float32; one per cent of a schedule's last beta is 5e-3
LOOSE = 1e-2  # where litrev's code is as it was: what a GPU may round differently


def take(net: nn.Module, loss: Callable[..., Tensor], data, batch: int, seed: int) -> list[float]:
    """Return [loss, norm of its gradient, ...] on fixed batches of `data`, in float32 on every processor.

    They are small, or of `batch` where a loss wants no other. Returns [] where the loss fails outside of training, such
    as one that needs the mode of training: then the code that was used has to tell alone.
    """
    for n in sorted({min(FEW, batch), batch}):
        try:
            with torch.random.fork_rng(devices=[]), float32_inside(), torch.enable_grad():
                return _answers(copy.deepcopy(net).eval().requires_grad_(True), loss, data, n, seed)
        except Exception:  # a loss is the reader's, and has shown that it works: a finished run must not be lost here
            continue
    return []


def _answers(net: nn.Module, loss, data, n: int, seed: int) -> list[float]:
    answers = []
    for number in range(BATCHES):
        rng = generator(derived_seed(seed, "probe", number))
        torch.manual_seed(derived_seed(seed, "probe", "dropout", number))
        value = loss(net, batches.draw(data, n, rng), rng)
        gradients = torch.autograd.grad(value, list(net.parameters()), allow_unused=True)
        norms = [gradient.detach().float().norm() for gradient in gradients if gradient is not None]
        answers += [value.item(), torch.stack(norms).norm().item()]
    return answers


def agree(old: list[float], new: list[float], tolerance: float) -> bool:
    """Say whether two probes are of one function, up to a relative difference; NaN agrees with NaN."""

    def close(a, b):
        return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= tolerance * max(abs(a), abs(b))

    return len(old) == len(new) and all(close(a, b) for a, b in zip(old, new, strict=True))

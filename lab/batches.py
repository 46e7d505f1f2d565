"""Batches of what `fit` is given as data: tensors of one length in memory, or a function (n, generator) -> batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from litrev.device import device


def check(data) -> None:
    """Raise ValueError unless `data` is a function, or tensors of one length without float64, NaN and infinity."""
    if callable(data):
        return
    tensors = data if isinstance(data, tuple) else (data,)
    if not tensors or not all(isinstance(x, Tensor) and x.ndim for x in tensors):
        raise ValueError("fit: data must be a tensor, a tuple of tensors, or a function (n, generator) -> batch.")
    lengths = [len(x) for x in tensors]
    if len(set(lengths)) > 1 or 0 in lengths:
        raise ValueError(f"fit: the tensors of data must be equally long and not empty; their lengths are {lengths}.")
    floats = [x for x in tensors if x.is_floating_point()]
    if any(x.dtype == torch.float64 for x in floats):
        raise ValueError("fit: data is float64, which Apple's GPU lacks: use data.float().")
    if not all(bound.isfinite() for x in floats for bound in x.aminmax()):
        raise ValueError("fit: data holds NaN or infinity: clean it before training.")


def drawing(data, n: int) -> Callable[[torch.Generator], Tensor | tuple]:
    """Return the function that draws n examples with a given generator; tensors are moved to the device once."""
    held = data if callable(data) else _to_device(data)
    return lambda rng: draw(held, n, rng)


def draw(data, n: int, rng: torch.Generator):
    """Return n examples on the device, drawn with replacement where `data` are tensors."""
    if callable(data):
        return _to_device(data(n, rng))
    first = data[0] if isinstance(data, tuple) else data
    index = torch.randint(len(first), (n,), generator=rng).to(first.device)
    return _to_device(tuple(x[index] for x in data) if isinstance(data, tuple) else data[index])


def _to_device(batch):
    where = device()
    return tuple(x.to(where) for x in batch) if isinstance(batch, tuple) else batch.to(where)

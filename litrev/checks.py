"""What the doors of litrev ask of their arguments, each in one sentence that names what was given and what to give.

All look at types, shapes and Python numbers, which is free; what reads a tensor's values, and so waits for a GPU, says
so. They raise ValueError. Arguments are given by name, as in `whole(n=n, steps=steps)`, so that messages can say it.
"""

import math
import numbers

import torch


def shown(value) -> str:
    """How a message names a value: a tensor by type and shape, all else as Python writes it, shortened."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "a tensor" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        return f"{kind} of {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({type(value).__name__})"


def number(low=-math.inf, high=math.inf, *, above=-math.inf, below=math.inf, **named) -> None:
    """Numbers, finite, from `low` to `high`, larger than `above` and smaller than `below`."""
    for name, value in named.items():
        value = value.item() if isinstance(value, torch.Tensor) and value.ndim == 0 else value
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not (fits and low <= value <= high and above < value < below):
            limits = [f"{word} {limit:g}" for word, limit in _limits(low, high, above, below) if math.isfinite(limit)]
            raise ValueError(f"{name} must be {' and '.join(['a finite number', *limits])}, not {shown(value)}.")


def _limits(low, high, above, below):
    return ("at least", low), ("at most", high), ("above", above), ("below", below)


def whole(low=1, high=math.inf, **named) -> None:
    """Whole numbers from `low` to `high`."""
    for name, value in named.items():
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value // 1
        if not (fits and math.isfinite(value) and low <= value <= high):
            upper = f" and at most {high:,}" if math.isfinite(high) else ""
            raise ValueError(f"{name} must be a whole number of at least {low}{upper}, not {shown(value)}.")


def flag(**named) -> None:
    """True or False."""
    for name, value in named.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {shown(value)}.")


def choice(options, **named) -> None:
    """One of the options."""
    for name, value in named.items():
        if not isinstance(value, str | int) or value not in options:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, not {shown(value)}.")

"""What the doors of litrev ask of their arguments: one sentence that says what was given and what to give instead.

Each check takes arguments by name, as in `whole(n=n, steps=steps)`, and raises ValueError. They look at types, shapes
and Python numbers, which takes microseconds; `finite` and `images` alone read a tensor's values and so wait for a GPU.
"""

import math
from numbers import Integral, Real

import numpy as np
import torch


def shown(value) -> str:
    """How a message names a value: an array by type and shape, all else as Python writes it, shortened."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "a tensor" if isinstance(value, torch.Tensor) else "an array"
        return f"{kind} of {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({type(value).__name__})"


def _refuse(name, wanted, value, remedy="") -> None:
    raise ValueError(f"{name} must be {wanted}, not {shown(value)}{remedy}.")


def number(at_least=-math.inf, at_most=math.inf, *, above=-math.inf, below=math.inf, **named) -> None:
    """Finite numbers (or tensors of one) within limits."""
    limits = (("at least", at_least), ("at most", at_most), ("above", above), ("below", below))
    for name, value in named.items():
        x = value.item() if isinstance(value, torch.Tensor) and value.ndim == 0 else value
        fits = isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x)
        if not (fits and at_least <= x <= at_most and above < x < below):
            told = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
            _refuse(name, " ".join(["a number", " and ".join(told)]).strip(), value)


def whole(at_least=1, at_most=math.inf, **named) -> None:
    """Whole numbers within limits."""
    for name, value in named.items():
        if not (isinstance(value, Integral) and not isinstance(value, bool) and at_least <= value <= at_most):
            upper = f" and at most {at_most:,}" if math.isfinite(at_most) else ""
            _refuse(name, f"a whole number of at least {at_least}{upper}", value)


def divisible(**named) -> None:
    """Of two whole numbers the second is a multiple of the first."""
    whole(**named)
    (part, a), (name, b) = named.items()
    if b % a:
        raise ValueError(f"{name} must be a multiple of {part}; {b} is none of {a}.")


def flag(**named) -> None:
    """True or False."""
    for name, value in named.items():
        if not isinstance(value, bool):
            _refuse(name, "True or False", value)


def choice(options, **named) -> None:
    """One of the options, which are words or numbers."""
    for name, value in named.items():
        if not isinstance(value, str | int) or value not in options:
            *most, last = map(repr, options)
            _refuse(name, f"{', '.join(most)} or {last}", value)


def kind(kind, description, **named) -> None:
    """Instances of `kind`, a class or `callable`, which the message calls by the description."""
    for name, value in named.items():
        if not (callable(value) if kind is callable else _is_a(kind, value)):
            _refuse(name, description, value)


def _is_a(kind, value) -> bool:
    """As isinstance, but by the name of the class: autoreload leaves an edited module's old class elsewhere."""
    names = {cls.__qualname__ for cls in getattr(kind, "__args__", (kind,))}
    return any(cls.__qualname__ in names for cls in type(value).__mro__)


def generator(generator) -> None:
    """A random generator on the CPU."""
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        _refuse("generator", "a random generator on the CPU, such as device.generator(0)", generator)


def numeric(**named) -> None:
    """Numbers, or tensors, arrays and lists of numbers."""
    for name, value in named.items():
        try:
            kind = value.dtype if isinstance(value, torch.Tensor) else np.asarray(value).dtype
        except ValueError:  # a list of lists of several lengths
            kind = "object"
        if str(kind).removeprefix("torch.").rstrip("0123456789") not in ("float", "bfloat", "int", "uint"):
            _refuse(name, "a number or a tensor of numbers", value)


def floats(shape, **named) -> None:
    """Float tensors, not empty, of a shape such as "n 1 28 28": letters stand for any size, "..." for more axes."""
    wanted = shape.split()
    for name, value in named.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not _fits(value.shape, wanted):
            _refuse(name, f"a float tensor [{', '.join(wanted)}]", value, _remedy(name, value, wanted))


def _fits(shape, wanted) -> bool:
    more = wanted[-1:] == ["..."]
    sizes = wanted[: len(wanted) - more]
    long_enough = len(shape) >= len(sizes) if more else len(shape) == len(sizes)
    return long_enough and 0 not in shape and all(w == str(n) or not w.isdigit() for w, n in zip(sizes, shape))  # noqa: B905


def _remedy(name, value, wanted) -> str:
    if not isinstance(value, torch.Tensor):
        return f": use torch.tensor({name})" if isinstance(value, list | tuple | np.ndarray) else ""
    if value.dtype == torch.uint8:
        return ": data.to_unit makes floats in [-1, 1] of 8-bit pixels"
    if not value.is_floating_point():
        return f": use {name}.float()"
    if _fits(value[None].shape, wanted):
        return f": add the axis of the batch, {name}[None]"
    if value.ndim == 4 and _fits(value.permute(0, 3, 1, 2).shape, wanted):
        return f": put the channels first, {name}.permute(0, 3, 1, 2)"
    return ""


def expands(shape, **named) -> None:
    """Tensors that expand to a shape."""
    for name, value in named.items():
        pairs = zip(reversed(value.shape), reversed(shape), strict=False)
        if value.ndim > len(shape) or not all(size in (1, whole) for size, whole in pairs):
            _refuse(name, f"a number or a tensor that expands to {list(shape)}", value)


def alike(**named) -> None:
    """Tensors of one shape."""
    shapes = {name: list(value.shape) for name, value in named.items()}
    if len({str(shape) for shape in shapes.values()}) > 1:
        raise ValueError(f"{' and '.join(named)} must have one shape, not {' and '.join(map(str, shapes.values()))}.")


def finite(**named) -> None:
    """Tensors without NaN and infinity."""
    for name, value in named.items():
        if not value.isfinite().all():
            raise ValueError(
                f"{name} holds values that are not finite: a model or a sampler has diverged, or NaN went in."
            )


def images(shape, **named) -> None:
    """Images of a shape, as in `floats`, finite and in [-1, 1], as far as it can be told: not in [0, 1] or 0..255,
    where nothing lies below 0 and most lies just above. Images of a diverged model, which one may measure, pass."""
    floats(shape, **named)
    finite(**named)
    for name, x in named.items():
        low, high = (bound.item() for bound in x.detach().aminmax())
        if low >= 0 and 0.5 < high <= 1 and (x < 0.25).float().mean() > 0.5:
            raise ValueError(f"{name} lie in [0, 1], and litrev's images in [-1, 1]: use 2 * {name} - 1.")
        if 0 <= low < high and high > 2 and (x == x.round()).all():
            raise ValueError(f"{name} lie in 0..255, and litrev's images in [-1, 1]: use {name} / 127.5 - 1.")


def pixels(**named) -> None:
    """Grey levels 0..255, uint8."""
    for name, value in named.items():
        if not isinstance(value, torch.Tensor) or value.dtype != torch.uint8 or not value.numel():
            _refuse(name, "grey levels 0..255 (uint8), as from data.to_pixels", value)


def network_input(x, time, channels, multiple, weight) -> None:
    """What a network with weights like `weight` is asked: images x [B, channels, H, W] with sides that are multiples of
    `multiple`, and a time for each."""
    floats(f"B {channels} H W", x=x)
    if x.shape[2] % multiple or x.shape[3] % multiple:
        _refuse("The sides of x", f"multiples of {multiple} for this network", x, ": resize or pad the images")
    if not isinstance(time, torch.Tensor) or time.dtype == torch.bool or time.is_complex() or time.shape != x.shape[:1]:
        _refuse("time", f"a tensor [{len(x)}], one number for each image", time, f": use time.expand({len(x)})")
    if x.device != weight.device or time.device != x.device:
        raise ValueError(
            f"x is on {x.device}, time on {time.device}, the network on {weight.device}: move x and time there."
        )
    same_type(x, weight)


def same_type(x, weight) -> None:
    """Images of the type of a network's weights."""
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        _refuse("x", f"{weight.dtype} as the network's weights are".removeprefix("torch."), x, ": use x.float()")


def require_indices(name, indices, shape, count) -> None:
    """Raise ValueError unless `indices` are whole numbers 0..count-1 (int64) of that shape; `name` says whose."""
    if (
        not isinstance(indices, torch.Tensor)
        or indices.dtype != torch.int64
        or indices.shape != tuple(shape)
        or not ((indices >= 0) & (indices < count)).all()
    ):
        wanted = f"whole numbers 0..{count - 1} (int64) of shape {list(shape)}"
        raise ValueError(f"{name} must be {wanted}; this is {shown(indices)}, or beyond that range.")

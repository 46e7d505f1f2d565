"""Which device computes, and where noise comes from: the one place that knows what each device cannot do."""

import hashlib
import os

import torch

from litrev import checks


def _present(kind: str) -> bool:
    return {"mps": torch.backends.mps.is_available, "cuda": torch.cuda.is_available, "cpu": lambda: True}[kind]()


def device() -> torch.device:
    """Return the device to compute on: Apple's GPU (MPS), else CUDA, else the CPU; LITREV_DEVICE overrides the choice.

    Raises ValueError when LITREV_DEVICE names no device, RuntimeError when it names one this machine lacks.
    """
    asked = os.environ.get("LITREV_DEVICE")
    if not asked:
        return torch.device(next(kind for kind in ("mps", "cuda", "cpu") if _present(kind)))
    if asked not in ("mps", "cuda", "cpu"):
        raise ValueError(f"LITREV_DEVICE is {asked!r}: set it to 'mps', 'cuda' or 'cpu', or unset it for the best one.")
    if not _present(asked):
        raise RuntimeError(
            f"LITREV_DEVICE asks for {asked!r}, which PyTorch does not find here: unset it, or use 'cpu'."
        )
    return torch.device(asked)


def generator(seed: int) -> torch.Generator:
    """Return a CPU random generator seeded with `seed`; every draw in litrev comes from one of these."""
    checks.whole(-(2**63), 2**64 - 1, seed=seed)
    return torch.Generator("cpu").manual_seed(seed)


def derived_seed(seed: int, *purpose) -> int:
    """Return a seed for one purpose at one step: a function of these alone, so that resuming needs no random state."""
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:7])


def randn(shape, generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return standard normal noise of `shape` on `device`, float32, the same on every machine.

    The noise is drawn on the CPU and then moved: MPS and CUDA have generators of their own that give other numbers.
    """
    checks.generator(generator)
    shape = (shape,) if isinstance(shape, int) else shape
    checks.kind(tuple | list, "a tuple of whole numbers, such as (16, 1, 28, 28)", shape=shape)
    checks.whole(0, **{f"shape[{axis}]": size for axis, size in enumerate(shape)})
    return torch.randn(shape, generator=generator).to(device)


def double(x) -> torch.Tensor:
    """Return a number or a tensor, of any shape, as float64 on the CPU: moved first, as MPS has none to cast to."""
    return torch.as_tensor(x.cpu() if isinstance(x, torch.Tensor) else x, dtype=torch.float64, device="cpu")


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished its queued work, so that a clock read next is right."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type == "cuda":
        torch.cuda.synchronize(device)


def describe() -> str:
    """Return one line on what computes here, e.g. 'CPU, 2 threads, torch 2.15.0'."""
    chosen = device()
    names = {"mps": "Apple GPU (MPS)", "cpu": f"CPU, {torch.get_num_threads()} threads"}
    name = names.get(chosen.type) or torch.cuda.get_device_name(chosen)
    return f"{name}, torch {torch.__version__.split('+')[0]}"


def _probe(on: torch.device) -> list[torch.Tensor]:
    """Forward and backward of a small conv net on `on`: output and gradients, back on the CPU."""
    rng = generator(0)
    x, *weights = (
        (0.3 * torch.randn(s, generator=rng)).to(on).requires_grad_()
        for s in [(4, 8, 14, 14), (16, 8, 3, 3), (16,), (16,), (8, 16, 3, 3)]
    )
    hidden = torch.nn.functional.conv2d(x, weights[0], stride=2, padding=1)
    hidden = torch.nn.functional.silu(torch.nn.functional.group_norm(hidden, 4, weights[1], weights[2]))
    out = torch.nn.functional.conv2d(torch.nn.functional.interpolate(hidden, scale_factor=2.0), weights[3], padding=1)
    gradients = torch.autograd.grad(out.square().mean(), [x, *weights])
    return [tensor.detach().cpu() for tensor in (out, *gradients)]


def check(tolerance: float = 1e-4) -> float:
    """Compare a small conv net's forward and backward pass on `device()` with the CPU; print and return the difference.

    The difference is the largest absolute one, relative to the largest value of the same tensor. Raises RuntimeError
    when it exceeds `tolerance`: the device then computes wrongly and the CPU should be used.
    """
    chosen = device()
    pairs = zip(_probe(torch.device("cpu")), _probe(chosen), strict=True)
    worst = max(((ours - theirs).abs().max() / ours.abs().max()).item() for ours, theirs in pairs)
    if not worst <= tolerance:
        raise RuntimeError(
            f"{describe()} differs from the CPU by {worst:.1e}: set LITREV_DEVICE=cpu or update PyTorch."
        )
    print(f"{describe()}: agrees with the CPU to {worst:.1e}, forward and backward.")
    return worst

"""An Apple GPU played by the CPU: code runs as on MPS, and what MPS would refuse is refused.

    with MpsRehearsal():
        fit(...)            # litrev.device.device() is "mps" in here

`tools/bazel test //notebooks:NAME_test` runs a whole notebook like this: `install` in its kernel.

Tensors moved to "mps" stay in the CPU's memory, but are marked by their storage. Marked tensors say that their device
is "mps", mark what is computed from them, and raise `Refused` when they meet float64, an operator that MPS lacks, a
CPU tensor or a CPU generator. What it cannot play: MPS's own rounding and speed.
"""

import contextlib
import os
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from litrev import device

MPS = torch.device("mps")
WIDE = (torch.float64, torch.complex128)

# What PyTorch 2.15's own tests list as missing on MPS for floating point (UNIMPLEMENTED_XFAILLIST in
# torch/testing/_internal/common_mps.py), by the names that operators have in the dispatcher.
MISSING = {
    *("linalg_eig", "_linalg_eigvals", "linalg_ldl_factor_ex", "linalg_ldl_solve", "ormqr", "mode", "segment_reduce"),
    *("fractional_max_pool2d", "fractional_max_pool3d", "_adaptive_avg_pool3d", "adaptive_max_pool3d", "hash_tensor"),
    *("multi_margin_loss", "multilabel_margin_loss_forward", "_pdist_forward", "rrelu_with_noise", "special_airy_ai"),
    *("special_legendre_polynomial_p", "special_log_ndtr", "special_ndtri"),
}
# These compute in float64 on a CPU alone; what they do on MPS cannot be seen from here, but PyTorch's tests pass there.
OTHERWISE_ON_CPU = {torch.quantile, torch.Tensor.quantile, torch.nanquantile, torch.Tensor.nanquantile}
TAKES_CPU_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class Refused(RuntimeError):
    """MPS would have refused this."""


class Marks:
    """Which storages are on the pretended device; a storage that was freed is forgotten.

    `busy` says whether PyTorch is inside a function of a marked tensor: what that makes from nothing is on MPS as well.
    """

    def __init__(self):
        self.storages, self.busy = {}, False

    def has(self, x) -> bool:
        return self.have([x])[0]

    def have(self, tensors) -> list[bool]:
        with torch._C.DisableTorchFunction():  # entering this costs more than all that is done in it
            return [x.untyped_storage()._cdata in self.storages for x in tensors]

    def put(self, x, on: bool = True):
        """Mark x (or unmark it), after checking that MPS could hold it."""
        with torch._C.DisableTorchFunction():
            storage = x.untyped_storage()
        if not on:
            self.storages.pop(storage._cdata, None)
            return x
        if x.dtype in WIDE:
            raise Refused(f"MPS has no {x.dtype}: cast to float32 before moving, or compute on the CPU.")
        if len(self.storages) > 20_000:
            self.storages = {key: ref for key, ref in self.storages.items() if not ref.expired()}
        self.storages[storage._cdata] = StorageWeakRef(storage)  # while this lives, no other storage has the address
        return x


def tensors_of(values) -> list:
    return [x for x in values if issubclass(type(x), torch.Tensor)]  # isinstance is slower: it asks PyTorch's metaclass


class Move(torch.autograd.Function):
    """A copy to the pretended device or back, whose gradient makes the way back."""

    @staticmethod
    def forward(ctx, x, marks, on):
        ctx.marks, ctx.was_on = marks, marks.has(x)
        return marks.put(x.clone(), on)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.marks.put(gradient.clone(), ctx.was_on), None, None


def is_mps(where) -> bool:
    return torch.device(where).type == "mps"


class Calls(TorchFunctionMode):
    """What Python asks for: moves, factories with a device, and the questions where a tensor is."""

    def __init__(self, marks):
        self.marks = marks

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function == torch.Tensor.device.__get__:
            return MPS if self.marks.has(args[0]) else function(*args)
        if function is torch.Tensor.to:
            return self.to(*args, **kwargs)
        if function is torch.Tensor.cpu:
            return self.move(args[0], "cpu")
        if function in (torch.Tensor.numpy, torch.Tensor.__array__) and self.marks.has(args[0]):
            raise Refused("NumPy cannot read a tensor on MPS: take .cpu() first.")
        if kwargs.get("device") is not None:
            return self.make(function, args, kwargs)
        if function in OTHERWISE_ON_CPU and self.marks.has(args[0]):
            args = [self.move(x, "cpu") if isinstance(x, torch.Tensor) else x for x in args]
            return self.move(function(*args, **kwargs), MPS)
        if function is torch.Tensor.backward:  # goes through tensors of both devices
            return function(*args, **kwargs)
        before, self.marks.busy = self.marks.busy, any(self.marks.have(tensors_of(args)))
        try:
            return function(*args, **kwargs)
        finally:
            self.marks.busy = before

    def move(self, x, where):
        return x if self.marks.has(x) == is_mps(where) else Move.apply(x, self.marks, is_mps(where))

    def to(self, x, *args, **kwargs):
        if (args and isinstance(args[0], torch.Tensor)) or "other" in kwargs:
            other = kwargs.get("other", args[0] if args else None)
            args, kwargs = (MPS if self.marks.has(other) else torch.device("cpu"), other.dtype), {}
        how = {name: kwargs.pop(name) for name in ("copy", "memory_format") if name in kwargs}
        where, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype in WIDE and (self.marks.has(x) or (where is not None and is_mps(where))):
            raise Refused("MPS has no float64: take .cpu() first, then .double().")
        x = x.to(dtype=dtype or x.dtype, **how)  # cast first, as a copy to MPS does
        return x if where is None else self.move(x, where)

    def make(self, function, args, kwargs):
        on = is_mps(kwargs["device"])
        if on and kwargs.get("generator") is not None:
            raise Refused("A CPU generator cannot draw on MPS: draw on the CPU and move, as litrev.device.randn does.")
        made = function(*args, **kwargs | {"device": "cpu"} if on else kwargs)  # "meta" stays meta
        if isinstance(made, torch.Tensor):
            shared = any(isinstance(x, torch.Tensor) and x.data_ptr() == made.data_ptr() for x in args)  # as_tensor
            return self.move(made, kwargs["device"]) if shared else self.marks.put(made, on)
        return made


def _even(x, size) -> bool:
    """MPS averages to sizes that divide the image's, and to no others."""
    return all(n % k == 0 for n, k in zip(x.shape[-2:], size, strict=True))


def leaves(value, found: list) -> list:
    """Append what lists and tuples hold at any depth: all that operators take and give, faster than by tree_leaves."""
    for entry in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(entry, (list, tuple)):
            leaves(entry, found)
        else:
            found.append(entry)
    return found


class Operators(TorchDispatchMode):
    """What really runs, in the forward and the backward pass."""

    def __init__(self, marks):
        super().__init__()
        self.marks = marks

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = leaves((*args, *kwargs.values()), [])
        tensors = tensors_of(inputs)
        marked = self.marks.have(tensors)
        if not any(marked) and (tensors or not self.marks.busy):
            return function(*args, **kwargs)
        name = function.overloadpacket.__name__
        self.check(name, inputs, list(zip(tensors, marked, strict=True)))
        made = function(*args, **kwargs)
        if name != "copy_":  # what is copied into stays where it is
            for x in tensors_of(leaves(made, [])):
                self.marks.put(x)
        return made

    def check(self, name, inputs, tensors):
        """Raise Refused for what MPS would refuse; `tensors` are pairs (tensor, whether it is marked)."""
        if name in MISSING or (name == "_adaptive_avg_pool2d" and not _even(inputs[0], inputs[1:3])):
            raise Refused(f"MPS has no operator {name} for this: compute it on the CPU.")
        if any(isinstance(x, torch.Generator) for x in inputs):
            raise Refused("A CPU generator cannot draw on MPS: draw on the CPU and move, as litrev.device.randn does.")
        strangers = [x for x, marked in tensors if not marked and x.ndim]
        if name in TAKES_CPU_INDICES and tensors[0][1]:
            strangers = [x for x in strangers if x.is_floating_point()]
        if strangers and name != "copy_":
            raise Refused(f"{name} got a tensor {list(strangers[0].shape)} on the CPU beside others on MPS.")


class MpsRehearsal(contextlib.ExitStack):
    """Within this context litrev computes on a pretended MPS, whatever the machine has."""

    def __enter__(self):
        marks = Marks()
        environment = {name: value for name, value in os.environ.items() if name != "LITREV_DEVICE"}
        self.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        self.enter_context(mock.patch.object(device, "_present", lambda kind: kind != "cuda"))
        self.enter_context(mock.patch.object(torch.mps, "synchronize", lambda: None))
        self.enter_context(Calls(marks))
        self.enter_context(Operators(marks))
        return self


def install() -> None:
    """Pretend for the rest of this process, as the kernel does in which a notebook is tested."""
    MpsRehearsal().__enter__()

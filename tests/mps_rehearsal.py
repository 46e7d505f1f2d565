"""An Apple GPU played by the CPU: code runs as on MPS, and what MPS would refuse is refused.

    with MpsRehearsal():
        fit(...)            # litrev.device.device() is "mps" in here

`tools/bazel test //notebooks:NAME_test` runs a whole notebook like this: `install` in its kernel.

Tensors moved to "mps" stay in the CPU's memory, but are marked by their storage. Marked tensors say that their device
is "mps", mark what is computed from them, and raise `Refused` when they meet float64, an operator that MPS lacks, a
CPU tensor or a CPU generator. What it cannot play: MPS's own rounding and speed.
"""

import contextlib
import gc
import os
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from litrev import device

MPS = torch.device("mps")
MARK = "on_the_pretended_mps"
WHERE = torch.Tensor.device.__get__
IN_C = {type(f) for f in (torch.Tensor.mul, torch.zeros, torch.Tensor.__getitem__, WHERE)}  # these call no Python
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
    """Which tensors are on the pretended device: an attribute of their storage, kept as long as that lives.

    `asked` is what the function of PyTorch that runs was given: what it makes from nothing is where these are.
    """

    asked = ()

    def has(self, x) -> bool:
        return self.have([x])[0]

    def have(self, tensors) -> list[bool]:
        with torch._C.DisableTorchFunction():  # entering this costs more than all that is done in it
            return [hasattr(x.untyped_storage(), MARK) for x in tensors]

    def put(self, x, on: bool = True):
        """Mark x (or unmark it), after checking that MPS could hold it."""
        with torch._C.DisableTorchFunction():
            storage, dtype = x.untyped_storage(), x.dtype
        if on and dtype in WIDE:
            raise Refused(f"MPS has no {dtype}: cast to float32 before moving, or compute on the CPU.")
        if on:
            setattr(storage, MARK, True)
        elif hasattr(storage, MARK):
            delattr(storage, MARK)
        return x


def leaves(value, found: list) -> list:
    """Append what lists and tuples hold at any depth: all that operators take and give, faster than by tree_leaves."""
    for entry in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(entry, (list, tuple)):
            leaves(entry, found)
        else:
            found.append(entry)
    return found


def tensors_of(values) -> list:
    return [x for x in values if issubclass(type(x), torch.Tensor)]  # isinstance is slower: it asks PyTorch's metaclass


def tensors_in(values, found: list) -> list:
    """Append the tensors among values, and among what lists and tuples of them hold."""
    for entry in values:
        if issubclass(kind := type(entry), torch.Tensor):
            found.append(entry)
        elif kind in (list, tuple):
            tensors_in(entry, found)
    return found


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
        if function == WHERE:
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
        # A backward pass goes through tensors of both devices; zeros for what fed nothing are made on the loss's.
        if (
            function is not torch.Tensor.backward
            and type(function) in IN_C
            and torch._C._len_torch_dispatch_stack() == 1  # but what else watches operators, to count them, sees all
            and not any(self.marks.have(tensors_in((*args, *kwargs.values()), [])))
        ):
            with torch._C._DisableTorchDispatch():  # the CPU's own affair, such as the numbers of a schedule
                return function(*args, **kwargs)
        before, self.marks.asked = self.marks.asked, args
        try:
            return function(*args, **kwargs)
        finally:
            self.marks.asked = before

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
        if where is not None and where.type == "meta":  # shapes alone, on no device
            return self.marks.put(x.to(where), False)
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
        if not any(marked if tensors else self.marks.have(tensors_of(self.marks.asked))):
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
        if torch.Generator in map(type, inputs):
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
    gc.freeze()  # searching PyTorch's own objects for garbage would take 5 % of the time

"""Describe by value what determines a run, so that the same run is found again and a changed one is noticed.

A description is plain JSON. Code of litrev, lab and installed packages counts by its name (litrev's and lab's without
the file that it is in, so that files can move; what is in it is for `sources` and `probe`); the reader's own functions
and classes by their syntax tree (comments, line breaks, docstrings, type hints change nothing) together with the values
of all that they refer to; a network by what it computes now: its weights, settings, hooks and replaced methods. Nothing
in it depends on the machine: no paths, no devices, no line numbers, no digits of a number beyond the sixth.
"""

import ast
import builtins
import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import json
import re
import sys
import types

import numpy as np
import torch
from torch import nn

from lab import syntax

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # the last one reads annotations, from 3.14 on
_OURS = ("litrev", "lab")
_BARE = set(vars(nn.Module())) - {"training", "_parameters", "_buffers", "_modules"}  # what every module has


def digest(description) -> str:
    """Return the sha256 (64 hex digits) of a description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def differences(old: dict, new: dict) -> list[str]:
    """Return what differs between two descriptions, a phrase each: 'lr was 0.1 and is now 0.2'; the outermost first."""
    old, new = _flat(old), _flat(new)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    keys.sort(key=lambda key: (key.count("."), key))
    said = [_phrase(key, old.get(key, "absent"), new.get(key, "absent")) for key in keys]
    return [re.sub(r"^(\S+)\.code was .*", r"the code of \1 has changed", phrase) for phrase in said]


def _phrase(key: str, old: str, new: str) -> str:
    if max(len(old), len(new)) > 80:  # a network's layers, a digest: not for reading
        return f"{key} has changed"
    return f"{key} was {old} and is now {new}"


def _flat(description, name: str = "") -> dict[str, str]:
    """Return nested JSON as one dictionary with dotted names."""
    if not isinstance(description, (dict, list)):
        return {name: str(description)}
    parts = description.items() if isinstance(description, dict) else enumerate(description)
    return {k: v for key, part in parts for k, v in _flat(part, f"{name}.{key}".lstrip(".")).items()}


def raw_bytes(x: torch.Tensor) -> np.ndarray:
    """Return the values of a tensor in logical order, whatever its layout and device, as bytes (uint8, flat): not to be
    written to, for a contiguous tensor's are its own, and a copy of a training set takes longer than its digest."""
    plain = x.detach().cpu().resolve_conj().resolve_neg()
    return plain.contiguous().reshape(-1).view(torch.uint8).numpy()


def describe(value, where: str, seen: dict | None = None):
    """Return the description of `value`, which errors call `where`; `seen` holds the code and networks met before.

    Raises ValueError for what has no lasting value, such as an open file or a random generator.
    """
    seen = {} if seen is None else seen
    match value:
        case enum.Enum():
            return [type(value).__name__, value.name, describe(value.value, where, seen)]
        case float():  # the last bits of a mean depend on the number of threads: six digits count
            return float(f"{value:.6g}")
        case None | bool() | int() | str():
            return value
        case complex() | range() | slice() | torch.dtype() | torch.memory_format() | np.dtype() | types.EllipsisType():
            return str(value)
        case torch.device():
            return "device"
        case types.FunctionType() | type() | nn.Module() if id(value) in seen:
            return f"see {seen[id(value)]}"
        case types.FunctionType() | type() | nn.Module():
            seen[id(value)] = where
    parts = _parts(value, where)
    if isinstance(parts, dict):
        return {name: describe(part, f"{where}.{name}", seen) for name, part in parts.items()}
    if isinstance(parts, list):
        return [describe(part, f"{where}[{i}]", seen) for i, part in enumerate(parts)]
    return parts


def _parts(value, where: str) -> dict | list | str:
    """Return what `value` is made of, one level deep: named parts, a list of parts, or a text that says it all."""
    match value:
        case torch.Tensor():
            # The last bits of a float64 table differ between processors: it counts to float32's precision.
            return _array(raw_bytes(value.float() if value.dtype == torch.float64 else value), value)
        case np.ndarray() | np.generic() if not value.dtype.hasobject:
            return _array(np.ascontiguousarray(value), value)
        case bytes():
            return hashlib.sha256(value).hexdigest()
        case set() | frozenset():
            return ["set", *sorted(value, key=lambda item: digest(describe(item, where)))]
        case dict():
            return value if all(isinstance(key, str) for key in value) else [list(pair) for pair in value.items()]
        case list() | tuple():
            return list(value)
        case types.SimpleNamespace():
            return vars(value)
        case type():
            return _class(value)
        case nn.Module():
            return _net(value)
        case types.FunctionType():
            return _function(value, where)
        case functools.partial():
            return [value.func, value.args, value.keywords]
        case types.MethodType():
            return [value.__self__, value.__func__]
        case functools._lru_cache_wrapper():
            return [value.__wrapped__]
        case types.BuiltinFunctionType() | types.MethodDescriptorType() | types.WrapperDescriptorType() | np.ufunc():
            return f"{getattr(value, '__module__', '')}.{value.__name__}"
        case types.ModuleType():
            own = [] if installed(value.__name__) else [code_digest(ast.parse(inspect.getsource(value)))]
            return [_short(*value.__name__.rpartition(".")[::2]), *own]
    return _object(value, where)


def _array(raw: np.ndarray, value) -> str:
    return f"{value.dtype} {list(value.shape)} {hashlib.sha256(raw).hexdigest()}"


def _function(f: types.FunctionType, where: str) -> dict | list:
    """A function: its code (by name if a package's), the values it closes over, its defaults, its globals."""
    module, parts = f.__globals__.get("__name__", "__main__"), {}
    if not installed(module):
        parts["code"] = code_digest(syntax.of(f.__code__, where))
        parts["globals"] = {n: f.__globals__[n] for n in global_names(f.__code__) if n in f.__globals__}
        parts["defaults"] = {str(i): v for i, v in enumerate(f.__defaults__ or ())} | (f.__kwdefaults__ or {})
    elif ours(module):
        parts["code"] = _short(module, f.__qualname__)
    else:
        return [f"{module}.{f.__qualname__}", *([f.__wrapped__] if hasattr(f, "__wrapped__") else [])]
    parts["closure"] = closure(f)
    return {name: part for name, part in parts.items() if part}


def closure(f: types.FunctionType) -> dict:
    """Return what a function closes over, by name."""
    cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}


def _class(cls: type) -> dict | str:
    """A class: its name if a package's, else also its bases, its functions and the values of its attributes."""
    if cls.__module__ == "builtins":
        return cls.__qualname__
    if installed(cls.__module__):
        return _short(cls.__module__, cls.__qualname__)
    fields = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    return {"class": cls.__name__, "bases": list(cls.__bases__), "fields": fields, "own": members(cls)}


def members(cls: type) -> dict:
    """Return what stands in the body of a class, by name: functions without their wrappers, values of attributes."""
    own = {key: bare(member) for key, member in vars(cls).items()}
    return {key: member for key, member in own.items() if _written(key, member)}


def _short(module: str, name: str) -> str:
    """The full name of something, without the file where it is litrev's or lab's."""
    return f"{module.partition('.')[0] if ours(module) else module}.{name}".strip(".")


def bare(member):
    """Unwrap what a class body wraps around functions."""
    if isinstance(member, property):
        return [member.fget, member.fset]
    if isinstance(member, functools.cached_property):
        return member.func
    return member.__func__ if isinstance(member, (staticmethod, classmethod)) else member


def _written(key: str, member) -> bool:
    """Say whether a class's member stands in its source: Python adds names of its own, a dataclass writes methods."""
    if key.startswith("__annotat"):  # Python 3.14 keeps annotations as a function
        return False
    if isinstance(member, types.FunctionType):
        made = ("<string>", dataclasses.__file__)  # by a dataclass; since Python 3.13 its __replace__, too
        return inspect.unwrap(member).__code__.co_filename not in made
    return not key.startswith(("__", "_abc_")) and not inspect.isdatadescriptor(member)


def _net(net: nn.Module) -> dict:
    """A network: its class, settings, replaced methods, weights, parts, and the hooks that change what it computes."""
    own = {name: part for name, part in vars(net).items() if name not in _BARE}
    hooks = {name: list(part.values()) for name, part in vars(net).items() if name.endswith("_hooks") and part}
    return {"class": type(net), "state": own | hooks}


def _object(value, where: str) -> dict:
    """An object of litrev's or the reader's own, or a dataclass: its class and its attributes (fields that compare)."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):  # what is cached beside the fields follows from them; replaced methods do not
        state = {f.name: getattr(value, f.name) for f in dataclasses.fields(cls) if f.compare}
        hidden = {f.name for f in dataclasses.fields(cls)}
        replaced = {k: v for k, v in getattr(value, "__dict__", {}).items() if callable(v) and k not in hidden}
        return {"class": cls, "state": state | replaced}
    if hasattr(value, "__dict__") and (ours(cls.__module__) or not installed(cls.__module__)):
        return {"class": cls, "state": vars(value)}
    raise ValueError(
        f"{where} is a {cls.__module__}.{cls.__qualname__}, which cannot be part of a run's key: use numbers, strings, "
        "tensors, dataclasses, networks and functions there, or make it inside the function that needs it."
    )


def ours(module: str) -> bool:
    """Say whether a module is litrev's or lab's."""
    return module.partition(".")[0] in _OURS


def installed(module: str) -> bool:
    """Say whether a module is litrev's, Python's or an installed package's, rather than the reader's own."""
    top = module.partition(".")[0]
    path = getattr(sys.modules.get(top), "__file__", None) or ""
    packaged = top != "__main__" and ("site-packages" in path or "dist-packages" in path)
    return packaged or top in _OURS or top in sys.stdlib_module_names


@functools.cache
def global_names(code: types.CodeType) -> list[str]:
    """Return the names that a function and the functions inside it look up globally, except Python's own."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL}
    inner = (name for c in code.co_consts if isinstance(c, types.CodeType) for name in global_names(c))
    return sorted(name for name in {*names, *inner} - set(vars(builtins)) if not name.startswith("__"))


def code_digest(node: ast.AST) -> str:
    """Return the digest of a syntax tree, the same for code that differs in nothing that matters."""
    return digest(_tree(node))


def _tree(node):
    """Return a syntax tree as lists, without what changes no behaviour and what Python versions add or drop."""
    if isinstance(node, list):
        return [_tree(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    return [type(node).__name__, {k: _tree(v) for k, v in telling(node).items()}]


def telling(node: ast.AST) -> dict:
    """The fields of a node of a syntax tree that say what the code does: no docstring, type hint or empty field."""
    fields = {k: v for k, v in ast.iter_fields(node) if k not in ("ctx", "kind", "type_comment", "returns")}
    if isinstance(node, ast.arg):
        del fields["annotation"]
    if isinstance(node, (*syntax.DEF, ast.ClassDef)) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    return {k: v for k, v in fields.items() if v is not None and v != []}

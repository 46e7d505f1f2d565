"""Describe by value what determines a run, so that the same run is found again and a changed one is noticed.

A description is plain JSON. Code of litrev, lab and installed packages counts by its name; the reader's own functions
and classes by their syntax tree (comments, line breaks, docstrings, type hints change nothing) together with the values
of all that they refer to. Nothing in it depends on the machine: no paths, no devices, no line numbers, no digits of a
number beyond the sixth.
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
import linecache
import re
import sys
import types

import numpy as np
import torch
from torch import nn

_DEF = (ast.FunctionDef, ast.AsyncFunctionDef)
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # the last one reads annotations, from 3.14 on
_OURS = ("litrev.", "lab.")
_NET = set(vars(nn.Module())) - {"training", "_parameters", "_buffers", "_modules"} | {"litrev_run"}  # not a net's own


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


def mark(net: nn.Module, key: str) -> nn.Module:
    """Note on `net` which run its weights are from: as long as they are not changed, that run describes them."""
    net.litrev_run = (key, _versions(net))
    return net


def raw_bytes(x: torch.Tensor) -> np.ndarray:
    """Return the values of a tensor in logical order, whatever its layout and device, as bytes (uint8, flat)."""
    return x.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy()


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
            own = [] if _installed(value.__name__) else [_code_digest(ast.parse(inspect.getsource(value)))]
            return [value.__name__, *own]
    return _object(value, where)


def _array(raw: np.ndarray, value) -> str:
    return f"{value.dtype} {list(value.shape)} {hashlib.sha256(raw).hexdigest()}"


def _function(f: types.FunctionType, where: str) -> dict | list:
    """A function: its code (by name if a package's), the values it closes over, its defaults, its globals."""
    module, parts = f.__globals__.get("__name__", "__main__"), {}
    if not _installed(module):
        parts["code"] = _code_digest(_syntax(f.__code__, where))
        parts["globals"] = {n: f.__globals__[n] for n in _global_names(f.__code__) if n in f.__globals__}
    elif module.startswith(_OURS):
        parts["code"] = f"{module}.{f.__qualname__}"
    else:
        return [f"{module}.{f.__qualname__}", *([f.__wrapped__] if hasattr(f, "__wrapped__") else [])]
    cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
    parts["closure"] = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
    parts["defaults"] = {str(i): v for i, v in enumerate(f.__defaults__ or ())} | (f.__kwdefaults__ or {})
    return {name: part for name, part in parts.items() if part}


def _class(cls: type) -> dict | str:
    """A class: its name if a package's, else also its bases, its functions and the values of its attributes."""
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    if _installed(cls.__module__):
        return name
    fields = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    own = {key: _bare(member) for key, member in vars(cls).items()}
    own = {key: member for key, member in own.items() if _written(key, member)}
    return {"class": cls.__name__, "bases": list(cls.__bases__), "fields": fields, "own": own}


def _bare(member):
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
        return inspect.unwrap(member).__code__.co_filename != "<string>"
    return not key.startswith(("__", "_abc_")) and not inspect.isdatadescriptor(member)


def _net(net: nn.Module) -> dict:
    """A network: the run that its weights are from, or its class, settings, children and the values of its weights."""
    key, versions = getattr(net, "litrev_run", (None, None))
    if key and versions == _versions(net):
        return {"run": key}
    return {"class": type(net), "state": {name: part for name, part in vars(net).items() if name not in _NET}}


def _object(value, where: str) -> dict:
    """An object of litrev's or the reader's own, or a dataclass: its class and its attributes (fields that compare)."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return {"class": cls, "state": {f.name: getattr(value, f.name) for f in dataclasses.fields(cls) if f.compare}}
    if hasattr(value, "__dict__") and (cls.__module__.startswith(_OURS) or not _installed(cls.__module__)):
        return {"class": cls, "state": vars(value)}
    raise ValueError(
        f"{where} is a {cls.__module__}.{cls.__qualname__}, which cannot be part of a run's key: use numbers, strings, "
        "tensors, dataclasses, networks and functions there, or make it inside the function that needs it."
    )


def _installed(module: str) -> bool:
    """Say whether a module is litrev's, Python's or an installed package's, rather than the reader's own."""
    top = module.partition(".")[0]
    path = getattr(sys.modules.get(top), "__file__", None) or ""
    packaged = top != "__main__" and ("site-packages" in path or "dist-packages" in path)
    return packaged or top in ("litrev", "lab") or top in sys.stdlib_module_names


def _versions(net: nn.Module) -> list[int]:
    return [t._version for t in (*net.parameters(), *net.buffers())]


def _global_names(code: types.CodeType) -> list[str]:
    """Return the names that a function and the functions inside it look up globally, except Python's own."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL}
    inner = (name for c in code.co_consts if isinstance(c, types.CodeType) for name in _global_names(c))
    return sorted(name for name in {*names, *inner} - set(vars(builtins)) if not name.startswith("__"))


def _syntax(code: types.CodeType, where: str) -> ast.AST:
    """Find the syntax tree of a function by its place in its file or notebook cell."""
    linecache.checkcache(code.co_filename)
    tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    kind = ast.Lambda if code.co_name == "<lambda>" else _DEF
    found = [n for n in ast.walk(tree) if isinstance(n, kind) and _first_line(n) == code.co_firstlineno]
    if not found:
        raise ValueError(
            f"{where}: the source of {code.co_name} is not to be found; define it in a notebook cell or a file."
        )
    if len({_code_digest(n) for n in found}) > 1:
        raise ValueError(f"{where}: several functions start on one line; put each on a line of its own.")
    return found[0]


def _first_line(node: ast.AST) -> int:
    return min(n.lineno for n in (node, *getattr(node, "decorator_list", ())))


def _code_digest(node: ast.AST) -> str:
    return digest(_tree(node))


def _tree(node):
    """Return a syntax tree as lists, without what changes no behaviour and what Python versions add or drop."""
    if isinstance(node, list):
        return [_tree(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {k: v for k, v in ast.iter_fields(node) if k not in ("ctx", "kind", "type_comment", "returns")}
    if isinstance(node, ast.arg):
        del fields["annotation"]
    if isinstance(node, (*_DEF, ast.ClassDef)) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    return [type(node).__name__, {k: _tree(v) for k, v in fields.items() if v is not None and v != []}]

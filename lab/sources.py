"""Which code of litrev something uses, and what that code says now, so that an edit is noticed where it matters.

A key names litrev's code; this module reads it. What is reached from a function, a class or an object is walked once:
each function's syntax tree, with its local names numbered and every name of something else replaced by what it stands
for. So comments, layout, docstrings, new names and other files change nothing, and any other edit does.
"""

import ast
import builtins
import dataclasses
import functools
import importlib
import inspect
import re
import types

import numpy as np
import torch
from torch import nn

from lab import fingerprint, syntax

# The loop that trains, and what keeps and records: they decide nothing that a function of a notebook computes.
MACHINERY = ("lab.training", "lab.runs", "lab.measure", "lab.fingerprint", "lab.claims", "lab.sources", "lab.probe")
CODE = (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)
NODE = re.compile(r"node \d+$")
PLAIN = (bool, int, float, complex, str, bytes, torch.Tensor, np.ndarray, torch.dtype, range, slice)


def used(*values) -> dict:
    """Return the code of litrev that `values` use: {"digest": of all, "functions": {full name: digest of its own}}."""
    graph = Graph()
    roots = [graph.reach(value) for value in values]
    return {"digest": fingerprint.digest([roots, graph.nodes]), "functions": graph.named}


def changed(old: dict, new: dict) -> list[str]:
    """Return the full names of the functions and classes that differ between two answers of `used`; [] where none."""
    if old.get("digest") == new["digest"]:
        return []
    was, now = old.get("functions", {}), new["functions"]
    differ = sorted(name for name in {**was, **now} if was.get(name) != now.get(name))
    return [name.replace(":", ".") for name in differ] or ["the order in which functions of litrev use each other"]


def now(name: str) -> str | None:
    """Return the digest that the function, class or number of this full name, "module:name", has now; None where there
    is none of that name."""
    module, _, rest = name.partition(":")
    try:
        found = functools.reduce(getattr, rest.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None
    graph = Graph()
    content = graph.reach(fingerprint.bare(found), data=True)
    return graph.named.get(name) or fingerprint.digest(content)


def own(content):
    """What a node says itself: its content, but for which others it refers to."""
    return [own(part) for part in content] if isinstance(content, list) else "" if NODE.match(str(content)) else content


def identity(value):
    """What tells a value from others. Under autoreload an old function or class lives on, with the new code, beside the
    new one of its name: they are one."""
    name = getattr(value, "__qualname__", "<locals>")
    if isinstance(value, type) and "<locals>" not in name:
        return value.__module__, name
    if isinstance(value, types.FunctionType) and not value.__closure__ and "<locals>" not in name:
        return value.__module__, name, value.__code__
    return id(value)


class Graph:
    """What was reached so far: `nodes`, in the order of the walk, and their own contents by full name."""

    def __init__(self):
        self.nodes, self.named, self.places, self.alive = [], {}, {}, []

    def reach(self, value, data: bool = False):
        """Return what stands for `value` in the code that uses it: the place of its node, or itself if it is plain.

        Without `data`, values count for the code in them alone: they are the reader's, and are part of the key.
        """
        if isinstance(value, PLAIN) or value is None or value is ...:
            return fingerprint.describe(value, "value") if data else ""
        if isinstance(value, (list, tuple, set, frozenset)):
            parts = value if isinstance(value, (list, tuple)) else sorted(value, key=repr)
            return [self.reach(part, data) for part in parts]
        if isinstance(value, dict):
            return [[repr(key) if data else "", self.reach(part, data)] for key, part in value.items()]
        if isinstance(value, CODE) and not followed(home(bare := inspect.unwrap(value))):  # PyTorch wraps its own, too
            return f"{home(bare)}.{getattr(bare, '__qualname__', '')}"
        place = identity(value)
        if place not in self.places:
            self.alive.append(value)  # so that no other object takes its id
            self.places[place] = len(self.nodes)
            self.nodes.append(None)
            self.nodes[self.places[place]] = self._content(value, data)
        return f"node {self.places[place]}"

    def _content(self, value, data: bool):
        match value:
            case types.FunctionType():
                return self._function(value)
            case type():
                return self._class(value)
            case types.ModuleType():
                return self._module(value)
            case types.MethodType():
                return [self.reach(value.__func__), self.reach(value.__self__, data)]
            case functools.partial():
                return [self.reach(part, data) for part in (value.func, value.args, value.keywords)]
            case functools._lru_cache_wrapper():
                return [self.reach(value.__wrapped__)]
        return self._object(value, data)

    def _function(self, f: types.FunctionType):
        module = globals_of(f).get("__name__", "__main__")
        if not followed(module):  # a decorator's, or several: PyTorch wraps an optimiser's step at its first use
            return [self.reach(inspect.unwrap(f, stop=lambda g: followed(globals_of(g).get("__name__", "__main__"))))]
        ours, outside = fingerprint.ours(module), known(f)
        tree, met, brought = read(f, outside, ours)
        outside |= {alias: imported(*place) for alias, place in brought.items()}
        parts = []
        for name, *chain in met:
            value = functools.reduce(getattr, chain, outside[name])
            mine = ours and (name in brought or name in f.__globals__)
            parts.append(self.reach(value, data=mine))
            if mine and isinstance(value, PLAIN) and not chain:
                self.named[f"{module}:{name}"] = fingerprint.digest(parts[-1])
        content = [tree, parts, self.reach([f.__defaults__, f.__kwdefaults__], ours)]
        if ours:
            self.named[f"{module}:{f.__qualname__}"] = fingerprint.digest(own(content))
        return content

    def _class(self, cls: type):
        ours = fingerprint.ours(cls.__module__)
        fields = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
        own = fingerprint.members(cls)
        if ours:
            plain = {key: self.reach(part, data=True) for key, part in own.items() if isinstance(part, PLAIN)}
            self.named[f"{cls.__module__}:{cls.__qualname__}"] = fingerprint.digest([fields, plain])
        bases = [self.reach(base) for base in cls.__bases__]
        return [bases, fields, [[key, self.reach(part, ours)] for key, part in own.items()]]

    def _module(self, module: types.ModuleType):
        own = {name: part for name, part in vars(module).items() if getattr(part, "__module__", "") == module.__name__}
        return [self.reach(part) for part in own.values()]

    def _object(self, value, data: bool):
        cls = type(value)
        if not (followed(cls.__module__) or isinstance(value, nn.Module)):
            return f"{cls.__module__}.{cls.__qualname__}"
        state = dict(getattr(value, "__dict__", {}))
        if dataclasses.is_dataclass(cls):  # what is cached beside the fields follows from them, but for other methods
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(cls) if f.compare}
            state = fields | {name: part for name, part in state.items() if callable(part)}
        return [self.reach(cls), [[name, self.reach(part, data)] for name, part in state.items()]]


def home(value) -> str:
    """The module that a function or class is from; a module is its own."""
    return value.__name__ if isinstance(value, types.ModuleType) else value.__module__ or ""


def followed(module: str) -> bool:
    """Say whether the code of a module is read: the reader's own and litrev's, not that of packages."""
    return not (fingerprint.installed(module) and not fingerprint.ours(module)) and module not in MACHINERY


def globals_of(value) -> dict:
    """The globals of a function, {} of anything else."""
    return getattr(value, "__globals__", {})


def known(f: types.FunctionType) -> dict:
    """What a function finds outside of itself, by name: globals that it looks up, and what it closes over."""
    looked_up = [name for name in fingerprint.global_names(f.__code__) if name in f.__globals__]
    return {name: f.__globals__[name] for name in looked_up} | fingerprint.closure(f)


_read: dict[tuple, tuple] = {}  # a file is read for a function once, when it is as Python loaded it


def read(f: types.FunctionType, outside: dict, ours: bool) -> tuple[str, list, dict]:
    """Return the digest of a function's numbered syntax tree, the names that it meets, and those that it imports.

    The compiled code stands for a tree that is not to be found: Python or a decorator made the function, or litrev's
    file has been edited since Python loaded it.
    """
    key = (f.__code__, f.__module__, frozenset(outside))
    if key not in _read:
        names = Names(outside)
        try:
            node = syntax.of(f.__code__, f.__qualname__)
            readable = not ours or syntax.is_current(f.__code__)
        except (ValueError, SyntaxError):
            readable = False
        tree = names.numbered(node) if readable else [compiled(f.__code__), names.meet_all()]
        _read[key] = fingerprint.digest(tree), list(names.met), names.brought
    return _read[key]


def imported(module: str, name: str):
    """What `from module import name` brings."""
    found = importlib.import_module(module)
    return getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{module}.{name}")


def compiled(code: types.CodeType) -> str:
    """The digest of a function's compiled code, which stands for it where its source does not."""
    inner = [compiled(part) if isinstance(part, types.CodeType) else repr(part) for part in code.co_consts]
    return fingerprint.digest([code.co_code.hex(), list(code.co_names), inner])


class Names:
    """The names in a function's syntax tree: its own are numbered, those from `outside` are `met` as chains."""

    def __init__(self, outside: dict):
        self.outside, self.met, self.own, self.brought = dict(outside), [], {}, {}

    def meet_all(self) -> None:
        self.met = [(name,) for name in self.outside]

    def numbered(self, node):
        """Return a syntax tree as lists, with numbers for names, and without what changes no behaviour."""
        if isinstance(node, list):
            return [self.numbered(item) for item in node if not self._imported(item)]
        if isinstance(node, (ast.Name, ast.Attribute)) and (found := self._other(node)):
            return found
        if not isinstance(node, ast.AST):
            return repr(node)
        fields = fingerprint.telling(node)
        for key in ("id", "arg", "name"):
            if isinstance(fields.get(key), str) and not isinstance(node, (ast.keyword, ast.alias)):
                fields[key] = self._own(fields[key])
        return [type(node).__name__, {k: v if isinstance(v, int) else self.numbered(v) for k, v in fields.items()}]

    def _own(self, name: str) -> int | str:
        return name if hasattr(builtins, name) and name not in self.own else self.own.setdefault(name, len(self.own))

    def _other(self, node: ast.Name | ast.Attribute) -> str | None:
        """What stands for a name, or for a chain such as module.name, that is defined outside the function."""
        chain = tuple(dotted(node))
        if not chain or chain[0] not in self.outside:
            return None
        value, depth = self.outside[chain[0]], 1
        while isinstance(value, types.ModuleType) and depth < len(chain) and hasattr(value, chain[depth]):
            value, depth = getattr(value, chain[depth]), depth + 1
        if depth < len(chain):  # an attribute of what a part of the chain stands for, which is met next
            return None
        if chain not in self.met:
            self.met.append(chain)
        return f"other {self.met.index(chain)}"

    def _imported(self, node) -> bool:
        """Note what an import inside the function brings, which counts as outside from there on."""
        if not (isinstance(node, ast.ImportFrom) and node.module and followed(node.module)):
            return False
        for alias in node.names:
            self.brought[alias.asname or alias.name] = node.module, alias.name
            self.outside[alias.asname or alias.name] = imported(node.module, alias.name)
        return True


def dotted(node) -> list[str]:
    """['a', 'b', 'c'] of the expression a.b.c; [] of any other."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return []

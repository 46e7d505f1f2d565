"""The public functions of litrev and lab, for tests that want every one of them."""

import importlib
import inspect
import pkgutil

import lab
import litrev

MODULES = [
    importlib.import_module(found.name)
    for package in (litrev, lab)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


def functions(owner, module):
    """(name, function) of the public functions that `owner`, a module or a class, has from the module's file."""
    for name, member in vars(owner).items():
        if name.startswith("_") and name not in ("__init__", "__call__"):
            continue
        if inspect.isclass(member) and member.__module__ == module.__name__:
            yield from ((f"{name}.{method}", function) for method, function in functions(member, module))
        inner = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
        function = inspect.unwrap(inner)
        if inspect.isfunction(function) and function.__code__.co_filename == module.__file__:
            yield name, function

"""What litrev, lab and the notebooks import is listed in the `jupyterlab` target, so that a reader has it."""

import ast
import functools
import os
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
SOURCES = sorted(
    [*(ROOT / "litrev").rglob("*.py"), *(ROOT / "lab").glob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
)
REMEDY = (
    "list it in the jupyterlab target of tools/jupyter/BUILD, after adding it to requirements.in and "
    "running: tools/bazel run requirements.update"
)


def normal(name):
    """A distribution's name as the lock writes it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed():
    """The names in requirement("...") of tools/jupyter/BUILD."""
    nodes = ast.walk(ast.parse((ROOT / "tools/jupyter/BUILD").read_text()))
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "requirement"]
    return {normal(call.args[0].value) for call in calls}


def python_of(path):
    """The code of a module, or of a notebook's cells without IPython's own lines (%magic, !command)."""
    if path.suffix == ".py":
        return path.read_text()
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return re.sub(r"^\s*[%!].*$", "", "\n".join(cells), flags=re.MULTILINE)


def imported(code):
    """The top-level names that code imports, imports inside functions included; relative ones are litrev's own."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@functools.cache
def distributions():
    """The installed distributions of each name that can be imported: a walk through all that is installed."""
    return packages_distributions()


def not_listed(code, packages):
    """Sentences on the imports that are neither Python's own, nor litrev, nor lab, nor of one of the packages."""
    others = imported(code) - set(sys.stdlib_module_names) - {"litrev", "lab"}
    return [
        f"{name} is imported, but a reader may not have it: {REMEDY}"
        for name in sorted(others)
        if not packages & {normal(distribution) for distribution in distributions().get(name, [name])}
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_imports_are_listed(path):
    found = not_listed(python_of(path), listed())
    assert not found, "\n".join(found)


def test_there_is_something_to_check():
    assert any(path.suffix == ".py" for path in SOURCES) and "torch" in listed()


def test_an_import_that_is_not_listed_is_found():
    code = (
        "import os\nfrom litrev import nets\nimport torch.nn\n\ndef f():\n    from PIL import Image\n    import pytest"
    )
    assert [sentence.split()[0] for sentence in not_listed(code, {"torch"})] == ["PIL", "pytest"]
    assert not_listed(code, {"torch", "pillow", "pytest"}) == []

"""Python is formatted and linted with the settings of pyproject.toml; the library is small enough to be read."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
FOLDERS = ("bench", "lab", "litrev", "survey", "tests", "tools")
MODULES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
KINDS = {"pyproject.toml": MODULES, "notebooks/ruff.toml": list((ROOT / "notebooks").glob("*.ipynb"))}


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize(
    ("command", "remedy"),
    [(["format", "--check", "--diff"], "ruff format"), (["check", "--output-format=concise"], "ruff check --fix")],
)
def test_ruff(command, remedy, settings):
    assert len(KINDS[settings]) > 4
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(ROOT / settings)]
    done = subprocess.run([*ruff, *sorted(map(str, KINDS[settings]))], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nMend it with `{remedy} --config {settings}`"


def code_lines(source):
    """The lines of code that are left without blank lines, comments and docstrings, none of which a reader minds."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(source)
    docs = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
    dropped = {line for doc in docs for line in range(doc.lineno, doc.end_lineno + 1)}
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for n, line in lines if n not in dropped and line.strip() and not line.strip().startswith("#"))


def test_code_lines_counts_code_alone():
    assert code_lines('"""Doc\n\nstring."""\n\n# why\ndef f():\n    """Doc."""\n    return 1  # 2\n') == 2


def test_the_library_is_small():
    files = {path: path.read_text() for folder in ("lab", "litrev") for path in (ROOT / folder).rglob("*.py")}
    assert sum(code_lines(text) for path, text in files.items() if "litrev" in path.relative_to(ROOT).parts) <= 3400
    assert not {path.name: lines for path, text in files.items() if (lines := len(text.splitlines())) > 300}


def test_litrev_stands_on_its_own():
    sources = [path.read_text() for path in (ROOT / "litrev").rglob("*.py")]
    assert len(sources) > 20
    assert not any(re.search(r"^\s*(from|import) lab\b", text, re.M) for text in sources)


def test_public_names_say_what_they_are():
    silent = []
    for path in [*(ROOT / "litrev").rglob("*.py"), *(ROOT / "lab").glob("*.py")]:
        named = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        silent += [f"{path.stem}.{n.name}" for n in named if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert not silent

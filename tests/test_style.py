"""Everything in Python is formatted and linted: ruff, with the settings of pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
FOLDERS = ("litrev", "notebooks", "tests", "tools")
FILES = [
    str(path) for folder in FOLDERS for end in ("py", "ipynb") for path in sorted((ROOT / folder).rglob(f"*.{end}"))
]


@pytest.mark.parametrize(
    ("command", "remedy"),
    [(["format", "--check", "--diff"], "ruff format"), (["check", "--output-format=concise"], "ruff check --fix")],
)
def test_ruff(command, remedy):
    assert any(name.endswith("schedules.py") for name in FILES)
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml"), *FILES]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nMend it with `{remedy}`"

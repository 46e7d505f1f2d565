"""The notebooks as they lie in git: outputs of this code, readable, small, of no particular machine."""

import os
from pathlib import Path

import nbformat
import pytest

from tools.jupyter import notebooks

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert STORED, "notebooks/ holds no notebook"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_outputs_are_good(path):
    found = notebooks.output_problems(nbformat.read(path, as_version=4))
    assert not found, f"{'; '.join(found)}. Run: tools/bazel run //notebooks:{path.stem}.execute"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_form_is_good(path):
    assert notebooks.form_problems(nbformat.read(path, as_version=4), path.stat().st_size) == []

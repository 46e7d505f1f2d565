"""The notebooks as they lie in git: outputs of this code, lessons in form, of no particular machine."""

import os
from pathlib import Path

import nbformat
import pytest

from tools.jupyter import form, notebooks

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert form.FRONT_DOOR in [path.stem for path in STORED]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_outputs_are_good(path):
    found = notebooks.output_problems(nbformat.read(path, as_version=4))
    assert not found, f"{'; '.join(found)}. Run: tools/bazel run //notebooks:{path.stem}.execute"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_form_is_good(path):
    found = form.problems(nbformat.read(path, as_version=4), path.stat().st_size, path.stem)
    assert not found, "\n".join([f"{path.stem} (CONTRIBUTING.md has the form):", *found])

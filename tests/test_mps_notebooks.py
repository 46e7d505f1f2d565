"""Every notebook's smoke run passes on the pretended Apple GPU."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

TESTS = Path(__file__).absolute().parent
ROOT = Path(os.environ.get("LITREV_ROOT", TESTS.parent)).absolute()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def rehearse(notebook, folder):
    """Run a notebook in a Python of its own, with nothing trained before; returns its exit status and what it said."""
    environment = os.environ | {"LITREV_PRESET": "smoke", "LITREV_RUNS": str(folder / "runs"), "MPLBACKEND": "agg"}
    environment |= {"LITREV_ROOT": str(ROOT), "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    command = [sys.executable, str(TESTS / "mps_rehearsal.py"), str(notebook)]
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, done.stdout


def test_there_are_notebooks():
    assert any(path.stem == "03_ddpm" for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_smoke_run(path, tmp_path):
    status, said = rehearse(path, tmp_path)
    assert status == 0, said[-4000:]


GOOD = """
import torch
from lab.training import fit
from litrev.device import device, randn

def loss(net, batch, generator):
    return (net(batch[0]) - randn((4, 1), generator, batch[0].device)).square().mean()

run = fit(lambda: torch.nn.Linear(2, 1), loss, (torch.ones(8, 2),), name="line", steps=2, batch=4)
assert next(run.net.parameters()).device == device() and device().type == "mps"
"""


def test_a_cell_that_mps_would_refuse_is_shown(tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in (GOOD, "fine = 1\nrun.net.double()", "print('too far')")]
    file = tmp_path / "99_wrong.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    status, said = rehearse(file, tmp_path)
    assert status == 1 and "line: training" in said and "MPS has no torch.float64" in said and "too far" not in said
    shown = "On MPS, cell [2] of 99_wrong.ipynb would have failed:\n\nfine = 1\nrun.net.double()"
    assert said.rstrip().endswith(shown)

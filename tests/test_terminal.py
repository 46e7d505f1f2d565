"""What a terminal's encoding lacks ends no training run and no list of runs, however Python was started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENCODINGS = [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp437:strict"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
ENCODINGS[-1]["PYTHONCOERCECLOCALE"] = "0"

TRAIN = """
import torch
from torch import nn
from lab import runs, training

def loss(net, x0, generator, minus="\u2212"):
    return (net(x0) - 1).square().mean()

def fit(loss):
    return training.fit(lambda: nn.Linear(1, 1), loss, torch.ones(8, 1), name="toy", steps=3)

fit(loss)
loss.__defaults__ = ("J\u00f6rg",)
print(fit(loss).source, "\u00b1")
"""


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["ascii", "cp437", "C"])
def test_training_goes_on(tmp_path, encoding):
    runs, script = tmp_path / "J\u00f6rg \u2212", tmp_path / "train.py"
    script.write_text(TRAIN, "utf-8")
    environment = os.environ | {"LITREV_RUNS": str(runs), "PYTHONPATH": str(HERE.parent)} | encoding
    environment |= {"LITREV_DEVICE": "cpu"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.splitlines()[-1].startswith(b"trained now ")
    assert len(list(runs.glob("toy-*.safetensors"))) == 2
    command = [sys.executable, "-m", "lab.runs", "list"]
    listed = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True)
    assert listed.returncode == 0 and listed.stdout.count(b" toy-") == 2, listed.stderr.decode()

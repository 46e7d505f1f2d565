"""A measurement is made once, kept exactly, and made again when its function or its inputs change."""

import pytest
import torch

from lab import runs
from lab.measure import measure
from litrev import paths


def double(x, scale):
    print(f"calculating {scale}")
    return {"twice": scale * x, "count": 3, "third": 1 / 3}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))


def test_measured_once_and_kept_exactly(capsys):
    x = torch.randn(5)
    first = measure(double, x, 2, name="doubled")
    second = measure(double, x, 2, name="doubled")
    assert torch.equal(first["twice"], 2 * x) and second["count"] == 3 and second["third"] == torch.tensor(1 / 3)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    said = capsys.readouterr().out
    assert said.count("calculating 2") == 1 and "measured now" in said and "this machine's cache" in said


def test_another_input_is_measured_again(capsys):
    x = torch.randn(5)
    for scale, tensor in [(2, x), (3, x), (2, x + 1), (2, x)]:
        measure(double, tensor, scale, name="doubled")
    assert [line[-1] for line in capsys.readouterr().out.splitlines() if "calculating" in line] == ["2", "3", "2"]


def test_a_damaged_file_is_named_and_measured_again(capsys):
    x = torch.randn(5)
    measure(double, x, 2, name="doubled")
    (file,) = paths.runs_dir().glob("doubled-*.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    assert torch.equal(measure(double, x, 2, name="doubled")["twice"], 2 * x)
    said = capsys.readouterr().out
    assert said.count("calculating 2") == 2 and file.name in said


def test_a_shipped_measurement_is_found_and_exact(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path / "checkout"))
    x = torch.randn(5)
    first = measure(double, x, 2, name="doubled")
    runs.ship("doubled")
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path / "elsewhere"))
    again = measure(double, x, 2, name="doubled")
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert "shipped" in capsys.readouterr().out

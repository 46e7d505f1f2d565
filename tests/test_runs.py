"""Run files hold what was put in, are found by key, name what is wrong with them, and ship small."""

import errno
import json
import os
import struct
import sys

import numpy as np
import pytest
import torch
from torch import nn
from toy_run import train

from lab import fingerprint, runs
from litrev import paths


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_DEVICE", "cpu")
    return tmp_path


TENSORS = {
    "matrix": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "transposed": torch.arange(12.0).reshape(3, 4).mT,
    "channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "strided": torch.arange(6.0).reshape(3, 2)[:1, 1],
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 3),
    "integers": torch.tensor([2**62, -1]),
    "flags": torch.tensor([True, False]),
    "half": torch.tensor([1.5], dtype=torch.float16),
    "brain": torch.tensor([1.5], dtype=torch.bfloat16),
}
TENSORS["shared"] = TENSORS["matrix"]


def test_what_is_packed_comes_back():
    tensors, about = runs.unpack(runs.pack(TENSORS, {"key": "k", "text": "caf\u00e9", "number": 0.1}))
    assert about == {"key": "k", "text": "caf\u00e9", "number": 0.1, "format": runs.FORMAT}
    assert tensors.keys() == TENSORS.keys()
    for name, t in TENSORS.items():
        assert tensors[name].dtype == t.dtype and torch.equal(tensors[name], t)


def test_every_flipped_byte_is_noticed_or_harmless():
    content = runs.pack({"w": torch.arange(4.0)}, {"key": "k"})
    tensors, about = runs.unpack(content)
    refused = 0
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        try:
            found, said = runs.unpack(bytes(damaged))
        except runs.Damaged:
            refused += 1
        else:  # such as a blank after the header that became another kind of blank
            assert said == about and found.keys() == tensors.keys() and torch.equal(found["w"], tensors["w"])
    assert refused > 0.97 * len(content)


def test_a_file_of_a_newer_format_is_not_read(monkeypatch):
    content = runs.pack({}, {})
    monkeypatch.setattr(runs, "FORMAT", runs.FORMAT + 1)
    with pytest.raises(runs.Damaged, match="format unknown"):
        runs.unpack(content)


def test_no_pickle_is_ever_loaded(checkout):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    run = train()
    path = runs.location(paths.runs_dir(), "toy", run.key)
    torch.save({"net": Bomb()}, path)
    assert train().source == "trained now"


GOLDEN = "b0a3afd2a4f236398efb0aea53a82b4cfb92e766a259bbfd19990914390285e9"


def test_the_key_of_a_fixed_run_is_what_it_always_was():
    """When this fails, shipped runs are no longer found: change the key only on purpose, and ship them again."""
    assert train().key == GOLDEN


def test_a_run_of_this_machine_comes_before_the_shipped_one(checkout):
    run = train()
    runs.ship(run)
    assert train().source == "this machine's cache"
    runs.location(paths.runs_dir(), "toy", run.key).unlink()
    assert train().source == "shipped"
    assert train(retrain=True).source == "trained now"


def test_a_shipped_run_is_small_and_close(checkout):
    run = train(steps=1000, batch=2)
    path = runs.ship(run)
    assert path == checkout / "data/trained" / f"toy-{run.key[:12]}.safetensors"
    runs.location(paths.runs_dir(), "toy", run.key).unlink()
    shipped = train(steps=1000, batch=2)
    assert path.stat().st_size < 10_000
    assert shipped.tensors["ema.0.weight"].dtype == torch.float16
    assert shipped.net[0].weight.dtype == torch.float32
    for p, q in zip(run.net.parameters(), shipped.net.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-3, rtol=1e-3)
    assert len(shipped.history.step) <= 200 and np.isin(shipped.history.step, run.history.step).all()
    assert (shipped.seconds, shipped.device) == (run.seconds, run.device)
    with pytest.raises(RuntimeError, match=r"shipped with its EMA weights only: fit\(..., retrain=True\) gives both"):
        _ = shipped.raw


def test_both_sets_of_weights_can_be_shipped(checkout):
    run = train()
    runs.ship("toy", raw=True)
    runs.location(paths.runs_dir(), "toy", run.key).unlink()
    torch.testing.assert_close(train().raw[0].weight, run.raw[0].weight, atol=1e-3, rtol=1e-3)


def test_a_long_history_is_thinned(checkout):
    run = train()
    run.tensors |= {"history.step": torch.arange(1001), "history.loss": torch.zeros(1001)}
    tensors, _ = runs.unpack(runs.ship(run).read_bytes())
    assert tensors["history.step"].tolist() == list(range(0, 1001, 6))


@pytest.mark.parametrize("weight", [torch.zeros(2_100_000), torch.tensor([70000.0])], ids=["large", "beyond float16"])
def test_what_does_not_fit_is_not_shipped(checkout, weight):
    run = train()
    run.tensors["ema.extra"] = weight
    with pytest.raises(ValueError, match="toy takes .* MB; a shipped run has at most 4 MB and no weight beyond 65504"):
        runs.ship(run)
    assert not paths.trained_dir().exists()


def test_shipping_by_name_needs_exactly_one(checkout):
    with pytest.raises(ValueError, match="'toy' fits no run of this machine"):
        runs.ship("toy")
    first, second = train(), train(seed=1)
    with pytest.raises(ValueError, match=f"(?s)fits toy-.*{first.key[:12]}"):
        runs.ship("toy")
    assert runs.ship(f"toy-{second.key[:12]}").name.endswith(f"{second.key[:12]}.safetensors")


def test_the_command_lists_and_ships(checkout, capsys, monkeypatch):
    run = train()

    def command(*words):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["runs", *words])
        runs.main()
        return capsys.readouterr().out

    assert "toy-" + run.key[:12] in command("list") and "min on cpu" in command("list", "toy")
    assert command("list", "other") == "no runs are kept yet\n"
    assert command("ship", "toy") == f"toy-{run.key[:12]}.safetensors is in data/trained\n"
    assert "trained " in command("list")
    runs.location(paths.runs_dir(), "toy", run.key).write_text("damaged")
    assert "MB damaged" in command("list")
    with pytest.raises(runs.Damaged, match="is no complete run file"):
        command("ship", "toy")


def test_names_that_begin_alike_are_told_apart(checkout):
    train(), train(name="toy-2"), train(name="to")
    assert [path.stem[:-13] for path in runs.kept("toy")] == ["toy"]
    assert len(runs.kept()) == 3


BEFORE = {"lr": 0.1, "loss": {"code": "a", "globals": {"scale": 1.0}}, "data": [1, 2]}


def changed(monkeypatch, *older, **new):
    monkeypatch.setattr(runs, "kept", lambda name: list(range(len(older))))
    monkeypatch.setattr(runs, "facts", lambda i: {"description": older[i]} if older[i] else {})
    return runs.changes("toy", json.loads(json.dumps(BEFORE | new)))


def test_changes_are_named(monkeypatch):
    assert changed(monkeypatch) == changed(monkeypatch, None) == ""
    assert changed(monkeypatch, BEFORE, lr=0.2) == "lr was 0.1 and is now 0.2"
    assert changed(monkeypatch, BEFORE, loss={"code": "b", "globals": {"scale": 1.0}}) == "the code of loss has changed"
    scaled = {"code": "a", "globals": {"scale": 2.0}}
    assert changed(monkeypatch, BEFORE, loss=scaled) == "loss.globals.scale was 1.0 and is now 2.0"
    assert changed(monkeypatch, BEFORE, data=[1]) == "data.1 was 2 and is now absent"
    assert changed(monkeypatch, BEFORE | {"lr": 3, "data": 0}, BEFORE, lr=0.2) == "lr was 0.1 and is now 0.2"
    assert changed(monkeypatch, BEFORE, a=1, b=2, c=3, d=4, lr=5).endswith("c was absent and is now 3 and 2 more")


def test_a_run_counts_for_others_as_its_network(checkout):
    run = train()
    described = fingerprint.describe(run, "run")
    assert described["state"].keys() == {"net"}
    run.net[0].bias.data += 1
    assert fingerprint.describe(run, "run") != described
    assert fingerprint.describe(run.net, "net") != fingerprint.describe(run.raw, "net")


def header(content, metadata):
    """A safetensors file with other metadata."""
    text = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(text)) + text + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        b"PK\x03\x04",
        struct.pack("<Q", 2**63) + b"{}",
        header(b"", {}),
        header(b"", {"sha256": "", "about": "[]"}),
    ],
    ids=["empty", "zeros", "ones", "zip", "huge header", "no checksum", "wrong checksum"],
)
def test_foreign_files_are_set_aside_and_facts_of_them_are_empty(checkout, capsys, content):
    path = paths.runs_dir() / "toy-0123456789ab.safetensors"
    path.parent.mkdir()
    path.write_bytes(content)
    assert runs.facts(path) == {}
    assert runs.read(path, "0123456789ab") is None
    assert (
        "toy-0123456789ab.safetensors is no complete run file" in (said := capsys.readouterr().out)
        or "checksum" in said
    )
    assert "set aside as toy-0123456789ab.safetensors.damaged-1." in said
    assert [p.name for p in paths.runs_dir().iterdir()] == ["toy-0123456789ab.safetensors.damaged-1"]


def test_a_damaged_shipped_file_is_named_and_left(checkout, capsys):
    run = train()
    path = runs.ship(run)
    path.write_bytes(path.read_bytes()[:-1])
    runs.location(paths.runs_dir(), "toy", run.key).unlink()
    assert train().source == "trained now"
    said = capsys.readouterr().out
    assert (
        f"{path.name} is no complete run file: it is not used; `git checkout -- data/trained/{path.name}` brings"
        in said
    )
    assert path.exists()


def test_a_full_disk_is_one_sentence_and_loses_nothing(checkout, capsys, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paths, "write_atomically", full)
    run = train()
    said = [line for line in capsys.readouterr().out.splitlines() if "cannot be saved" in line]
    assert run.source == "trained now" and len(said) == 1
    assert "toy: cannot be saved, No space left on device (0.0 MB needed, " in said[0]
    assert "set LITREV_RUNS to a folder elsewhere" in said[0]


def test_a_folder_that_cannot_be_made_is_said(checkout, capsys, monkeypatch):
    (checkout / "file").write_text("")
    monkeypatch.setenv("LITREV_RUNS", str(checkout / "file" / "runs"))
    run = train()
    assert run.source == "trained now" and isinstance(run.net, nn.Module)
    assert "toy: cannot be saved, Not a directory" in capsys.readouterr().out


def test_the_checkpoint_of_a_finished_run_is_removed_by_the_next_call():
    """Killed after the run was saved and before its checkpoint was removed: nothing is lost, and nothing is left."""
    run = train()
    (finished,) = paths.runs_dir().glob("toy-*.safetensors")
    partial = finished.with_suffix(".partial.safetensors")
    partial.write_bytes(finished.read_bytes())
    os.utime(partial, ns=(0, finished.stat().st_mtime_ns - 1))
    assert train().key == run.key
    assert sorted(path.name for path in paths.runs_dir().iterdir()) == [finished.name]

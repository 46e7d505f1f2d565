"""Nothing that happens to a process, a file or a disk loses a run or changes its outcome."""

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_run import train

from lab import locks, runs, training
from litrev import paths

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_DEVICE", "cpu")
    return tmp_path


def script(name, *arguments):
    """Run one of the scripts beside this file on one thread; return what it printed."""
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}
    command = [sys.executable, "-u", HERE / name, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def names(pattern="*"):
    return sorted(path.name for path in paths.runs_dir().glob(pattern))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_fifty_kills_lose_nothing_and_change_no_bit(checkout, monkeypatch):
    said = script("robustness_kill.py", 50)
    assert said.count("goes on at step") >= 20
    assert "damaged" not in said and "no complete" not in said
    finished = sorted(paths.runs_dir().glob("toy-????????????.safetensors"))
    left = runs_of_the_unkilled(len(finished) + 1, checkout / "whole", monkeypatch)
    for path in finished:
        assert same(runs.unpack(path.read_bytes())[0], left[path.name])
    monkeypatch.setenv("LITREV_RUNS", str(checkout / "runs"))
    for seed in range(len(finished)):
        assert train(steps=20, seed=seed).source == "this machine's cache"  # clears what the last kill may have left
    last = train(steps=20, seed=len(finished))
    assert same(last.tensors, left[f"toy-{last.key[:12]}.safetensors"])
    assert set(names("*toy*")) == set(left), "killed processes left something behind"


def runs_of_the_unkilled(count, folder, monkeypatch):
    monkeypatch.setenv("LITREV_RUNS", str(folder))
    whole = [train(steps=20, seed=seed) for seed in range(count)]
    return {f"toy-{run.key[:12]}.safetensors": run.tensors for run in whole}


def test_of_two_processes_one_trains_and_the_other_waits(checkout):
    said = script("robustness_two.py", "wait")
    assert said.count("source: trained now") == said.count("source: this machine's cache") == 1
    assert "is in use by another process: waiting for it." in said
    assert len(names("toy*")) == 1


def test_when_the_first_process_is_killed_the_second_goes_on(checkout):
    said = script("robustness_two.py", "kill")
    assert said.count("source: trained now") == 1 and "goes on at step" in said
    (path,) = paths.runs_dir().glob("toy*")
    assert same(runs.unpack(path.read_bytes())[0], train(steps=100, name="whole").tensors)


def test_a_full_disk_costs_one_sentence_and_leaves_no_half_file(checkout):
    lines = script("robustness_full.py").splitlines()
    full = [line for line in lines if "cannot be saved" in line]
    assert len(full) == 6
    assert all("Training goes on without checkpoints." in line for line in full[::2])
    assert all("This run is lost when Python ends." in line for line in full[1::2])
    assert lines.count("full: trained now []") == 3 and "room: trained now 1 True" in lines


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(checkout, monkeypatch):
    whole = train(name="whole").tensors
    write, written = paths.write_atomically, []

    def fills_up(path, content):
        written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "write_atomically", fills_up)
        patch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        assert same(train().tensors, whole)
    (partial,) = paths.runs_dir().glob("toy*")
    assert runs.unpack(partial.read_bytes())[1]["step"] == 5
    assert same(train().tensors, whole)


def truncated(content, rng):
    return content[: rng.randrange(len(content))]


def flipped(content, rng):
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def blanked(content, rng):
    at = rng.randrange(len(content) - 64)
    return content[:at] + bytes(64) + content[at + 64 :]


def longer(content, rng):
    return content + rng.randbytes(rng.randrange(1, 100))


def noise(content, rng):
    return rng.randbytes(len(content))


def foreign(content, rng):
    tensors, about = runs.unpack(content)
    return runs.pack(tensors, about | {"key": "another"})


DAMAGES = [truncated, flipped, flipped, flipped, blanked, longer, noise, foreign]


@pytest.mark.parametrize("which", ["finished", "partial"])
def test_damaged_files_are_named_set_aside_and_trained_again(checkout, monkeypatch, capsys, which):
    """50 damages to a finished run, 50 to an interrupted one; each ends with the very weights of the undamaged one."""
    path, content, whole = victim(which, monkeypatch)
    rng = random.Random(which)
    harmless = 0
    for n in range(50):
        for file in paths.runs_dir().iterdir():
            file.unlink()
        damaged = DAMAGES[n % len(DAMAGES)](content, rng)
        path.write_bytes(damaged)
        capsys.readouterr()
        run = train()
        assert same(run.tensors, whole)
        aside = path.with_name(f"{path.name}.damaged-1")
        said = capsys.readouterr().out
        if aside.exists():
            assert f"{path.name} " in said and f"set aside as {aside.name}." in said
            assert aside.read_bytes() == damaged and "goes on" not in said and run.source == "trained now"
        else:  # a blank of the header that turned into another kind of blank
            harmless += 1
            assert runs.unpack(damaged)[1] == runs.unpack(content)[1]
    assert harmless <= 2


def victim(which, monkeypatch):
    """Return the path and content of a run file, and the tensors of the run without any damage."""
    contents = {}
    write = paths.write_atomically

    def copying(path, content):
        contents[path] = content
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "write_atomically", copying)
        patch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        whole = train().tensors
    path = next(path for path in contents if (".partial" in path.name) == (which == "partial"))
    return path, contents[path], whole


def test_a_second_damaged_file_gets_a_name_of_its_own(checkout):
    run = train()
    path = runs.location(paths.runs_dir(), "toy", run.key)
    for _ in range(3):
        path.write_bytes(b"damaged")
        assert train().source == "trained now"
    assert names() == [path.name, *(f"{path.name}.damaged-{n}" for n in (1, 2, 3))]


def test_a_stale_checkpoint_of_a_finished_run_is_not_used(checkout, monkeypatch, capsys):
    path, content, whole = victim("partial", monkeypatch)
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert same(train(retrain=True).tensors, whole)
    assert "goes on" not in capsys.readouterr().out
    assert len(names()) == 1


def test_it_works_where_locks_do_not(checkout, monkeypatch):
    def none(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    assert train().source == "trained now"
    assert train().source == "this machine's cache"


@pytest.mark.parametrize("step", ["chmod", "fsync", "replace"])
def test_a_disk_that_knows_no_such_thing_keeps_runs(checkout, monkeypatch, step):
    def refuse(*arguments, **more):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(os, step, refuse)
    trained = train()
    assert trained.source == "trained now"
    again = train()
    assert again.source == "this machine's cache" and same(again.tensors, trained.tensors)
    assert len(names()) == 1

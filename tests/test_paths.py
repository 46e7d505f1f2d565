"""Folders follow the environment, and a file is replaced whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from litrev import paths


def test_root_is_the_folder_above_the_package(monkeypatch):
    monkeypatch.delenv("LITREV_ROOT", raising=False)
    assert (paths.root() / "litrev" / "paths.py").is_file()


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.delenv("LITREV_RUNS", raising=False)
    assert paths.data_dir() == tmp_path / "data"
    assert paths.trained_dir() == tmp_path / "data" / "trained"
    assert paths.runs_dir() == tmp_path / "data" / "runs"
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path / "elsewhere"))
    assert paths.runs_dir() == tmp_path / "elsewhere"


def umask():
    before = os.umask(0)
    os.umask(before)
    return before


def test_write_replaces_the_content_and_makes_the_folder(tmp_path):
    file = tmp_path / "new" / "file.json"
    paths.write_atomically(file, b"one")
    paths.write_atomically(file, b"two")
    assert file.read_bytes() == b"two"
    assert os.listdir(file.parent) == ["file.json"]
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask()


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(monkeypatch, tmp_path, step, problem):
    file = tmp_path / "file.json"
    paths.write_atomically(file, b"old")

    def fail(*_):
        raise problem

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(problem)):
        paths.write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in Path(tmp_path).iterdir()] == ["file.json"]


REFUSALS = [PermissionError(errno.EPERM, "Operation not permitted"), OSError(errno.EINVAL, "Invalid argument")]
REFUSALS += [OSError(errno.ENOTSUP, "Operation not supported"), OSError(errno.ENOSYS, "Not implemented"), OSError("no")]


@pytest.mark.parametrize("step", ["chmod", "fchmod", "fsync", "fdatasync", "replace", "rename", "link", "utime"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal.errno))
def test_what_a_file_system_refuses_costs_nothing(monkeypatch, tmp_path, step, refusal):
    def refuse(*_, **__):
        raise refusal

    monkeypatch.setattr(os, step, refuse, raising=False)
    for content in (b"old and longer", b"new"):
        paths.write_atomically(tmp_path / "file.json", content)
        assert (tmp_path / "file.json").read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_permissions_are_those_that_the_reader_gives_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        paths.write_atomically(tmp_path / "file.json", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file.json").stat().st_mode & 0o777 == 0o640

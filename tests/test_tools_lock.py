"""The lock files: what `bazel test requirements_test` finds, and that an update which fails changes nothing."""

import os
import stat
from pathlib import Path

import pytest

from tools.python import lock

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
WANTED = "# a remark\nnumpy>=2\ntorch  # another\n"
READER = "numpy==2.4.0 ; sys_platform != 'win32' \\\n    --hash=sha256:aa\ntorch==2.15.0 \\\n    --hash=sha256:bb\n"
TESTS = READER + "pytest==9.2.0 \\\n    --hash=sha256:cc\n"
BENCH = READER + "peer==1.0 \\\n    --hash=sha256:ff\n"
SURVEY = "numpy==2.3.0 \\\n    --hash=sha256:dd\nsphinx==9.0.4 \\\n    --hash=sha256:ee\n"
LOCKS = {"requirements": READER, "requirements_test": TESTS, "requirements_bench": BENCH, "requirements_survey": SURVEY}


@pytest.fixture
def folder(tmp_path):
    """A checkout whose locks are in order."""
    (tmp_path / "requirements.in").write_text(WANTED)
    (tmp_path / "requirements_test.in").write_text("-r requirements.in\npytest\n")
    (tmp_path / "requirements_bench.in").write_text("-r requirements.in\npeer\n")
    (tmp_path / "requirements_survey.in").write_text("sphinx\n")
    for name, body in LOCKS.items():
        text = lock.with_head(body, lock.wishes(tmp_path / f"{name}.in"))
        (tmp_path / f"{name}_lock.txt").write_text(text)
    return tmp_path


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_locks_in_order_pass(folder):
    assert lock.problems(folder) == []
    assert lock.wishes(folder / "requirements_test.in") == ["numpy>=2", "pytest", "torch"]
    assert lock.pins(TESTS) == {"numpy==2.4.0", "torch==2.15.0", "pytest==9.2.0"}


def test_a_remark_is_no_change(folder):
    edit(folder / "requirements.in", "# a remark", "# better said")
    assert lock.problems(folder) == []


def test_a_changed_wish_parts_all_locks_that_have_it(folder):
    edit(folder / "requirements.in", "numpy>=2", "numpy>=2.5")
    names = ["requirements.in", "requirements_test.in", "requirements_bench.in"]
    assert [sentence.split()[0] for sentence in lock.problems(folder)] == names
    assert all(sentence.endswith("Run: tools/bazel run requirements.update") for sentence in lock.problems(folder))


@pytest.mark.parametrize("old, new", [("sha256:bb", "sha256:bc"), ("torch==2.15.0", "torch==2.14.0")])
def test_a_lock_changed_by_hand_is_found(folder, old, new):
    edit(folder / "requirements_lock.txt", old, new)
    assert lock.problems(folder)[0].startswith("requirements_lock.txt was changed by hand.")


def test_tests_run_with_the_versions_that_readers_have(folder):
    other = TESTS.replace("torch==2.15.0", "torch==2.16.0")
    wanted = lock.wishes(folder / "requirements_test.in")
    (folder / "requirements_test_lock.txt").write_text(lock.with_head(other, wanted))
    assert lock.problems(folder) == [f"Tests lack versions that readers have: torch==2.15.0. Run: {lock.COMMAND}"]


def test_the_bench_measures_the_versions_of_requirements_in_that_readers_have(folder):
    """Only those: what they bring may differ where a peer needs it."""
    wanted = lock.wishes(folder / "requirements_bench.in")
    for old, new in (("torch==2.15.0", "torch==2.16.0"), ("numpy==2.4.0", "numpy==1.26.4")):
        (folder / "requirements_bench_lock.txt").write_text(lock.with_head(BENCH.replace(old, new), wanted))
        assert lock.problems(folder) == [f"The bench lacks versions that readers have: {old}. Run: {lock.COMMAND}"]
    brought = READER + "six==1.0 \\\n    --hash=sha256:aa\n"
    for name, body in (("requirements", brought), ("requirements_test", brought), ("requirements_bench", BENCH)):
        text = lock.with_head(body, lock.wishes(folder / f"{name}.in"))
        (folder / f"{name}_lock.txt").write_text(text)
    assert lock.problems(folder) == []


def test_what_readers_have_overrides_what_a_peer_asks_for(folder):
    kept = folder / "kept"
    lock.update(fake_uv(folder, f'[ $in != requirements_bench.in ] || cat "$held" >{kept}'), folder, [])
    assert kept.read_text() == "numpy==2.4.0 ; sys_platform != 'win32'\ntorch==2.15.0\n"


def fake_uv(folder, script):
    """An executable in uv's place: sh code that finds the output file in $out, its input in $in, overrides in $held."""
    uv = folder / "uv"
    find = 'while [ $# -gt 1 ]; do [ "$1" = --output-file ] && out=$2; [ "$1" = --overrides ] && held=$2; shift; done\n'
    find += "in=$1\n"
    uv.write_text("#!/bin/sh\n" + find + script)
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    return uv


@pytest.mark.parametrize("old, new", [("sphinx==9.0.4", "sphinx==9.0.3"), ("sha256:ee", "sha256:ef")])
def test_the_surveys_lock_stands_alone_and_is_guarded(folder, old, new):
    assert "numpy==2.3.0" in lock.pins((folder / "requirements_survey_lock.txt").read_text())
    edit(folder / "requirements_survey_lock.txt", old, new)
    assert lock.problems(folder) == [f"requirements_survey_lock.txt was changed by hand. Run: {lock.COMMAND}"]
    edit(folder / "requirements_survey.in", "sphinx", "furo")
    assert lock.problems(folder)[0].startswith("requirements_survey.in has changed")


def test_update_mends_a_parted_lock(folder):
    edit(folder / "requirements.in", "numpy>=2", "numpy>=2.4")
    (folder / "new").mkdir()
    for name, body in LOCKS.items():
        (folder / "new" / f"{name}.in").write_text(body)
    uv = fake_uv(folder / "new", 'cat "$(dirname "$0")/$in" >$out')
    lock.update(uv, folder, [])
    assert lock.problems(folder) == []
    assert len([path for path in folder.iterdir() if path.is_file()]) == 2 * len(LOCKS)


def test_an_update_asks_for_all_hashes(folder):
    edit(folder / "requirements_lock.txt", "sha256:bb", "sha256:bc")
    kept = folder / "kept"
    lock.update(fake_uv(folder, f'cat "$out" >>{kept}'), folder, [])
    assert "numpy==2.4.0 ; sys_platform != 'win32'\ntorch==2.15.0\n" in kept.read_text()
    assert "--hash" not in kept.read_text()


def test_an_update_that_fails_changes_nothing(folder, capsys, monkeypatch):
    before = {path.name: path.read_text() for path in folder.iterdir()}
    uv = fake_uv(folder, "echo half >$out; [ $in = requirements_test.in ]")
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(folder))
    assert lock.main("update", str(uv)) == 1
    assert "all are as they were" in capsys.readouterr().err
    uv.unlink()
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_environments_are_of_the_locks_that_stand():
    """This very Python holds what requirements_test_lock.txt pins for it."""
    from importlib.metadata import version

    pinned = dict(pin.split("==") for pin in lock.pins((ROOT / "requirements_test_lock.txt").read_text()))
    assert {name: version(name) for name in ("torch", "torchvision", "pytest")} == {
        name: pinned[name] for name in ("torch", "torchvision", "pytest")
    }

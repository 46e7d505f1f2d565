"""`pip install -e .`: the way without Bazel, on a copy of the checkout, with the packages that are here."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tools.python import lock

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
OTHERS = ("bench", "data", "notebooks", "survey", "tests", "tools")  # folders that are no packages of a reader's Python


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The copy, with folders as a checkout has, and the folder of packages that litrev was installed into."""
    folder = tmp_path_factory.mktemp("install")
    checkout = folder / "check out"
    for name in ("lab", "litrev"):
        shutil.copytree(ROOT / name, checkout / name)
    for name in OTHERS:
        (checkout / name).mkdir()
        (checkout / name / "__init__.py").touch()
    for name in ("pyproject.toml", "requirements.in"):
        shutil.copy(ROOT / name, checkout / name)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--prefix",
        folder / "env",
    ]
    done = subprocess.run([*pip, "-e", checkout], env=clean(HOME=str(folder)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return checkout, next((folder / "env").glob("lib/python*/site-packages"))


def clean(**variables):
    """The environment of a shell that knows nothing of litrev."""
    known = ("PYTHONPATH", "LITREV_ROOT", "LITREV_RUNS")
    return {name: value for name, value in os.environ.items() if name not in known} | variables


def run(installed, code, cwd):
    start = f"import site; site.addsitedir({str(installed[1])!r}); {code}"
    return subprocess.run([sys.executable, "-P", "-c", start], env=clean(), cwd=cwd, capture_output=True, text=True)


def test_both_packages_are_the_live_sources_and_know_their_checkout(installed, tmp_path):
    checkout = installed[0]
    code = "import lab.training, litrev.data.toys; from litrev import paths; "
    done = run(installed, code + "print(paths.root(), paths.runs_dir(), sep=chr(10))", tmp_path)
    assert done.stdout.splitlines() == [str(checkout), str(checkout / "data" / "runs")], done.stderr
    (checkout / "litrev" / "edited.py").write_text("value = 'after an edit'")
    assert run(installed, "from litrev import edited; print(edited.value)", tmp_path).stdout == "after an edit\n"


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_folder_is_installed(installed, tmp_path, name):
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    found = run(installed, code, tmp_path).stdout
    assert str(installed[0]) not in found


def test_it_asks_for_the_packages_of_requirements_in(installed):
    about = PathDistribution(next(installed[1].glob("litrev-*.dist-info")))
    assert sorted(about.requires) == lock.wishes(ROOT / "requirements.in")
    assert about.metadata["Requires-Python"] == ">=3.11"


def test_without_its_checkout_it_says_how_to_install(tmp_path):
    shutil.copytree(ROOT / "litrev", tmp_path / "litrev")
    code = "from litrev import paths; paths.root()"
    done = subprocess.run([sys.executable, "-c", code], env=clean(), cwd=tmp_path, capture_output=True, text=True)
    assert (
        f"litrev in {tmp_path} is without its data: install it with `pip install -e .` in the checkout" in done.stderr
    )

"""Nothing that readers set for their pip, uv, conda, Python, Jupyter or locale gets through; sources of packages do."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from launchers import HOSTILE, ROOT, launcher

from tools.python import sources

TOOLS = ROOT / "tools" / "python"
SOURCES = {
    "PIP_CERT": "/c.pem",
    "PIP_EXTRA_INDEX_URL": "https://extra",
    "PIP_INDEX_URL": "https://mirror/simple",
    "PIP_NO_INDEX": "1",
    "PIP_PROXY": "http://proxy",
    "UV_CACHE_DIR": "/room",
    "UV_DEFAULT_INDEX": "https://mirror/simple",
    "UV_HTTP_TIMEOUT": "600",
    "UV_INDEX_MIRROR_PASSWORD": "secret",
    "UV_NATIVE_TLS": "1",
    "HTTPS_PROXY": "http://proxy",
    "SSL_CERT_FILE": "/c.pem",
}


def variables_after(script, environment):
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_settings_are_forgotten_and_sources_are_kept():
    here = {"PATH": os.environ["PATH"], "LITREV_DEVICE": "cpu", "MANY": "lines\nPIP_USER=no"}
    left = variables_after(f". '{TOOLS}/forget_settings.sh'; env", HOSTILE | SOURCES | here)
    assert not set(left) & (set(HOSTILE) - {"LANG", "LC_ALL", "PIP_USER"}), "PIP_USER: a line of MANY"
    assert {name: left[name] for name in SOURCES} == SOURCES
    assert left["LITREV_DEVICE"] == "cpu" and left["PATH"] == here["PATH"]


def test_a_launcher_starts_python_as_it_was_made(tmp_path):
    code = (
        "import json, os, sys; print(json.dumps([sys.flags.optimize, sys.flags.utf8_mode, sys.path, dict(os.environ)]))"
    )
    script = launcher(tmp_path, f"-c '{code}'")
    done = subprocess.run([script], env=os.environ | HOSTILE, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    optimize, utf8, path, environment = json.loads(done.stdout)
    assert optimize == 0 and utf8 == 1 and str(tmp_path / "launcher.runfiles" / "litrev") in path
    assert not [value for value in environment.values() if value.startswith("/no/")]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_what_the_terminal_cannot_print_ends_nothing(tmp_path, encoding):
    script = launcher(tmp_path, """-c 'print("0.5 \u00b1 0.1, \u2212\u03c3, J\u00f6rg, \\ud800")'""")
    done = subprocess.run([script], env=os.environ | HOSTILE | {"PYTHONIOENCODING": encoding}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == "0.5 \u00b1 0.1, \u2212\u03c3, J\u00f6rg, \\ud800\n"


def test_a_live_command_runs_on_the_checkout_where_it_was_typed(tmp_path):
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "else where"
    (checkout / "lab").mkdir(parents=True)
    (checkout / "lab" / "runs.py").write_text("import os, json; print(os.getcwd(), os.environ['LITREV_ROOT'])")
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('the reader has a file of this name')")
    script = launcher(tmp_path, "-P -m lab.runs", live=True)
    told = {"BUILD_WORKSPACE_DIRECTORY": str(checkout), "BUILD_WORKING_DIRECTORY": str(elsewhere)}
    done = subprocess.run([script, "list"], env=os.environ | HOSTILE | told, capture_output=True, text=True)
    assert done.stdout == f"{elsewhere} {checkout}\n", done.stderr
    nowhere = {name: value for name, value in os.environ.items() if not name.startswith("BUILD_")}
    done = subprocess.run([script], env=nowhere, capture_output=True, text=True)
    assert done.returncode and "Start this with Bazel" in done.stderr


def uv_wheel(folder):
    """A wheel in uv's place, offline: it tells its version, names this Python, or shows its environment."""
    find = f'echo uv 99.1.0; exit; fi; if [ "$1 $2" = "python find" ]; then echo {sys.executable}; exit; fi'
    info, name = "uv-99.1.0.dist-info", "uv-99.1.0-py3-none-any.whl"
    files = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: uv\nVersion: 99.1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "uv-99.1.0.data/scripts/uv": f'#!/bin/sh\nif [ "$1" = --version ]; then {find}; env\n',
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for file, content in files.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o100755 << 16
            wheel.writestr(entry, content)
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


@pytest.fixture
def machine(tmp_path):
    """A home whose pip.conf names a source and much else, this Python as python3, no recent uv; what is pinned."""
    for name in ("bin", "home/.pip", "wheels", "work", "pins"):
        (tmp_path / name).mkdir(parents=True)
    conf = f"[global]\nfind-links = {tmp_path}/wheels\nno-index = true\nquiet = 3\n"
    (tmp_path / "home/.pip/pip.conf").write_text(conf + "[install]\nuser = true\nroot = /no/root\n")
    for name, script in (("python3", f'exec "{sys.executable}" "$@"'), ("uv", "echo uv 0.1.0")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("forget_settings.sh", "platform.sh", "sources.py"):
        (tmp_path / "pins" / name).symlink_to(TOOLS / name)
    pin = f"uv==99.1.0 --hash=sha256:{uv_wheel(tmp_path / 'wheels')}\n"
    (tmp_path / "pins/uv_requirements.txt").write_text(pin)
    return tmp_path


def test_uv_is_installed_under_hostile_settings(machine):
    path = f"{machine}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    environment = HOSTILE | {"HOME": str(machine / "home"), "PATH": path, "UV_INDEX": "https://here"}
    command = ["sh", TOOLS / "get_uv.sh", machine / "pins/uv_requirements.txt"]
    done = subprocess.run(command, env=environment, cwd=machine / "work", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "using uv 99.1.0" in done.stderr and "could not" not in done.stderr
    assert not Path("/no").exists()
    seen = subprocess.run([machine / "work/uv", "sync"], env=environment, capture_output=True, text=True).stdout
    assert "UV_INDEX=https://here\n" in seen and f"UV_CONFIG_FILE={machine}/work/uv.toml\n" in seen
    assert "UV_TORCH_BACKEND" not in seen and "UV_EXCLUDE_NEWER" not in seen and "VIRTUAL_ENV" not in seen


def test_of_uvs_own_files_the_sources_count(tmp_path, monkeypatch):
    given = """
        no-binary = true
        resolution = "lowest"
        native-tls = true
        python-preference = "only-system"
        [[index]]
        name = "here"
        url = "https://here/simple"
        default = true
        [pip]
        target = "/no/target"
        find-links = ["/wheels"]
        """
    (tmp_path / "theirs.toml").write_text(given)
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "theirs.toml"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://pips")
    index = '[{"name" = "here", "url" = "https://here/simple", "default" = true}]'
    sources.main("uv", str(tmp_path / "ours.toml"))
    lines = set((tmp_path / "ours.toml").read_text().splitlines())
    assert lines == {"native-tls = true", f"index = {index}", 'find-links = ["/wheels"]'}
    (tmp_path / "theirs.toml").write_text("resolution = 'lowest'")
    sources.main("uv", str(tmp_path / "ours.toml"))
    assert (tmp_path / "ours.toml").read_text() == 'index-url = "https://pips"\n', "where pip gets them, so does uv"
    (tmp_path / "theirs.toml").write_text("not toml")
    sources.main("uv", str(tmp_path / "ours.toml"))
    assert (tmp_path / "ours.toml").read_text() == 'index-url = "https://pips"\n'

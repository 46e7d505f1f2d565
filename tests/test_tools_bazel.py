"""tools/bazel on machines that have, or lack, this and that: a PATH of stand-ins, so nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
BAZEL = '#!/bin/sh\nif [ "$1" = --version ]; then echo bazel {version}; else echo {name} got: "$@"; fi\n'


class Machine:
    """A folder as PATH, with the tools that every machine has; `add` puts a stand-in there."""

    def __init__(self, folder):
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.environment = {"PATH": str(self.folder), "HOME": str(folder), "D": str(self.folder)}
        for name in ("sh", "dirname", "ls", "cat", "chmod", "mkdir", "env", "tr", "uname"):
            (self.folder / name).symlink_to(shutil.which(name))
        self.add("id", "echo 1000")

    def add(self, name, script):
        path = self.folder / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def bazel(self, name, version="no_version"):
        return self.add(name, BAZEL.format(name=name, version=version))

    def run(self, *arguments, checkout=ROOT, **variables):
        command = [str(self.folder / "sh"), str(checkout / "tools" / "bazel"), *arguments]
        return subprocess.run(
            command,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=20,
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def makes(name):
    """The shell code with which a stand-in of a package manager 'installs' the Bazel called `name`."""
    return f"echo '#!/bin/sh' >$D/{name}; echo 'echo {name} got: \"$@\"' >>$D/{name}; chmod +x $D/{name}"


@pytest.mark.parametrize("name", ["bazel-real", "bazel-4", "bazelisk", "bazel"])
def test_the_bazel_that_is_there_is_used(machine, name):
    machine.bazel(name)
    assert machine.run("run", "jupyterlab").stdout == f"{name} got: run jupyterlab\n"


def test_the_binary_of_a_wrapper_comes_first(machine):
    machine.bazel("bazelisk")
    real = machine.bazel("7.7.1-downloaded", "7.7.1")
    assert "7.7.1-downloaded got:" in machine.run("build", BAZEL_REAL=str(real)).stdout


def test_a_wrapper_without_bazel_is_not_asked_again(machine):
    machine.add("bazel", f'BAZEL_REAL=$D/bazel-7.7.1 exec sh "{ROOT}/tools/bazel" "$@"')
    assert machine.run("build").returncode == 1
    machine.bazel("bazel-4")
    assert machine.run("build").stdout == "bazel-4 got: build\n"


def test_flags_of_a_version(machine):
    machine.bazel("bazel-real", "7.7.1")
    workspace = machine.run("test", "//...").stdout
    assert "bazel7.bazelrc test //..." in workspace
    assert "bazelrc" not in machine.run("test", "--registry=file:///r", "//...").stdout
    assert (ROOT / "tools" / "bazel7.bazelrc").read_text() == "common --noenable_bzlmod\n"


def test_homebrew_is_asked_first(machine):
    machine.add("brew", f'echo "brew $*"; {makes("bazelisk")}')
    machine.add("npm", "exit 9")
    done = machine.run("build")
    assert done.stdout == "bazelisk got: build\n"
    assert (
        "litrev: no Bazel here: installing Homebrew's bazelisk" in done.stderr
        and "brew install bazelisk" in done.stderr
    )


def test_apt_as_root_renews_its_lists_when_they_are_old(machine):
    machine.add("id", "echo 0")
    install = f"[ -e $D/lists ] && {{ {makes('bazel-4')}; }}"
    update = f'echo "apt-get $*"; case "$1" in update) : >$D/lists;; install) {install};; esac'
    machine.add("apt-get", update)
    done = machine.run("build")
    assert done.stdout == "bazel-4 got: build\n"
    assert [line.split()[1] for line in done.stderr.splitlines() if line.startswith("apt-get")] == [
        "install",
        "update",
        "install",
    ]
    assert "litrev: no Bazel here: installing Debian's" in done.stderr
    assert "apt-get install bazel-bootstrap python3-venv" in done.stderr


def test_apt_with_sudo(machine):
    machine.add("sudo", 'echo "sudo $1" >&2; [ "$1" = -n ] && shift; "$@"')
    machine.add("apt-get", makes("bazel-4"))
    done = machine.run("build")
    assert done.stdout == "bazel-4 got: build\n" and "sudo -n" in done.stderr


def test_npm_when_there_is_nothing_else(machine, tmp_path):
    machine.add("apt-get", "exit 9")  # and neither root nor sudo
    script = 'echo "npm $*"; mkdir -p "$3/node_modules/.bin"; ' + makes("bazelisk").replace(
        "$D", '"$3/node_modules/.bin"'
    )
    machine.add("npm", script)
    for _ in range(2):
        done = machine.run("build")
        assert done.stdout == "bazelisk got: build\n"
    assert "npm install" not in done.stderr, "the second time it is there"
    assert (tmp_path / ".cache/litrev/bazelisk/node_modules/.bin/bazelisk").exists()


def test_a_machine_with_nothing_is_told_what_to_install(machine):
    done = machine.run("build")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("litrev: there is no Bazel and none could be installed. Install bazelisk")


def copied(folder):
    """A checkout at `folder`, of as much as runs before Bazel."""
    (folder / "tools" / "python").mkdir(parents=True)
    for name in ("bazel", "bazel7.bazelrc", "python/platform.sh"):
        shutil.copy(ROOT / "tools" / name, folder / "tools" / name)
    return folder


@pytest.mark.parametrize("name", ["a blank", "J\u00f6rg", "\u65e5\u672c", "e\u0301", "a\ttab", "a:colon"])
def test_a_path_that_bazel_cannot_have_gets_one_sentence(machine, tmp_path, name):
    machine.bazel("bazel")
    done = machine.run("run", "jupyterlab", checkout=copied(tmp_path / name / "litrev"))
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("litrev: Bazel needs a path of ASCII characters without blanks and colons, which ")
    assert f"{name}/litrev is not: move the checkout" in done.stderr


@pytest.mark.parametrize("name", ["plain", "quo'te", 'do"llar$(x)', "par(en)", "a%20b,c=d", "a*[b]", "a;b&c", "~tilde"])
def test_other_paths_are_no_trouble(machine, tmp_path, name):
    machine.bazel("bazel")
    assert machine.run("build", checkout=copied(tmp_path / name)).stdout == "bazel got: build\n"


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "USER"])
def test_bazels_own_folder_is_not_made_of_what_it_cannot_have(machine, variable):
    machine.bazel("bazel")
    for name in ("/home/J\u00f6rg", "/home/a b"):
        assert (
            machine.run("build", **{variable: name}).stdout
            == "bazel got: --output_user_root=/var/tmp/litrev-bazel-1000 build\n"
        )
    assert machine.run("--output_base=/b", "build", HOME="/a b").stdout == "bazel got: --output_base=/b build\n"


def test_a_shell_with_cdpath(machine):
    machine.bazel("bazel", "7.7.1")
    done = machine.run("build", CDPATH=f"{ROOT}:/")
    assert done.stdout == f"bazel got: --bazelrc={ROOT.resolve()}/tools/bazel7.bazelrc build\n"


def test_an_unfit_machine_is_told_before_bazel_is_fetched(machine):
    (machine.folder / "uname").unlink()
    machine.add("uname", 'if [ "$1" = -s ]; then echo Darwin; else echo x86_64; fi')
    machine.add("brew", "echo brew")
    done = machine.run("run", "jupyterlab")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("litrev: this is a Mac with an Intel processor.") and done.stderr.count("\n") == 1

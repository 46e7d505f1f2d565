"""Machines that the pinned packages are not made for get one sentence: stand-ins tell what machine it is."""

import subprocess

import pytest
from launchers import ROOT

HERE = "PyTorch needs a Mac with Apple silicon and macOS 14 or newer, or 64-bit Linux on x86-64 or arm64"
LINUX = {"uname": ("Linux", "x86_64"), "getconf": ("glibc 2.36", "64")}
MAC = {"uname": ("Darwin", "arm64"), "sw_vers": "14.0", "sysctl": "1"}


def told(tmp_path, answers):
    """What platform.sh says where commands answer so: a text, or uname's (-s, -m), getconf's (libc, bits)."""
    for name, answer in answers.items():
        first, second = answer if isinstance(answer, tuple) else (answer, answer)
        script = f'#!/bin/sh\ncase "$1" in -s|GNU*) echo "{first}";; *) echo "{second}";; esac\n'
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    command = ["/bin/sh", ROOT / "tools/python/platform.sh"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.stdout == "" and done.returncode == (1 if done.stderr else 0)
    return done.stderr


@pytest.mark.parametrize("glibc", ["2.28", "2.29", "2.36", "2.41", "2.100", "3.0"])
@pytest.mark.parametrize("cpu", ["x86_64", "aarch64"])
def test_linux_that_is_supported(tmp_path, cpu, glibc):
    assert not told(tmp_path, {"uname": ("Linux", cpu), "getconf": (f"glibc {glibc}", "64")})


@pytest.mark.parametrize("version", ["14.0", "14.7.1", "15.3", "26.1"])
def test_macs_that_are_supported(tmp_path, version):
    assert not told(tmp_path, MAC | {"sw_vers": version})


@pytest.mark.parametrize(
    "answers, why",
    [
        (MAC | {"sw_vers": "13.6.9"}, "this is macOS 13.6.9."),
        (MAC | {"sw_vers": "12.7"}, "this is macOS 12.7."),
        (MAC | {"sw_vers": "10.16"}, "this is macOS 10.16."),
        (MAC | {"uname": ("Darwin", "x86_64"), "sysctl": "0"}, "this is a Mac with an Intel processor."),
        (MAC | {"uname": ("Darwin", "x86_64"), "sysctl": "1"}, "this shell runs as on an Intel Mac (Rosetta)."),
        (LINUX | {"getconf": ("glibc 2.27", "64")}, "this Linux has glibc 2.27."),
        (LINUX | {"getconf": ("glibc 2.17", "64")}, "this Linux has glibc 2.17."),
        (LINUX | {"getconf": ("glibc 2.9", "64")}, "this Linux has glibc 2.9."),
        (LINUX | {"getconf": ("undefined", "64"), "ldd": "musl libc (x86_64)"}, "this Linux has musl"),
        (LINUX | {"uname": ("Linux", "aarch64"), "getconf": ("glibc 2.36", "32")}, "this is a 32-bit Linux."),
        (LINUX | {"uname": ("Linux", "i686")}, "this is Linux on i686."),
        (LINUX | {"uname": ("Linux", "armv7l")}, "this is Linux on armv7l."),
        (LINUX | {"uname": ("Linux", "riscv64")}, "this is Linux on riscv64."),
        ({"uname": ("MINGW64_NT-10.0-19045", "x86_64")}, "this is a shell of Windows."),
        ({"uname": ("CYGWIN_NT-10.0", "x86_64")}, "this is a shell of Windows."),
        ({"uname": ("FreeBSD", "amd64")}, "this is FreeBSD."),
    ],
)
def test_others_get_one_sentence(tmp_path, answers, why):
    said = told(tmp_path, answers)
    assert said.startswith(f"litrev: {why}") and HERE in said and said.count("\n") == 1


def test_what_a_machine_does_not_tell_is_no_objection(tmp_path):
    assert not told(tmp_path, {})
    assert not told(tmp_path, {"uname": ("Linux", "x86_64")})

"""The scripts that Bazel writes for python_program, made from tools/python/rules.bzl without Bazel."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))

# What readers have in their shells for other purposes, each of which once broke or changed something.
HOSTILE = {
    "CONDA_PREFIX": "/no/conda",
    "IPYTHONDIR": "/no/ipython",
    "JUPYTERLAB_DIR": "/no/lab",
    "JUPYTERLAB_SETTINGS_DIR": "/no/settings",
    "JUPYTER_CONFIG_DIR": "/no/config",
    "JUPYTER_CONFIG_PATH": "/no/config",
    "JUPYTER_PATH": "/no/data",
    "JUPYTER_RUNTIME_DIR": "/no/runtime",
    "JUPYTER_TOKEN": "",
    "LANG": "C",
    "LC_ALL": "C",
    "MATPLOTLIBRC": "/no/matplotlibrc",
    "MPLBACKEND": "TkAgg",
    "MPLCONFIGDIR": "/no/matplotlib",
    "PIP_NO_BINARY": ":all:",
    "PIP_QUIET": "3",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_TARGET": "/no/target",
    "PIP_USER": "1",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONHOME": "/no/python",
    "PYTHONIOENCODING": "ascii",
    "PYTHONOPTIMIZE": "2",
    "PYTHONPATH": "/no/packages",
    "PYTHONSTARTUP": "/no/startup.py",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
    "UV_EXCLUDE_NEWER": "2020-01-01",
    "UV_NO_BINARY": "1",
    "UV_PYTHON": "3.8",
    "UV_TORCH_BACKEND": "cpu",
    "VIRTUAL_ENV": "/no/venv",
}


def launcher(folder: Path, command: str, live: bool = False) -> Path:
    """A launcher in `folder` of `python COMMAND`, with runfiles that are links to the sources."""
    rules = (ROOT / "tools/python/rules.bzl").read_text()
    template, live_part = (re.search(rf'{name} = """(.*?)"""', rules, re.DOTALL)[1] for name in ("_LAUNCHER", "_LIVE"))
    script, runfiles = folder / "launcher", folder / "launcher.runfiles"
    (runfiles / "litrev").mkdir(parents=True)
    for name in ("lab", "litrev", "tools"):
        (runfiles / "litrev" / name).symlink_to(ROOT / name)
    python = runfiles / "python"
    python.write_text(f'#!/bin/sh\nexport PYTHONNOUSERSITE=1\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    template = template.replace("${{TEST_SRCDIR:-$0.runfiles}}", str(runfiles))  # TEST_SRCDIR is that of this test
    parts = {"forget": "tools/python/forget_settings.sh", "python": "../python", "workspace": "litrev"}
    script.write_text(template.format(command=command, live=live_part if live else "", exports="", **parts))
    script.chmod(0o755)
    return script

"""Jupyter's own folders and the one kernel, so that nothing the reader's other Jupyters hold gets into a notebook."""

import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

# An edit of litrev or lab counts from the next cell on.
RELOAD = ["--ext=autoreload", "--InteractiveShellApp.exec_lines=%autoreload 2"]
QUIET = ["--log-level=40"]  # no warning that messages, which never leave this machine, are not encrypted
FOREIGN = ("JUPYTER", "JPY_", "IPYTHON", "MPL", "MATPLOTLIBRC")  # variables that set up the reader's other Jupyters


def checkout() -> Path:
    """The source tree, where edits are saved: known to what `bazel run` starts.

    Raises RuntimeError when started in another way.
    """
    if folder := os.environ.get("BUILD_WORKSPACE_DIRECTORY"):
        return Path(folder)
    raise RuntimeError("Start this with Bazel, which says where the checkout is: tools/bazel run jupyterlab")


def cache(root: Path) -> Iterator[Path]:
    """Folders for what the checkout cannot hold: one of the reader's cache, then a temporary one."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(home) / "litrev" / f"{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"
    with suppress(OSError):
        yield Path(tempfile.mkdtemp(prefix="litrev-"))


def writable(folder: Path) -> bool:
    """Whether a file can be made in `folder`. Only trying tells: permissions say nothing of a read-only disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return True
    except OSError:
        return False


def private(folder: Path) -> bool:
    """Whether `folder` keeps files for their owner alone and locks: Jupyter insists on the one, SQLite on the other.

    FAT and many network disks do not.
    """
    if not writable(folder):
        return False
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            os.chmod(file.name, 0o600)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.stat(file.name).st_mode & 0o777 == 0o600
    except OSError:
        return False


def state_folder(root: Path) -> Path:
    """Where Jupyter keeps its files: in the checkout if that suits, else in a cache.

    Raises RuntimeError when nothing can be written at all.
    """
    for suits in (private, writable):
        for folder in chain([root / ".jupyter"], (other / "jupyter" for other in cache(root))):
            if suits(folder):
                return folder
    raise RuntimeError("JupyterLab needs a folder to write to: free some space, or set XDG_CACHE_HOME to one.")


def environment(root: Path, state: Path) -> dict[str, str]:
    """What kernels and JupyterLab's terminals find in their environment, besides what was there."""
    variables = {
        # `!python -m lab.runs list` in a cell is this Python.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "LITREV_ROOT": str(root),
        "PYTHONPATH": str(root),  # `import litrev` is the live source
        "IPYTHONDIR": str(state / "ipython"),
        "MPLCONFIGDIR": str(state / "matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONUTF8": "1",  # what a cell or a tool writes does not depend on the reader's locale
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's remark at start-up
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",  # heeded only if set before torch is imported
        # A thread that waits for the others sleeps instead of spinning, which on a busy machine is at their cost.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if sys.platform == "linux":
        # glibc hands every large tensor back to the system and has it zeroed again: 10-65 % of the training time.
        variables |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    return variables


def prepare(root: Path, state: Path) -> None:
    """Makes Jupyter's folders under `state` and points this process, before it imports Jupyter, at them.

    The kernel `python3` is this Python, and inherits the environment above.
    """
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ.update(environment(root, state))
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *RELOAD, *QUIET],
        "display_name": "Python 3",
        "language": "python",
        "metadata": {"debugger": True},
    }
    folder = state / "data" / "kernels" / "python3"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.json").write_text(json.dumps(spec, indent=1))
    for name in ("config", "data", "runtime"):
        os.environ[f"JUPYTER_{name.upper()}_DIR"] = str(state / name)
    os.environ["JUPYTER_PATH"] = str(state / "data")  # comes first in the search for kernels
    if not private(state):  # no disk here keeps a file for its owner alone, and Jupyter would give up
        os.environ["JUPYTER_ALLOW_INSECURE_WRITES"] = "true"
    forget_system_folders()


def forget_system_folders() -> None:
    """Settings and kernels in /etc/jupyter and /usr/share/jupyter belong to other Jupyters."""
    from jupyter_core import paths

    paths.SYSTEM_CONFIG_PATH.clear()
    paths.SYSTEM_JUPYTER_PATH.clear()

"""Jupyter's own folders and the one kernel, so that nothing the reader's other Jupyters hold gets into a notebook."""

import json
import os
import sys
from pathlib import Path

# An edit of litrev or lab counts from the next cell on.
RELOAD = ["--ext=autoreload", "--InteractiveShellApp.exec_lines=%autoreload 2"]
QUIET = ["--log-level=40"]  # no warning that messages, which never leave this machine, are not encrypted


def checkout() -> Path:
    """The source tree, where edits are saved: known to what `bazel run` starts.

    Raises RuntimeError when started in another way.
    """
    if folder := os.environ.get("BUILD_WORKSPACE_DIRECTORY"):
        return Path(folder)
    raise RuntimeError("Start this with Bazel, which says where the checkout is: tools/bazel run jupyterlab")


def environment(root: Path, state: Path) -> dict[str, str]:
    """What kernels and JupyterLab's terminals find in their environment, besides what was there."""
    variables = {
        "LITREV_ROOT": str(root),
        "PYTHONPATH": str(root),  # `import litrev` is the live source
        "IPYTHONDIR": str(state / "ipython"),
        "MPLCONFIGDIR": str(state / "matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's remark at start-up
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",  # heeded only if set before torch is imported
    }
    if sys.platform == "linux":
        # glibc hands every large tensor back to the system and has it zeroed again: 10-65 % of the training time.
        variables |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    return variables


def prepare(root: Path, state: Path) -> None:
    """Makes Jupyter's folders under `state` and points this process, before it imports Jupyter, at them.

    The kernel `python3` is this Python, and inherits the environment above.
    """
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
    for name in ("JUPYTER_CONFIG_PATH", "JUPYTERLAB_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
        os.environ.pop(name, None)
    forget_system_folders()


def forget_system_folders() -> None:
    """Settings and kernels in /etc/jupyter and /usr/share/jupyter belong to other Jupyters."""
    from jupyter_core import paths

    paths.SYSTEM_CONFIG_PATH.clear()
    paths.SYSTEM_JUPYTER_PATH.clear()

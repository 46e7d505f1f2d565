"""Processes that measure: each with one thread, its own memory and its own imports. Nothing here imports torch, so that
the process that asks stays small: on Linux a child's peak of memory starts at what its parent had."""

import importlib
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tools.jupyter import kernel

INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")  # of x86, the widest first
IMPORT = "import time\nbefore = time.process_time()\n{}\nprint(time.process_time() - before)"


def environment() -> dict[str, str]:
    """What all children find in their environment: one thread, and the launcher's settings of malloc, for peers too."""
    launcher = kernel.environment(Path(), Path())
    malloc = {name: value for name, value in launcher.items() if name.startswith("MALLOC_")}
    quiet = {"TQDM_DISABLE": "1", "DIFFUSERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "KINETO_LOG_LEVEL": "99"}
    return malloc | quiet | {"OMP_NUM_THREADS": "1", "LITREV_DEVICE": "cpu"}


class Child:
    """An object `what` ("module:name", called with `args`) in a process of its own, used in a `with`.

    What goes wrong there is raised here, by `call`; a failure to make the object as BrokenProcessPool.
    """

    def __init__(self, what: str, *args):
        os.environ.update(environment())  # malloc's settings count only from a process's start
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _make, (what, args))

    def call(self, method: str, *args):
        """Return what the object's method answers to these arguments."""
        return self.pool.submit(_call, method, args).result()

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.pool.shutdown()


_made = None  # in a child: its object


def _make(what: str, args: tuple) -> None:
    global _made
    module, name = what.split(":")
    _made = getattr(importlib.import_module(module), name)(*args)


def _call(method: str, args: tuple):
    return getattr(_made, method)(*args)


def import_seconds(code: str) -> float:
    """Return the CPU seconds that the import statements `code` take in a fresh process."""
    command = [sys.executable, "-c", IMPORT.format(code)]
    done = subprocess.run(command, env=os.environ | environment(), capture_output=True, text=True, check=True)
    return float(done.stdout)


def spread(values: list[float]) -> dict:
    """Return the median, lowest and highest of some measurements, with four digits."""
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def machine() -> dict:
    """Return what computes here: processor, cores, system, Python; no name of the host."""
    system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    return {"processor": _processor(), "cores": os.cpu_count(), "system": system, "python": platform.python_version()}


def _processor(info: Path = Path("/proc/cpuinfo")) -> str:
    if sys.platform == "darwin":
        return subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        ).stdout.strip()
    lines = info.read_text().splitlines() if info.exists() else []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = found.get("flags", "").split()
    widest = next((f" ({flag})" for flag in INSTRUCTIONS if flag in flags), "")  # clouds give one name to several
    return found.get("model name", platform.machine()) + widest

"""How long a reader waits: for a notebook's first figure, and for Run All from shipped runs; alone, or beside other
work."""

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError

from bench import children
from tools.jupyter import execute, kernel, notebooks

WAITS = ("launcher", "none")  # how threads wait for each other: as the launcher says, or as PyTorch comes
SPIN = [sys.executable, "-c", "while True: pass"]


def names(root: Path) -> list[str]:
    """Return the names of all notebooks of a checkout."""
    return sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))


def waiting(name: str, root: Path, waits: str = "launcher", busy: bool = False) -> dict:
    """Return how long the kernel's start, the first figure and Run All of a notebook took, in seconds from the start of
    the kernel, and the CPU seconds of all, which shows what its threads spin.

    `waits` is one of WAITS; `busy`: beside as many spinning processes as there are cores. Raises RuntimeError where a
    cell fails, or makes anew what should have been shipped: that is another waiting time.
    """
    with (
        work_beside(os.cpu_count() if busy else 0),
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one,
    ):
        found = one.submit(_run, root, name, waits).result()
    if unshipped := found.pop("unshipped"):
        raise RuntimeError(f"{name} made {', '.join(unshipped)} anew, which is not shipped, or not of the code of now.")
    key = {"name": name, "processor": children.machine()["processor"], "waits": waits, "busy": busy}
    return key | found | {"cores": os.cpu_count(), "date": str(date.today())}


@contextmanager
def work_beside(processes: int) -> Iterator[None]:
    """As many processes that spin while the block runs."""
    others = [subprocess.Popen(SPIN) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _first_figure(cells: list[dict]) -> int:
    """The index of the first cell whose outputs show a picture, or how many cells there are."""
    pictures = [any("image/png" in output.get("data", ()) for output in cell.get("outputs", ())) for cell in cells]
    return (pictures + [True]).index(True)


def _run(root: Path, name: str, waits: str) -> dict:
    """What `waiting` says, measured in a process of its own, for its environment becomes the kernel's."""
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    with tempfile.TemporaryDirectory() as scratch:
        checkout = mirror(root, Path(scratch) / "checkout")
        kernel.prepare(checkout, Path(scratch) / "jupyter")
        os.environ |= {"LITREV_PRESET": "laptop", "LITREV_VOUCH": "", "LITREV_RUNS": str(Path(scratch) / "runs")}
        if waits == "none":
            del os.environ["OMP_WAIT_POLICY"]
        try:
            seconds = [second for second, _ in execute.run(notebook, checkout / "notebooks")]
        except CellExecutionError as error:  # cannot be pickled
            raise RuntimeError(f"{name} has a cell that failed:\n{error}") from None
    used, cells = resource.getrusage(resource.RUSAGE_CHILDREN), notebooks.code_cells(notebook)
    times = {"start": seconds[0], "figure": sum(seconds[: _first_figure(cells) + 2]), "all": sum(seconds)}
    times |= {"cpu": used.ru_utime + used.ru_stime}
    found = {key: float(f"{value:.3g}") for key, value in times.items()}
    printed = "\n".join(output.get("text", "") for cell in cells for output in cell["outputs"])
    return found | {"unshipped": notebooks.UNSHIPPED.findall(printed)}


def mirror(root: Path, folder: Path) -> Path:
    """Make a checkout of links to another: only the ledgers, which a notebook writes when it runs, are copies."""
    (folder / "notebooks").mkdir(parents=True)
    for entry in root.iterdir():
        if entry.name != "notebooks":
            (folder / entry.name).symlink_to(entry)
    if (ledgers := root / "notebooks" / "claims").exists():
        shutil.copytree(ledgers, folder / "notebooks" / "claims")
    return folder

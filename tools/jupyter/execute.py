"""Runs a notebook from top to bottom in a fresh kernel.

Usage: `execute NOTEBOOK [--preset laptop|smoke]` stores its outputs in the checkout; `execute NOTEBOOK --test`, which
Bazel's tests use, stores nothing and fails when the notebook takes too long.
"""

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from tools.jupyter import kernel, notebooks

TEST_CPU_SECONDS = 120  # a minute of two cores; not wall time, which depends on what else the machine does


def client_of(notebook: dict, folder: Path):
    """nbclient's client, which in addition prints what a cell prints while it runs."""
    from nbclient import NotebookClient

    class Client(NotebookClient):
        def output(self, outs, msg, *rest):
            if msg["msg_type"] == "stream":
                print(msg["content"]["text"], end="", flush=True)
            return super().output(outs, msg, *rest)

    options = {"timeout": None, "kernel_name": "python3", "record_timing": False, "coalesce_streams": True}
    return Client(notebook, resources={"metadata": {"path": str(folder)}}, **options)


def hand_on_interrupts(client) -> None:
    """Ctrl-C reaches the cell that runs, so that a training run can keep what it has; the cell then fails."""
    signal.signal(signal.SIGINT, lambda *_: client.km.provisioner.process.send_signal(signal.SIGINT))


def run(notebook: dict, folder: Path) -> list[tuple[float, str]]:
    """Runs all code cells with `folder` as their working folder and returns (seconds, first line) of each."""
    client, seconds = client_of(notebook, folder), []
    cells = [(index, cell) for index, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"]
    with client.setup_kernel():
        hand_on_interrupts(client)
        for number, (index, cell) in enumerate(cells, 1):
            first_line = (cell["source"].strip().splitlines() or [""])[0]
            print(f"[{number}/{len(cells)}] {first_line}", flush=True)
            start = time.monotonic()
            client.execute_cell(cell, index, execution_count=number)
            seconds.append((time.monotonic() - start, f"[{number}] {first_line}"))
            print(f"    {seconds[-1][0]:.1f} s", flush=True)
        client.set_widgets_metadata()
    return seconds


def execute_and_store(path: Path, preset: str) -> int:
    """Stores the outputs in the notebook, unless a cell failed or somebody changed its code meanwhile."""
    notebook = nbformat.read(path, as_version=4)
    before = notebooks.fingerprint(notebook)
    run(notebook, path.parent)
    if notebooks.fingerprint(nbformat.read(path, as_version=4)) != before:
        print(f"{path.name} was changed while it ran: nothing was stored. Run it again.", file=sys.stderr)
        return 1
    notebooks.tidy(notebook, preset)
    notebooks.store(notebook, path)
    found = notebooks.output_problems(notebook) + notebooks.form_problems(notebook, path.stat().st_size)
    print(f"{path.name}: stored, preset {preset}.", *(f"To mend before a commit: {line}" for line in found), sep="\n")
    return 0


def execute_as_test(path: Path, folder: Path) -> int:
    seconds = run(nbformat.read(path, as_version=4), folder)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, wall = usage.ru_utime + usage.ru_stime, sum(second for second, _ in seconds)
    print(f"{path.name}: {wall:.1f} s, {cpu:.1f} s of CPU. The slowest cells:")
    print("\n".join(f"{second:8.1f} s  {name}" for second, name in sorted(seconds, reverse=True)[:5]))
    if cpu > TEST_CPU_SECONDS:
        print(f"It may take {TEST_CPU_SECONDS} s of CPU at the preset smoke: make that preset's numbers smaller.")
        return 1
    return 0


def main(arguments: list[str]) -> int:
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    parser = argparse.ArgumentParser(prog="execute")
    parser.add_argument("notebook")
    parser.add_argument("--preset", choices=["laptop", "smoke"], default=os.environ.get("LITREV_PRESET", "laptop"))
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args(arguments)
    os.environ["LITREV_PRESET"] = "smoke" if options.test else options.preset
    root = Path.cwd() if options.test else kernel.checkout()
    with tempfile.TemporaryDirectory() as scratch:
        kernel.prepare(root, Path(scratch) / "jupyter")
        try:
            if options.test:
                return execute_as_test(root / options.notebook, Path(scratch))
            return execute_and_store(root / options.notebook, options.preset)
        except (CellExecutionError, DeadKernelError) as error:
            reason = (
                "was interrupted" if getattr(error, "ename", "") == "KeyboardInterrupt" else "has a cell that failed"
            )
            print(f"{error}\n{options.notebook} {reason}; the file is as it was.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

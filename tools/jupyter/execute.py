"""Runs a notebook from top to bottom in a fresh kernel.

`execute NOTEBOOK [--preset laptop|smoke] [--vouch NAME ...]` stores its outputs in the checkout; --vouch takes what is
kept under these names (or `all`) over for the code as it is now. `execute NOTEBOOK --test`, which Bazel's tests use,
stores nothing, tries the folded answers, and fails when the notebook takes too long; with `--rehearsal FILE` the kernel
first runs that file's `install()`, which pretends that there is an Apple GPU.
"""

import argparse
import os
import re
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from tools.jupyter import form, kernel, notebooks

TEST_CPU_SECONDS = 150  # a minute of two cores and a quarter for the rehearsal; wall time would depend on others


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


def aside(client, source: str) -> str:
    """Runs code in the kernel that is none of the notebook's, and returns what it printed."""
    cell = nbformat.v4.new_code_cell(source)
    client.nb["cells"].append(cell)
    try:
        client.execute_cell(cell, len(client.nb["cells"]) - 1, store_history=False)
    finally:
        client.nb["cells"].pop()
    return "".join(output["text"] for output in cell["outputs"] if output["output_type"] == "stream")


def install(client, rehearsal: Path) -> None:
    """Has `install()` of a file run in the kernel; no name of it is left among the notebook's."""
    aside(client, f"__import__('sys').path.insert(0, {str(rehearsal.parent)!r})")
    aside(client, f"__import__({rehearsal.stem!r}).install()")


def try_answer(client, yours: str, check: str, answer: str) -> None:
    """Puts the folded answer in the place of what the reader writes; raises AnswerError if the check denies it."""
    print("    the folded answer:", flush=True)
    aside(client, answer)
    said = aside(client, check)
    aside(client, yours)
    if not re.search(r"^Right\b", said, re.MULTILINE):
        raise form.AnswerError(f"{check}\n\nprints no line that begins with 'Right' for its folded answer:\n\n{answer}")


def run(notebook: dict, folder: Path, rehearsal: Path | None = None, test: bool = False) -> list[tuple[float, str]]:
    """Runs all code cells with `folder` as their working folder and returns the (seconds, name) of the kernel's start,
    then those of each cell, by its first line."""
    client, begun = client_of(notebook, folder), time.monotonic()
    cells = [(index, cell) for index, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"]
    written = {check: (yours, answer) for yours, check, answer in form.exercises(notebook["cells"])} if test else {}
    with client.setup_kernel():
        seconds = [(time.monotonic() - begun, "the kernel's start")]
        hand_on_interrupts(client)
        if rehearsal:
            install(client, rehearsal)
        for number, (index, cell) in enumerate(cells, 1):
            first_line = (cell["source"].strip().splitlines() or [""])[0]
            print(f"[{number}/{len(cells)}] {first_line}", flush=True)
            start = time.monotonic()
            client.execute_cell(cell, index, execution_count=number)
            if index in written:
                yours, answer = written[index]
                try_answer(client, notebook["cells"][yours]["source"], cell["source"], answer)
            seconds.append((time.monotonic() - start, f"[{number}] {first_line}"))
            print(f"    {seconds[-1][0]:.1f} s", flush=True)
        client.set_widgets_metadata()
    return seconds


def execute_and_store(path: Path, preset: str) -> int:
    """Stores the outputs in the notebook, unless a cell failed or somebody changed its code meanwhile."""
    if not kernel.writable(path.parent):
        print(f"{path.parent} cannot be written: execute {path.name} in a copy of the checkout.", file=sys.stderr)
        return 1
    notebook = nbformat.read(path, as_version=4)
    before = notebooks.fingerprint(notebook)
    run(notebook, path.parent)
    if notebooks.fingerprint(nbformat.read(path, as_version=4)) != before:
        print(f"{path.name} was changed while it ran: nothing was stored. Run it again.", file=sys.stderr)
        return 1
    notebooks.tidy(notebook, preset)
    notebooks.store(notebook, path)
    found = notebooks.output_problems(notebook) + form.problems(notebook, path.stat().st_size, path.stem)
    print(f"{path.name}: stored, preset {preset}.", *(f"To mend before a commit: {line}" for line in found), sep="\n")
    return 0


def execute_as_test(path: Path, folder: Path, rehearsal: Path | None) -> int:
    from nbclient.exceptions import CellExecutionError

    try:
        seconds = run(nbformat.read(path, as_version=4), folder, rehearsal, test=True)
    except CellExecutionError as error:
        if not rehearsal:
            raise
        print(f"{error}\nOn an Apple GPU, as {rehearsal.name} plays it, a cell of {path.name} fails.", file=sys.stderr)
        print("Once more, on the CPU:")
        run(nbformat.read(path, as_version=4), folder, test=True)
        print(f"On the CPU {path.name} runs through: see above what an Apple GPU would refuse.", file=sys.stderr)
        return 1
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, wall = usage.ru_utime + usage.ru_stime, sum(second for second, _ in seconds)
    print(f"{path.name}: {wall:.1f} s, {cpu:.1f} s of CPU. The slowest cells:")
    print("\n".join(f"{second:8.1f} s  {name}" for second, name in sorted(seconds, reverse=True)[:5]))
    if cpu > TEST_CPU_SECONDS:
        print(f"It may take {TEST_CPU_SECONDS} s of CPU at the preset smoke: make that preset's numbers smaller.")
        return 1
    return 0


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="execute")
    parser.add_argument("notebook")
    parser.add_argument("--preset", choices=["laptop", "smoke"], default=os.environ.get("LITREV_PRESET", "laptop"))
    parser.add_argument("--vouch", nargs="+", metavar="NAME", default=[], help="kept runs to take over, or `all`")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--rehearsal", type=Path, metavar="FILE", help="with --test: its install() runs in the kernel")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # what the terminal cannot print must not end the run
    options = options_of(arguments)
    os.environ |= {
        "LITREV_PRESET": "smoke" if options.test else options.preset,
        "LITREV_VOUCH": " ".join(options.vouch),
    }
    root = Path.cwd() if options.test else kernel.checkout()
    with tempfile.TemporaryDirectory() as scratch:
        kernel.prepare(root, Path(scratch) / "jupyter")
        try:
            if options.test:
                rehearsal = options.rehearsal and root / options.rehearsal
                return execute_as_test(root / options.notebook, Path(scratch), rehearsal)
            return execute_and_store(root / options.notebook, options.preset)
        except (CellExecutionError, DeadKernelError, form.AnswerError) as error:
            reason = (
                "was interrupted" if getattr(error, "ename", "") == "KeyboardInterrupt" else "has a cell that failed"
            )
            print(f"{error}\n{options.notebook} {reason}; the file is as it was.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Writes the lock files from what is wanted (`update`), and tells when they have parted (`check`).

The head of a lock holds two sums: one of the wishes it was made from, one of its own lines. So `check` needs no
network, and finds a changed requirements.in as well as a lock that was edited by hand.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

COMMAND = "tools/bazel run requirements.update"
HEAD = "# Written by: {command}\n# Wishes: {wishes}\n# Lines: {lines}\n"
READER, TESTS, BENCH, SURVEY = "requirements", "requirements_test", "requirements_bench", "requirements_survey"


def wishes(path: Path) -> list[str]:
    """The requirements of an .in file and of those it names by -r, sorted, without remarks and blank lines."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    included = [wish for line in lines if line.startswith("-r ") for wish in wishes(path.parent / line[3:].strip())]
    return sorted({line for line in lines if line and not line.startswith("-r ")} | set(included))


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def lock_lines(text: str) -> list[str]:
    """The lines that pin something: not the head."""
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins(text: str) -> set[str]:
    """{'numpy==2.4.0', ...}: markers, extras and hashes left out."""
    return set(re.findall(r"^([a-z0-9-]+==[^ ;\\]+)", re.sub(r"\[.*?\]", "", text), re.MULTILINE))


def of_names(folder: Path, lines: Iterable[str]) -> list[str]:
    """Those of some pins, or of a lock's lines, that are of packages which requirements.in names."""
    names = {re.split(r"[^A-Za-z0-9._-]", wish)[0] for wish in wishes(folder / f"{READER}.in")}
    return [line for line in lines if line.split("==")[0] in names]


def without_hashes(text: str) -> str:
    return re.sub(r" \\\n *--hash=\S+", "", text)


def with_head(text: str, wanted: list[str]) -> str:
    return HEAD.format(command=COMMAND, wishes=digest(wanted), lines=digest(lock_lines(text))) + text


def problems(folder: Path) -> list[str]:
    """One sentence for each thing that is wrong with the locks of a folder."""
    found = []
    for name in (READER, TESTS, BENCH, SURVEY):
        text = (folder / f"{name}_lock.txt").read_text()
        if f"# Wishes: {digest(wishes(folder / f'{name}.in'))}\n" not in text:
            found.append(f"{name}.in has changed since {name}_lock.txt was written. Run: {COMMAND}")
        elif f"# Lines: {digest(lock_lines(text))}\n" not in text:
            found.append(f"{name}_lock.txt was changed by hand. Run: {COMMAND}")
    reader = pins((folder / f"{READER}_lock.txt").read_text())
    for who, name, wanted in (("Tests lack", TESTS, reader), ("The bench lacks", BENCH, of_names(folder, reader))):
        apart = set(wanted) - pins((folder / f"{name}_lock.txt").read_text())
        if apart and not found:
            found.append(f"{who} versions that readers have: {', '.join(sorted(apart))}. Run: {COMMAND}")
    return found


def compile_lock(uv: Path, folder: Path, name: str, options: list[str], scratch: Path) -> Path:
    """Lets uv solve NAME.in for macOS and Linux, from the versions (not the hashes) of the lock that stands."""
    new = scratch / f"{name}_lock.txt"
    if (folder / new.name).exists():
        new.write_text(without_hashes((folder / new.name).read_text()))
    command = [uv, "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--quiet"]
    command += [*options, "--output-file", new, f"{name}.in"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    new.write_text(with_head(new.read_text(), wishes(folder / f"{name}.in")))
    return new


def replace(new: Path, target: Path) -> None:
    """Puts a file in its place at once: an interrupt leaves the old or the new one."""
    aside = target.with_suffix(".new")
    with open(aside, "wb") as file:
        file.write(new.read_bytes())
        os.fsync(file.fileno())
    os.replace(aside, target)


def update(uv: Path, folder: Path, options: list[str]) -> None:
    """Solves the larger set first: the reader's packages then take the versions that also suit the tests. The bench
    measures what readers have: those of requirements.in override what a peer asks for (dctorch, of k-diffusion, wants
    numpy<2, and runs with 2). The survey's environment stands alone."""
    with tempfile.TemporaryDirectory() as scratch:
        tests = compile_lock(uv, folder, TESTS, options, Path(scratch))
        reader = compile_lock(uv, folder, READER, [*options, "--constraint", str(tests)], Path(scratch))
        held = Path(scratch) / "held.txt"
        held.write_text("\n".join(of_names(folder, without_hashes(reader.read_text()).splitlines())) + "\n")
        bench = compile_lock(uv, folder, BENCH, [*options, "--overrides", str(held)], Path(scratch))
        survey = compile_lock(uv, folder, SURVEY, options, Path(scratch))
        for new in (tests, reader, bench, survey):
            before = pins((folder / new.name).read_text()) if (folder / new.name).exists() else set()
            print_changes(new.name, before, pins(new.read_text()))
            replace(new, folder / new.name)


def print_changes(name: str, before: set[str], after: set[str]) -> None:
    changes = [f"  - {pin}" for pin in sorted(before - after)] + [f"  + {pin}" for pin in sorted(after - before)]
    print(
        "\n".join([f"{name}: {len(after)} packages, {'no version changed' if not changes else 'changed:'}", *changes])
    )


def main(action: str, *arguments: str) -> int:
    if action == "check":
        found = problems(Path.cwd())
        print("\n".join(found) or "All locks belong to what is wanted.")
        return len(found)
    try:
        update(Path(arguments[0]).resolve(), Path(os.environ["BUILD_WORKSPACE_DIRECTORY"]), list(arguments[1:]))
    except subprocess.CalledProcessError:
        print("uv could not write the locks (see above); all are as they were.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

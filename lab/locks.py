"""One process at a time makes a run; the others wait and then find it. Where a disk allows no locks, they all go on."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the run at `path` for this process alone, after waiting for any other that has it; death releases it.

    Where the folder allows no locks (it is read-only, or on some network drives), go on without.
    """
    held = None
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _acquire(path.with_suffix(".lock"))
    try:
        for leftover in _leftovers(path) if held is not None else ():
            with suppress(OSError):
                leftover.unlink()
        yield
    finally:
        if held is not None:
            with suppress(OSError):
                path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(held)


def _leftovers(path: Path) -> list[Path]:
    """What a killed process has left: a file half written, the checkpoint of a run that it had just finished."""
    partial = path.with_suffix(".partial.safetensors")
    stale = path.exists() and partial.exists() and partial.stat().st_mtime_ns < path.stat().st_mtime_ns
    return [*path.parent.glob(f".{path.stem}*.safetensors.*"), *[partial] * stale]


def _acquire(path: Path) -> int | None:
    """Return a file descriptor that holds the lock file: the one at `path` now, not one its last holder removed; None
    after a hundred tries, on a disk that numbers a file anew each time. Raises OSError where locks are refused."""
    for _ in range(100):
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _wait(held, path)
            if path.exists() and path.stat().st_ino == os.fstat(held).st_ino:
                return held
        except OSError:
            os.close(held)
            raise
        os.close(held)
    return None


def _wait(held: int, path: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{path.stem} is in use by another process: waiting for it.")
        fcntl.flock(held, fcntl.LOCK_EX)

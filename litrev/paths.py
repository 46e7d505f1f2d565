"""Where the checkout and its folders are: the only module that knows."""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# The content is not on the disk. Any other error of a sync or a rename says that the file system has none.
LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE}


def root() -> Path:
    """Return the checkout: the folder in LITREV_ROOT if that is set, else the one that holds the litrev package.

    Raises RuntimeError where that has no data: the package was installed without its checkout.
    """
    if chosen := os.environ.get("LITREV_ROOT"):
        return Path(chosen)
    found = Path(__file__).resolve().parent.parent
    if not (found / "data").is_dir():
        raise RuntimeError(
            f"litrev in {found} is without its data: install it with `pip install -e .` in the checkout, "
            "or set LITREV_ROOT to that."
        )
    return found


def data_dir() -> Path:
    """Return the folder of shipped data."""
    return root() / "data"


def trained_dir() -> Path:
    """Return the folder of trained weights that come with the repository."""
    return data_dir() / "trained"


def runs_dir() -> Path:
    """Return the folder of this machine's own training runs: LITREV_RUNS if that is set, else data/runs."""
    chosen = os.environ.get("LITREV_RUNS")
    return Path(chosen) if chosen else data_dir() / "runs"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` so that a crash leaves the old file or the new, never a half.

    A file system that cannot sync or rename costs some of that safety, not the content: where it refuses to rename, the
    file is written in place. Raises OSError when the folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(aside, "xb") as file:  # its permissions follow the umask: no chmod, which some disks refuse
            file.write(content)
            file.flush()
            _unless_refused(os.fsync, file.fileno())
        if not _unless_refused(os.replace, aside, path):
            path.write_bytes(content)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _unless_refused(step: Callable, *arguments) -> bool:
    """Do a step that only makes writing safer; return False where the file system has no such thing."""
    try:
        step(*arguments)
    except OSError as error:
        if error.errno in LOST:
            raise
        return False
    return True

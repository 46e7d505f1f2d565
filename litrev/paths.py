"""Where the checkout and its folders are: the only module that knows."""

import os
import tempfile
from pathlib import Path


def root() -> Path:
    """Return the checkout: the folder in LITREV_ROOT if that is set, else the one that holds the litrev package."""
    chosen = os.environ.get("LITREV_ROOT")
    return Path(chosen) if chosen else Path(__file__).resolve().parent.parent


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

    Raises OSError when the folder cannot be written or the disk is full; no half-written file stays behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)  # mkstemp gives 0600, which would make a committed file unreadable for others
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise

"""Finished training runs: one checksummed safetensors file each, found again by the key of all that determines it.

Weights, loss history and description share a file, because a single rename then replaces all of it or nothing.
"""

import argparse
import copy
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lab import fingerprint
from litrev import device, paths

FORMAT = 1
SHIPPED_MB = 4


class Damaged(ValueError):
    """A file that is not the intact run it should be."""


class History(NamedTuple):
    """The mean training loss over the steps from the entry before up to `step`; both arrays have shape [n]."""

    step: np.ndarray
    loss: np.ndarray


@dataclass
class Run:
    """A finished run: `net` has the averaged (EMA) weights, to float16's precision, and is in eval mode on `device()`.

    It took `seconds` of training on `device`; `source` is 'trained now', "this machine's cache" or 'shipped'. Where the
    loss of another run or a measurement refers to a Run, its network counts.
    """

    key: str = field(compare=False)
    name: str = field(compare=False)
    seconds: float = field(compare=False)
    device: str = field(compare=False)
    source: str = field(compare=False)
    net: nn.Module = field(repr=False)
    history: History = field(compare=False, repr=False)
    tensors: dict[str, Tensor] = field(compare=False, repr=False)
    about: dict = field(compare=False, repr=False)

    @functools.cached_property
    def raw(self) -> nn.Module:
        """The network with the weights of the last step itself; RuntimeError where a shipped file leaves them out."""
        weights = section(self.tensors, "raw")
        if not weights:
            raise RuntimeError(f"{self.name} is shipped with its EMA weights only: fit(..., retrain=True) gives both.")
        return _loaded(copy.deepcopy(self.net), weights)


def restore(net: nn.Module, tensors: dict[str, Tensor], about: dict, source: str) -> Run:
    """Return the Run that a file holds, with its EMA weights loaded into `net`."""
    net = _loaded(net.to(device.device()).eval(), section(tensors, "ema"))
    history = History(tensors["history.step"].numpy(), tensors["history.loss"].numpy())
    return Run(*(about[fact] for fact in ("key", "name", "seconds", "device")), source, net, history, tensors, about)


def _loaded(net: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Load weights as they would be shipped, rounded to float16 where that holds them: so a network is the same, and
    what is measured of it, whether it was trained now, kept here, or shipped."""
    halves = {name: w.half().to(w.dtype) if w.dtype == torch.float32 else w for name, w in weights.items()}
    net.load_state_dict({name: half if half.isfinite().all() else weights[name] for name, half in halves.items()})
    return net


def say_loaded(run: Run) -> Run:
    """Print that a run was loaded, and how it was made; return it."""
    how = f"{run.source}, trained in {run.seconds / 60:.1f} min on {run.device}"
    print(f"{run.name}: loaded, not trained again ({how}; last loss {run.history.loss[-1]:.4g}).")
    return run


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix.`, by the rest of their names."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def pack(tensors: dict[str, Tensor], about: dict) -> bytes:
    """Return the content of a run file: safetensors with `about` (as JSON) and a checksum of all in its metadata."""
    tensors = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    text = json.dumps(about | {"format": FORMAT}, sort_keys=True)
    return safetensors.torch.save(tensors, {"about": text, "sha256": _checksum(tensors, text)})


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors of a run file and what it says about them; raises Damaged unless all is as it was packed."""
    try:
        metadata, tensors = _metadata(content), safetensors.torch.load(content)
        intact = metadata["sha256"] == _checksum(tensors, metadata["about"])
    except Exception as error:  # a damaged header can make the parsers raise nearly anything
        raise Damaged("is no complete run file") from error
    about = json.loads(metadata["about"]) if intact else {}
    if about.get("format") != FORMAT:
        raise Damaged("has a format unknown to this version of litrev" if intact else "does not match its checksum")
    return tensors, about


def _metadata(content: bytes) -> dict[str, str]:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name, t in sorted(tensors.items()):
        total.update(f"{name} {t.dtype} {list(t.shape)}".encode())
        total.update(fingerprint.raw_bytes(t))
    return total.hexdigest()


def location(folder: Path, name: str, key: str) -> Path:
    """Return where `folder` has the run `name` with this key."""
    return folder / f"{name}-{key[:12]}.safetensors"


def candidates(name: str, key: str) -> Iterator[tuple[dict, dict, str]]:
    """Yield tensors, facts and source of what is kept under a name and a key: this machine's, then the shipped one."""
    for folder, source in ((paths.runs_dir(), "this machine's cache"), (paths.trained_dir(), "shipped")):
        if found := read(location(folder, name, key), key):
            yield *found, source


def read(path: Path, key: str) -> tuple[dict, dict] | None:
    """Return the tensors and facts in `path`; None if it is missing, or damaged: then it is named and set aside."""
    try:
        tensors, about = unpack(path.read_bytes())
        if about["key"] != key:
            raise Damaged("belongs to another run")
        return tensors, about
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"{path.name} cannot be read ({error.strerror}), so it is not used.")
    except Damaged as fault:
        print(f"{path.name} {fault}: {_set_aside(path)}.")
    return None


def _set_aside(path: Path) -> str:
    if path.parent == paths.trained_dir():
        return f"it is not used; `git checkout -- data/trained/{path.name}` brings the shipped file back"
    numbered = (path.with_name(f"{path.name}.damaged-{n}") for n in range(1, 10**6))
    try:
        aside = path.replace(next(other for other in numbered if not other.exists()))
    except OSError:  # a folder that cannot be written
        return "it is not used"
    return f"it is set aside as {aside.name}"


def keep(path: Path, tensors: dict[str, Tensor], about: dict, otherwise: str) -> bool:
    """Write a run file, whole or not at all; where the disk is full or closed, say so and what happens `otherwise`."""
    content = pack(tensors, about)
    try:
        paths.write_atomically(path, content)
        return True
    except OSError as error:
        room = f"{len(content) / 1e6:.1f} MB needed{_free(path.parent)} in {path.parent}"
        remedy = "Make room, or set LITREV_RUNS to a folder elsewhere."
        tqdm.write(f"{about['name']}: cannot be saved, {error.strerror or error} ({room}). {otherwise} {remedy}")
        return False


def _free(folder: Path) -> str:
    try:
        return f", {shutil.disk_usage(folder).free / 1e6:.1f} MB free"
    except OSError:
        return ""


def kept(name: str = "") -> list[Path]:
    """Return the files of finished runs, of one name or all: this machine's, then the shipped ones."""
    pattern = re.compile(rf"{re.escape(name) or '.+'}-[0-9a-f]{{12}}\.safetensors")
    folders = (paths.runs_dir(), paths.trained_dir())
    return [path for folder in folders for path in sorted(folder.glob("*.safetensors")) if pattern.fullmatch(path.name)]


def facts(path: Path) -> dict:
    """Return what a run file says about itself; {} where it is damaged or cannot be read."""
    try:
        return unpack(path.read_bytes())[1]
    except (OSError, Damaged):
        return {}


def changes(name: str, description: dict) -> str:
    """Say how `description` differs from the most similar run kept under the same name; '' where there is none."""
    others = [about["description"] for path in kept(name) if (about := facts(path))]
    said = min((fingerprint.differences(other, description) for other in others), key=len, default=[])
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def ship(run: Run | str, raw: bool = False) -> Path:
    """Write a run to data/trained for the repository: float16, EMA weights (`raw`: both sets), at most 200 losses.

    `run` is a Run, or the name of one of this machine's; a measurement stays as it is. Raises ValueError where the name
    fits none or several, where the file would exceed 4 MB, or where a weight exceeds float16's range.
    """
    tensors, about = (run.tensors, run.about) if isinstance(run, Run) else _mine(run)
    sets = ("ema.", "raw.") if raw else ("ema.",)
    small = _shrunk(tensors, sets) if "history.step" in tensors else tensors
    content = pack(small, about)
    if not all(t.isfinite().all() for t in small.values()) or len(content) > SHIPPED_MB * 1e6:
        limits = f"a shipped run has at most {SHIPPED_MB} MB and no weight beyond 65504: shrink the network"
        raise ValueError(f"{about['name']} takes {len(content) / 1e6:.1f} MB; {limits}.")
    path = location(paths.trained_dir(), about["name"], about["key"])
    paths.write_atomically(path, content)
    return path


def _shrunk(tensors: dict[str, Tensor], sets: tuple[str, ...]) -> dict[str, Tensor]:
    stride = -(-len(tensors["history.step"]) // 200)
    history = {name: t[::stride] for name, t in tensors.items() if name.startswith("history.")}
    weights = ((name, t) for name, t in tensors.items() if name.startswith(sets))
    return history | {name: t.half() if t.dtype == torch.float32 else t for name, t in weights}


def _mine(name: str) -> tuple[dict, dict]:
    found = [path for path in kept() if path.parent == paths.runs_dir() and name in (path.stem, path.stem[:-13])]
    if len(found) != 1:
        which = ", ".join(path.stem for path in found) or "no run of this machine"
        raise ValueError(f"{name!r} fits {which}: name exactly one (see `tools/bazel run runs -- list`).")
    return unpack(found[0].read_bytes())


def _line(path: Path) -> str:
    about = facts(path)
    how = f"{about['seconds'] / 60:6.1f} min on {about['device']}" if about else "damaged"
    return f"{path.parent.name:8} {path.stem:40} {path.stat().st_size / 1e6:6.2f} MB {how}"


def main() -> None:
    """`list` shows the runs that are kept; `ship NAME [--raw]` writes one of this machine's to data/trained."""
    parser = argparse.ArgumentParser(prog="tools/bazel run runs --", description=main.__doc__)
    parser.add_argument("command", choices=["list", "ship"])
    parser.add_argument("name", nargs="?", default="", help="the run to ship")
    parser.add_argument("--raw", action="store_true", help="ship the weights without averaging too")
    asked = parser.parse_args()
    if asked.command == "ship":
        print(f"{ship(asked.name, asked.raw).name} is in data/trained")
    else:
        print("\n".join(map(_line, kept(asked.name))) or "no runs are kept yet")


if __name__ == "__main__":
    main()

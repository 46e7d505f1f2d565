"""Where trained runs are kept: one checksummed safetensors file a run, found again by the key of all that determines it.

Weights, loss history and description share one file because a single rename then replaces all of it or nothing.
"""

import argparse
import copy
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from litrev import device, fingerprint, paths

FORMAT = 1
SHIPPED_MB = 3.0


class Damaged(ValueError):
    """A file that is not the intact run it should be."""


class History(NamedTuple):
    """The mean training loss over the steps up to `step`, since the entry before; both [n]."""

    step: np.ndarray
    loss: np.ndarray


@dataclass
class Run:
    """A finished training run; `net` has the averaged (EMA) weights, in eval mode on `device()`.

    `seconds` of training on `device`; `source` is 'trained now', "this machine's cache" or 'shipped'.
    """

    key: str
    name: str = field(compare=False)
    net: nn.Module = field(compare=False, repr=False)
    history: History = field(compare=False, repr=False)
    seconds: float = field(compare=False)
    device: str = field(compare=False)
    source: str = field(compare=False)
    tensors: dict[str, Tensor] = field(compare=False, repr=False)
    info: dict = field(compare=False, repr=False)

    @functools.cached_property
    def raw(self) -> nn.Module:
        """The network with the last step's own weights, not averaged; RuntimeError where a shipped file leaves them out."""
        weights = section(self.tensors, "raw")
        if not weights:
            raise RuntimeError(
                f"{self.name}: the shipped file holds the EMA weights only; fit(..., retrain=True) gives both."
            )
        net = copy.deepcopy(self.net)
        net.load_state_dict(weights)
        return fingerprint.mark(net, f"{self.key} raw")


def restore(net: nn.Module, tensors: dict[str, Tensor], info: dict, source: str) -> Run:
    """Return the Run whose EMA weights, history and info a file holds, with the weights loaded into `net`."""
    net = net.to(device.device()).eval()
    net.load_state_dict(section(tensors, "ema"))
    history = History(tensors["history.step"].numpy(), tensors["history.loss"].numpy())
    fingerprint.mark(net, info["key"])
    return Run(info["key"], info["name"], net, history, info["seconds"], info["device"], source, tensors, info)


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix.`, by the rest of their names."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def pack(tensors: dict[str, Tensor], info: dict) -> bytes:
    """Return the content of a run file: safetensors, with `info` (JSON) and a checksum of everything in its metadata."""
    tensors = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    text = json.dumps(info | {"format": FORMAT}, sort_keys=True)
    return safetensors.torch.save(tensors, {"litrev": text, "sha256": _checksum(tensors, text)})


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and info of a run file; raises Damaged unless every bit of them is as it was packed."""
    try:
        metadata = _metadata(content)
        tensors = safetensors.torch.load(content)
        intact = metadata["sha256"] == _checksum(tensors, metadata["litrev"])
        info = json.loads(metadata["litrev"])
    except Exception as error:  # a damaged header can make the parsers raise nearly anything
        raise Damaged("is no complete run file") from error
    if not intact:
        raise Damaged("does not match its checksum")
    if info.get("format") != FORMAT:
        raise Damaged("has a format this version of litrev does not know")
    return tensors, info


def _metadata(content: bytes) -> dict[str, str]:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name, t in sorted(tensors.items()):
        total.update(f"{name} {t.dtype} {list(t.shape)}".encode())
        total.update(t.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def location(folder: Path, name: str, key: str) -> Path:
    """Return where the run `name` with this key is kept in `folder`."""
    return folder / f"{name}-{key[:12]}.safetensors"


def find(name: str, key: str) -> tuple[dict, dict, str] | None:
    """Return tensors, info and source of the finished run, from this machine's runs, else the shipped ones, else None."""
    for folder, source in ((paths.runs_dir(), "this machine's cache"), (paths.trained_dir(), "shipped")):
        if found := read(location(folder, name, key), key):
            return *found, source
    return None


def read(path: Path, key: str) -> tuple[dict, dict] | None:
    """Return the tensors and info in `path`, None if it is missing or damaged: then it is named and set aside."""
    try:
        tensors, info = unpack(path.read_bytes())
        if info["key"] != key:
            raise Damaged("belongs to another run")
        return tensors, info
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"{path.name} cannot be read ({error.strerror}), so it is left alone.")
    except Damaged as fault:
        print(f"{path.name} {fault}: {_set_aside(path)}.")
    return None


def _set_aside(path: Path) -> str:
    if path.parent == paths.trained_dir():
        return f"it is not used; `git checkout -- data/trained/{path.name}` brings the shipped one back"
    aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{path.name}.damaged-{n}")).exists())
    path.rename(aside)
    return f"it is set aside as {aside.name}"


def keep(path: Path, tensors: dict[str, Tensor], info: dict, otherwise: str) -> bool:
    """Write a run file, whole or not at all; if the disk is full or closed to us, say so, and what happens `otherwise`."""
    content = pack(tensors, info)
    try:
        paths.write_atomically(path, content)
        return True
    except OSError as error:
        need = f"{len(content) / 1e6:.1f} MB in {path.parent}, {_free(path.parent)}"
        tqdm.write(
            f"{info['name']}: not saved, {error.strerror} ({need}). {otherwise} Make room or set LITREV_RUNS to another folder."
        )
        return False


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB free"
    except OSError:
        return "which cannot be made"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the run at `path` for this process alone, waiting for another that trains it; a dead process holds nothing.

    Where the folder allows no lock (read-only, some network drives) it goes on without one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _acquire(path.with_suffix(".lock"))
    except OSError:
        held = None
    try:
        for leftover in path.parent.glob(f".{path.stem}*.safetensors.*"):  # what a killed process was writing
            leftover.unlink(missing_ok=True)
        yield
    finally:
        if held:
            path.with_suffix(".lock").unlink(missing_ok=True)
            held.close()


def _acquire(path: Path):
    while True:
        held = open(path, "w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{path.stem} is being trained by another process: waiting for it.")
            fcntl.flock(held, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(held.fileno()), path.stat()):
            return held
        held.close()  # the previous holder removed this file when it finished: take the new one


def kept(name: str = "") -> list[Path]:
    """Return the finished runs under `name` (all names where it is empty), this machine's and the shipped ones."""
    pattern = re.compile(rf"{re.escape(name) or '.+'}-[0-9a-f]{{12}}\.safetensors")
    folders = (paths.runs_dir(), paths.trained_dir())
    return [path for folder in folders for path in sorted(folder.glob("*.safetensors")) if pattern.fullmatch(path.name)]


def header(path: Path) -> dict:
    """Return what a run file says about itself, without reading its weights; {} where it is damaged."""
    try:
        with open(path, "rb") as opened:
            size = opened.read(8)
            return json.loads(_metadata(size + opened.read(min(int.from_bytes(size, "little"), 10**8)))["litrev"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def changes(name: str, description: dict) -> str:
    """Say how `description` differs from the most similar run kept under the same name; '' where there is none."""
    wanted = _flat(description)
    others = [_flat(found["description"]) for path in kept(name) if (found := header(path))]
    if not others:
        return ""
    old = min(others, key=lambda other: len(_differing(other, wanted)))
    said = [
        f"{key} was {old.get(key, 'absent')} and is now {wanted.get(key, 'absent')}" for key in _differing(old, wanted)
    ]
    said = [re.sub(r"(\S+)\.code was .*", r"the code of \1 has changed", text) for text in said]
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def _differing(old: dict, new: dict) -> list[str]:
    return sorted(
        (key for key in {**old, **new} if old.get(key) != new.get(key)), key=lambda key: (key.count("."), key)
    )


def _flat(description, name: str = "") -> dict[str, str]:
    """Return nested JSON as one dictionary with dotted names."""
    if not isinstance(description, (dict, list)):
        return {name: str(description)}
    parts = description.items() if isinstance(description, dict) else enumerate(description)
    return {k: v for key, part in parts for k, v in _flat(part, f"{name}.{key}".lstrip(".")).items()}


def ship(run: Run | str, folder: Path | None = None, raw: bool = False) -> Path:
    """Write a run to data/trained as it comes with the repository: float16, EMA weights (`raw`: both), 200 losses at most.

    `run` is a Run, or the name of one of this machine's. Raises ValueError where the name fits no run or several, where the
    file would exceed 3 MB, or where a weight does not fit float16.
    """
    tensors, about = (run.tensors, run.info) if isinstance(run, Run) else _mine(run)
    stride = -(-len(tensors["history.step"]) // 200)
    small = {name: t[::stride] for name, t in tensors.items() if name.startswith("history.")}
    for name, t in tensors.items():
        if name.startswith(("ema.", "raw.") if raw else "ema."):
            small[name] = t.half() if t.dtype == torch.float32 else t
    if not all(t.isfinite().all() for t in small.values()):
        raise ValueError(
            f"{about['name']} has weights beyond float16's 65504: train it with weight_decay or a lower lr."
        )
    content = pack(small, about)
    if len(content) > SHIPPED_MB * 1e6:
        raise ValueError(
            f"{about['name']} takes {len(content) / 1e6:.1f} MB; shipped runs have {SHIPPED_MB} MB at most: shrink the network."
        )
    path = location(folder or paths.trained_dir(), about["name"], about["key"])
    paths.write_atomically(path, content)
    return path


def _mine(name: str) -> tuple[dict, dict]:
    """Return tensors and info of this machine's only run with that name, or with that name and key."""
    found = [path for path in kept() if path.parent == paths.runs_dir() and name in (path.stem, path.stem[:-13])]
    if len(found) != 1:
        which = ", ".join(path.stem for path in found) or "none of this machine's runs"
        raise ValueError(f"{name!r} fits {which}: name exactly one (`python -m litrev.runs list` shows them).")
    return unpack(found[0].read_bytes())


def _line(path: Path) -> str:
    about, megabytes = header(path), path.stat().st_size / 1e6
    what = (
        f"{about['seconds'] / 60:6.1f} min on {about['device']}, {about['description']['steps']} steps"
        if about
        else "damaged"
    )
    return f"{path.parent.name:8} {path.stem:40} {megabytes:6.2f} MB {what}"


def main() -> None:
    """`python -m litrev.runs list` shows the runs kept; `ship NAME [--raw]` copies one of this machine's to data/trained."""
    parser = argparse.ArgumentParser(prog="python -m litrev.runs", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    shipping = commands.add_parser("ship")
    shipping.add_argument("name")
    shipping.add_argument("--raw", action="store_true", help="keep the weights without averaging too")
    asked = parser.parse_args()
    if asked.command == "ship":
        print(f"wrote {ship(asked.name, raw=asked.raw)}")
    else:
        print("\n".join(map(_line, kept())) or "no runs are kept yet")


if __name__ == "__main__":
    main()

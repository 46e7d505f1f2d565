"""One training loop for every notebook: the same call gives the same weights, and never trains the same thing twice."""

import copy
import hashlib
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm

from litrev import fingerprint, optim, paths, runs
from litrev.device import device, generator

CHECKPOINT_SECONDS = 20.0
WINDOW = 25  # steps whose mean loss is one entry of the history: reading a loss more often makes a GPU wait


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; raises ValueError for numbers that make no sense."""

    steps: int
    batch: int
    lr: float
    optimiser: str
    ema: float
    warmup: float
    clip: float
    weight_decay: float
    seed: int

    def __post_init__(self):
        rules = {
            "steps must be a whole number from 1": isinstance(self.steps, int) and self.steps >= 1,
            "batch must be a whole number from 1": isinstance(self.batch, int) and self.batch >= 1,
            "lr must be a positive number": 0 < self.lr < math.inf,
            "optimiser must be 'adamw' or 'muon'": self.optimiser in ("adamw", "muon"),
            "ema must be in [0, 1); 0 averages nothing": 0 <= self.ema < 1,
            "warmup is the fraction of the steps in [0, 1)": 0 <= self.warmup < 1,
            "clip must be positive; math.inf clips nothing": self.clip > 0,
            "weight_decay must be at least 0": 0 <= self.weight_decay < math.inf,
            "seed must be a whole number from 0": isinstance(self.seed, int) and self.seed >= 0,
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise ValueError(f"fit: {broken[0]}; the recipe is {self}.")


@dataclass
class State:
    """All that changes during training."""

    net: nn.Module
    average: nn.Module
    optimisers: list[torch.optim.Optimizer]
    pending: Tensor  # sum of the losses since the last entry of the history, on the device
    step: int = 0
    seconds: float = 0.0
    history: list[tuple[int, float]] = field(default_factory=list)


def fit(
    build: Callable[[], nn.Module],
    loss: Callable[..., Tensor],
    data,
    *,
    name: str,
    steps: int,
    batch: int = 128,
    lr: float = 2e-3,
    optimiser: str = "adamw",
    ema: float = 0.999,
    warmup: float = 0.03,
    clip: float = 1.0,
    weight_decay: float = 0.0,
    seed: int = 0,
    expect: str = "",
    retrain: bool = False,
) -> runs.Run:
    """Train the network `build()` and return the Run, or load it if a run with the same arguments is kept or shipped.

    `loss(net, batch, generator)` returns a scalar tensor, draws all its noise on the CPU from `generator` and changes nothing
    but the network. `data` is a tensor, or a tuple of tensors, of equal length, from which batches of the same form are drawn
    with replacement, or a function (n, generator) -> batch. The learning rate rises to `lr` over the fraction `warmup` of
    the steps, then falls to zero, both linearly. Weights are averaged with decay min(ema, (1 + n) / (10 + n)) at step n.

    An interrupted run goes on where it was at the next call; on the CPU it ends bit for bit as if it had not been
    interrupted. `retrain` trains even though the run is kept; `expect` is printed before training.
    Raises ValueError for bad arguments, for data with NaN or float64 and for losses that cannot be described (see
    `fingerprint`), RuntimeError when the loss is not finite.
    """
    recipe = Recipe(steps, batch, lr, optimiser, ema, warmup, clip, weight_decay, seed)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"fit: name is part of a file name, so use letters, digits, - and _ instead of {name!r}.")
    _check_data(data)
    with _seeded(_seed(seed, "weights")):
        net = build()
    description = _description(net, build, loss, data, recipe)
    key = fingerprint.digest(description)
    path = runs.location(paths.runs_dir(), name, key)
    found = None if retrain else runs.find(name, key)
    if not found:
        with runs.lock(path):
            found = None if retrain else runs.find(name, key)  # another process may have finished it meanwhile
            if not found:
                about = {"name": name, "key": key, "description": description}
                return runs.restore(net, *_trained(net, loss, data, recipe, about, path, expect), "trained now")
    return _told(runs.restore(net, *found))


def _told(run: runs.Run) -> runs.Run:
    minutes = f"trained in {run.seconds / 60:.1f} min on {run.device}"
    print(f"{run.name}: loaded, not trained again ({run.source}; {minutes}, last loss {run.history.loss[-1]:.4g}).")
    return run


def _description(net, build, loss, data, recipe) -> dict:
    """Return all that determines a run, as JSON."""
    parts = {"build": build, "loss": loss, "data": data}
    shapes = {name: list(t.shape) for name, t in net.state_dict().items()}
    said = {name: fingerprint.describe(part, name) for name, part in parts.items()}
    return {**asdict(recipe), **said, "architecture": {"modules": repr(net), "shapes": shapes}}


def _check_data(data) -> None:
    """Raise ValueError unless `data` is a function, or tensors of one length, without float64 and NaN."""
    if callable(data):
        return
    tensors = data if isinstance(data, tuple) else (data,)
    if not tensors or not all(isinstance(x, Tensor) and x.ndim for x in tensors):
        raise ValueError("fit: data must be a tensor, a tuple of tensors, or a function (n, generator) -> batch.")
    lengths = {len(x) for x in tensors}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"fit: the tensors of data must be equally long and not empty; they have {[len(x) for x in tensors]} entries."
        )
    for i, x in enumerate(tensors):
        if x.dtype == torch.float64:
            raise ValueError(f"fit: tensor {i} of data is float64, which Apple's GPU lacks: use .float().")
        if x.is_floating_point() and not torch.stack(x.aminmax()).isfinite().all():
            raise ValueError(f"fit: tensor {i} of data holds NaN or infinity: clean it before training.")


def _seed(seed: int, *purpose) -> int:
    """Return a seed for one purpose of one step: a function of the run's seed alone, so that resuming needs no state."""
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:7])


@contextmanager
def _seeded(seed: int | None = None) -> Iterator[None]:
    """Leave the reader's own random state as it was."""
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _trained(net, loss, data, recipe, about, path, expect) -> tuple[dict, dict]:
    """Train from the start or from where an interrupted run was; return the tensors and info of the finished run."""
    partial = path.with_suffix(".partial.safetensors")
    if path.exists() and partial.exists() and partial.stat().st_mtime_ns < path.stat().st_mtime_ns:
        partial.unlink()  # left behind by a run that has finished since
    state = _start(net.to(device()), recipe)
    _resume(state, runs.read(partial, about["key"]))
    _announce(state, data, recipe, about, expect)
    draw = _batches(data, recipe.batch)
    _loop(state, loss, draw, recipe, about["name"], lambda: _checkpoint(state, about, partial))
    tensors = {k: t.detach().cpu().clone() for k, t in _weights(state).items()}  # `net` gets the average next
    info = about | {"seconds": state.seconds, "device": str(device())}
    if runs.keep(path, tensors, info, "The run lives in this session only."):
        partial.unlink(missing_ok=True)
    return tensors, info


def _start(net: nn.Module, recipe: Recipe) -> State:
    average = copy.deepcopy(net).eval().requires_grad_(False)
    found = optim.optimisers(net.train(), recipe.optimiser, recipe.lr, recipe.weight_decay)
    return State(net, average, found, torch.zeros((), device=device()))


def _resume(state: State, found: tuple[dict, dict] | None) -> None:
    """Put an interrupted run's state back, if there is one."""
    if not found:
        return
    tensors, info = found
    state.net.load_state_dict(runs.section(tensors, "raw"))
    state.average.load_state_dict(runs.section(tensors, "ema"))
    optim.set_state(state.optimisers, runs.section(tensors, "optimiser"))
    state.pending.copy_(tensors["pending"])
    state.history = list(zip(tensors["history.step"].tolist(), tensors["history.loss"].tolist(), strict=True))
    state.step, state.seconds = info["step"], info["seconds"]


def _announce(state: State, data, recipe: Recipe, about: dict, expect: str) -> None:
    """Say before training what will be trained, why again, what to expect, and where it will be kept."""
    name = about["name"]
    if state.step:
        print(f"{name}: goes on at step {state.step:,}, where it was interrupted.")
    elif changed := runs.changes(name, about["description"]):
        print(f"{name}: {changed}: training again.")
    size = sum(p.numel() for p in state.net.parameters()) / 1e6
    source = "fresh examples" if callable(data) else f"{len(data[0] if isinstance(data, tuple) else data):,} examples"
    folder = "LITREV_RUNS" if os.environ.get("LITREV_RUNS") else "data/runs"
    what = f"{size:.3g} M parameters, {recipe.steps:,} steps of {recipe.batch} out of {source}, on {device()}"
    print(f"{name}: training {what}; kept in {folder}." + (f" Expect {expect}." if expect else ""))


def _loop(state: State, loss, draw, recipe: Recipe, name: str, save) -> None:
    """Train to the last step; every 20 s and when interrupted, save."""
    window = min(WINDOW, max(1, recipe.steps // 40))
    began = time.monotonic() - state.seconds
    due = time.monotonic() + CHECKPOINT_SECONDS
    with _seeded(), _interrupts_noted() as interrupted:
        with _bar(state, recipe, name) as bar:
            while state.step < recipe.steps and not interrupted:
                _step(state, loss, draw, recipe)
                bar.update()
                if state.step % window == 0 or state.step == recipe.steps:
                    _record(state, recipe, name, bar)
                state.seconds = time.monotonic() - began
                if time.monotonic() > due and state.step < recipe.steps:
                    due = time.monotonic() + CHECKPOINT_SECONDS * (
                        1 if save() else 30
                    )  # a full disk is not asked at once
        if interrupted:
            where = "run this again to go on from there" if save() else "its state could not be saved"
            print(f"{name}: interrupted at step {state.step:,} of {recipe.steps:,}; {where}.")
            raise KeyboardInterrupt


def _bar(state: State, recipe: Recipe, name: str) -> tqdm:
    return tqdm(total=recipe.steps, initial=state.step, desc=name, unit="step", file=sys.stdout, mininterval=1.0)


@contextmanager
def _interrupts_noted() -> Iterator[list]:
    """Note the first Ctrl-C (Kernel > Interrupt) in the list for the loop to see, so that no step stays half done.

    A second one interrupts at once. Outside the main thread, which alone gets interrupts, this does nothing.
    """
    noted: list = []

    def note(number, frame):
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _batches(data, n: int) -> Callable[[torch.Generator], Tensor | tuple]:
    """Return the function that draws a batch of n on the device, given the step's generator."""
    where = device()
    if callable(data):
        return lambda rng: _to(data(n, rng), where)
    held = _to(data, where)
    length = len(data[0] if isinstance(data, tuple) else data)

    def draw(rng: torch.Generator):
        index = torch.randint(length, (n,), generator=rng).to(where)
        return tuple(x[index] for x in held) if isinstance(held, tuple) else held[index]

    return draw


def _to(batch, where: torch.device):
    return tuple(x.to(where) for x in batch) if isinstance(batch, tuple) else batch.to(where)


def _step(state: State, loss, draw, recipe: Recipe) -> None:
    """Do one step; what it draws depends on the run's seed and the step's number only."""
    rng = generator(_seed(recipe.seed, "noise", state.step))
    torch.manual_seed(_seed(recipe.seed, "dropout", state.step))
    value = loss(state.net, draw(rng), rng)
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        raise ValueError(
            f"fit: loss must return a scalar tensor that depends on the network, such as a mean, not {value!r:.80}."
        )
    value.backward()
    nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip)
    for each in state.optimisers:
        for group in each.param_groups:
            group["lr"] = recipe.lr * rate(state.step, recipe.steps, recipe.warmup)
        each.step()
        each.zero_grad()
    with torch.no_grad():
        weight = 1 - decay(state.step, recipe.ema)
        torch._foreach_lerp_(list(state.average.parameters()), list(state.net.parameters()), weight)
        state.pending += value.detach()
    state.step += 1


def rate(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the learning rate at step 0, 1, ..., steps - 1: up over `warmup` of them, then down towards 0."""
    rise = max(1.0, warmup * steps)
    return min((step + 1) / rise, (steps - step) / max(1.0, steps - rise))


def decay(step: int, ema: float) -> float:
    """Return the weight of the old average at step 0, 1, ...: min(ema, (1 + n) / (10 + n)), short while n is small."""
    return min(ema, (1 + step) / (10 + step))


def _record(state: State, recipe: Recipe, name: str, bar: tqdm) -> None:
    """Add the mean loss since the last entry to the history; raise RuntimeError if it is not finite."""
    last = state.history[-1][0] if state.history else 0
    mean = state.pending.item() / (state.step - last)
    if not math.isfinite(mean) or (state.step == recipe.steps and not _finite(state)):
        raise RuntimeError(
            f"{name}: the loss became {mean} in steps {last + 1} to {state.step}, at lr {recipe.lr}: try a lower lr, a longer "
            "warmup or a smaller clip, and look for logarithms and divisions in the loss."
        )
    state.pending.zero_()
    state.history.append((state.step, mean))
    bar.set_postfix_str(f"loss {mean:.4g}", refresh=state.step == recipe.steps)


def _finite(state: State) -> bool:
    return all(t.isfinite().all() for t in (*state.net.parameters(), state.pending))


def _checkpoint(state: State, about: dict, path) -> bool:
    """Save all that training goes on from, unless it has already gone wrong; return whether it is safe on disk."""
    if not _finite(state):
        return False
    tensors = _weights(state) | {f"optimiser.{k}": t for k, t in optim.get_state(state.optimisers).items()}
    about = about | {"step": state.step, "seconds": state.seconds}
    return runs.keep(path, tensors | {"pending": state.pending}, about, "Training goes on without a checkpoint.")


def _weights(state: State) -> dict[str, Tensor]:
    """Return the weights, averaged and not, and the history, by the names they have in a run's file."""
    for averaged, own in zip(state.average.buffers(), state.net.buffers(), strict=True):
        averaged.copy_(own)
    sets = {"ema": state.average, "raw": state.net}
    tensors = {f"{prefix}.{name}": t for prefix, net in sets.items() for name, t in net.state_dict().items()}
    steps, losses = zip(*state.history, strict=True) if state.history else ((), ())
    history = {"history.step": torch.tensor(steps, dtype=torch.int64), "history.loss": torch.tensor(losses)}
    return tensors | history

"""One training loop for every notebook: the same call gives the same weights, and nothing is trained twice."""

import copy
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lab import batches, fingerprint, locks, optim, probe, runs, sources, vouch
from litrev import paths
from litrev.device import derived_seed, device, generator

CHECKPOINT_SECONDS = 20.0
WINDOW = 25  # steps whose mean loss is one entry of the history: reading every loss would make a GPU wait


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training run; raises ValueError where they make no sense."""

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
        whole = all(isinstance(n, int) for n in (self.steps, self.batch, self.seed))
        counts = whole and min(self.steps, self.batch) >= 1 and self.seed >= 0
        rates = self.lr > 0 and self.clip > 0 and self.weight_decay >= 0 and 0 <= self.ema < 1 and 0 <= self.warmup < 1
        if not (counts and rates and self.optimiser in ("adamw", "muon")):
            raise ValueError(
                "fit needs whole numbers steps >= 1, batch >= 1, seed >= 0; lr > 0, clip > 0 (math.inf for none), "
                f"weight_decay >= 0, ema and warmup in [0, 1), optimiser 'adamw' or 'muon'; it got {self}."
            )


@dataclass
class State:
    """All that changes during training; `pending` is the sum of the losses since the history's last entry."""

    net: nn.Module
    average: nn.Module
    optimisers: list[torch.optim.Optimizer]
    pending: Tensor
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
    """Train the network `build()` and return the Run; a run with the same arguments that is kept or shipped is loaded.

    `loss(net, batch, generator)` returns a scalar tensor, draws all its noise on the CPU from `generator`, and changes
    nothing. `data` is a tensor or a tuple of tensors of equal length, from which batches of the same form are drawn
    with replacement, or a function (n, generator) -> batch. The learning rate rises to `lr` over the fraction `warmup`
    of the steps, then falls to zero, both linearly; weights are averaged with decay min(ema, (1 + n) / (10 + n)) after
    step n; gradients are clipped to the norm `clip`. `expect` is printed before training.

    An interrupted run goes on where it was at the next call; on the CPU it ends bit for bit as if never interrupted.
    `retrain` trains although the run is kept. Raises ValueError for arguments and data that cannot be trained on and
    for what has no description (see `fingerprint`), RuntimeError when the loss is not finite.
    """
    recipe = Recipe(steps, batch, lr, optimiser, ema, warmup, clip, weight_decay, seed)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"fit: name is part of a file name: use letters, digits, - and _, not {name!r}.")
    batches.check(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        net = build()
    about = {"name": name, "description": _description(net, build, loss, data, recipe)}
    about["key"] = fingerprint.digest(about["description"])
    about["sources"] = sources.used(build, loss, data if callable(data) else None, net)
    path = runs.location(paths.runs_dir(), name, about["key"])
    with locks.lock(path):
        kept = None if retrain else _kept(net, loss, data, recipe, about)
        return kept or _train(net, loss, data, recipe, about, path, expect)


def _kept(net, loss, data, recipe: Recipe, about: dict) -> runs.Run | None:
    """Return the run that is kept, if the code of now still computes what it was trained to; say so if not."""
    for tensors, was, source in runs.candidates(about["name"], about["key"]):
        run = runs.restore(copy.deepcopy(net), tensors, was, source)
        changes = sources.changed(was.get("sources", {}), about["sources"])
        taken_over = changes and vouch.kept(about["name"])  # else its sources would stay those of before the edit
        if _unchanged(was, _probe(run.net, loss, data, recipe), changes) and not taken_over:
            return runs.say_loaded(run)
        if not vouch.asked(about["name"]):
            reason = " and ".join(changes[:3]) or "something outside of litrev"
            print(f"{about['name']}: {source}, but {reason} changed since, and its loss with it.")
    if not (found := vouch.kept(about["name"])):
        return None
    run = runs.restore(copy.deepcopy(net), *found, "shipped")
    run.about = vouch.take_over(*found, about | {"probe": _probe(run.net, loss, data, recipe)})
    return runs.say_loaded(run)


def _unchanged(was: dict, answers: list[float], changes: list[str]) -> bool:
    """Say whether a kept run answers as it did; where its loss could not be probed, whether the code is the same."""
    if not was.get("probe"):
        return "sources" in was and not changes
    return probe.agree(was["probe"], answers, probe.CLOSE if changes else probe.LOOSE)


def _probe(net, loss, data, recipe: Recipe) -> list[float]:
    return probe.take(net, loss, data, recipe.batch, recipe.seed)


def _description(net, build, loss, data, recipe: Recipe) -> dict:
    """Return all that determines a run, as JSON."""
    parts = {"build": build, "loss": loss, "data": data}
    shapes = {name: list(t.shape) for name, t in net.state_dict().items()}
    described = {name: fingerprint.describe(part, name) for name, part in parts.items()}
    return {**asdict(recipe), **described, "architecture": {"modules": repr(net), "shapes": shapes}}


def _train(net, loss, data, recipe: Recipe, about: dict, path, expect: str) -> runs.Run:
    """Train from the start or from where an interrupted run was; keep the finished run at `path` and return it."""
    partial = path.with_suffix(".partial.safetensors")
    state = _start(net.to(device()), recipe, _checkpointed(partial, about))
    _announce(state, data, recipe, about, expect)
    _loop(state, loss, batches.drawing(data, recipe.batch), recipe, about, partial)
    tensors = {name: t.cpu().clone() for name, t in _tensors(state).items()}  # cloned, for `net` gets the average next
    about |= {"seconds": state.seconds, "device": str(device())}
    run = runs.restore(net, tensors, about, "trained now")
    about["probe"] = _probe(run.net, loss, data, recipe)
    if runs.keep(path, tensors, about, "This run is lost when Python ends."):
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return run


def _checkpointed(partial, about: dict) -> tuple[dict, dict] | None:
    """Return the checkpoint of an interrupted run, unless litrev's code changed since."""
    found = runs.read(partial, about["key"])
    if found and (changes := sources.changed(found[1]["sources"], about["sources"])):
        print(f"{about['name']}: was interrupted, and {' and '.join(changes[:3])} changed since: starts again.")
        return None
    return found


def _start(net: nn.Module, recipe: Recipe, checkpoint: tuple[dict, dict] | None) -> State:
    """Return the state before the first step, or the one in a checkpoint."""
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimisers = optim.optimisers(net.train(), recipe.optimiser, recipe.lr, recipe.weight_decay)
    state = State(net, average, optimisers, torch.zeros((), device=device()))
    if checkpoint:
        tensors, about = checkpoint
        net.load_state_dict(runs.section(tensors, "raw"))
        average.load_state_dict(runs.section(tensors, "ema"))
        optim.set_state(optimisers, runs.section(tensors, "optimiser"))
        state.pending.copy_(tensors["pending"])
        state.step, state.seconds = about["step"], about["seconds"]
        state.history = list(zip(tensors["history.step"].tolist(), tensors["history.loss"].tolist(), strict=True))
    return state


def _announce(state: State, data, recipe: Recipe, about: dict, expect: str) -> None:
    """Say what will be trained, why again, what to expect, and where it will be kept."""
    name = about["name"]
    if state.step:
        print(f"{name}: goes on at step {state.step:,}, where it was interrupted.")
    elif changes := runs.changes(name, about["description"]):
        print(f"{name}: {changes}: training again.")
    size = sum(p.numel() for p in state.net.parameters()) / 1e6
    source = "fresh examples" if callable(data) else f"{len(data[0] if isinstance(data, tuple) else data):,} examples"
    folder = "LITREV_RUNS" if os.environ.get("LITREV_RUNS") else "data/runs"
    work = f"{size:.3g} M parameters, {recipe.steps:,} steps of {recipe.batch} out of {source}, on {device()}"
    print(f"{name}: training {work}; kept in {folder}." + (f" Expect {expect}." if expect else ""))


def _loop(state: State, loss, draw, recipe: Recipe, about: dict, partial) -> None:
    """Train to the last step; save every 20 s and when interrupted."""
    window = min(WINDOW, max(1, recipe.steps // 40))
    began, saved = time.monotonic() - state.seconds, time.monotonic()
    with torch.random.fork_rng(devices=[]), _interrupts_noted() as interrupts:
        with tqdm(total=recipe.steps, initial=state.step, desc=about["name"], file=sys.stdout, mininterval=1) as bar:
            while state.step < recipe.steps and not interrupts:
                _step(state, loss, draw, recipe)
                bar.update()
                if state.step % window == 0 or state.step == recipe.steps:
                    _record(state, recipe, bar)
                state.seconds = time.monotonic() - began
                if time.monotonic() > saved + CHECKPOINT_SECONDS and state.step < recipe.steps:
                    done = _checkpoint(state, about, partial)
                    saved = time.monotonic() if done else math.inf  # a full disk is complained about once
        if interrupts:
            outcome = "Call fit again to go on" if _checkpoint(state, about, partial) else "This part is lost"
            print(f"{about['name']}: interrupted at step {state.step:,} of {recipe.steps:,}. {outcome}.")
            raise KeyboardInterrupt


@contextmanager
def _interrupts_noted() -> Iterator[list]:
    """Collect the first Ctrl-C (Kernel > Interrupt) for the loop to see, so that no step stays half done; the second
    interrupts at once. Only the main thread gets interrupts: in another, nothing changes."""
    noted: list = []

    def note(number, frame):
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, note) if main else None
    try:
        yield noted
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _step(state: State, loss, draw, recipe: Recipe) -> None:
    """Do one step; what it draws depends on the run's seed and the step's number only."""
    rng = generator(derived_seed(recipe.seed, "noise", state.step))
    torch.manual_seed(derived_seed(recipe.seed, "dropout", state.step))
    value = loss(state.net, draw(rng), rng)
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        raise ValueError(f"fit: loss must return a scalar tensor that depends on the network, not {value!r:.60}.")
    value.backward()
    nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip)
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * optim.rate(state.step, recipe.steps, recipe.warmup)
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        pair = list(state.average.parameters()), list(state.net.parameters())
        torch._foreach_lerp_(*pair, 1 - optim.decay(state.step, recipe.ema))
        state.pending += value.detach()
    state.step += 1


def _record(state: State, recipe: Recipe, bar: tqdm) -> None:
    """Add the mean loss since the last entry to the history; raise RuntimeError when training has failed."""
    last = state.history[-1][0] if state.history else 0
    mean = state.pending.item() / (state.step - last)
    if not math.isfinite(mean) or (state.step == recipe.steps and not _finite(state)):
        raise RuntimeError(
            f"{bar.desc}: loss or weights became infinite or NaN in steps {last + 1} to {state.step}, lr {recipe.lr}: "
            "try a lower lr or a longer warmup, and look for logarithms and divisions in the loss."
        )
    state.pending.zero_()
    state.history.append((state.step, mean))
    bar.set_postfix_str(f"loss {mean:.4g}", refresh=state.step == recipe.steps)


def _finite(state: State) -> bool:
    return all(t.isfinite().all() for t in (*state.net.parameters(), state.pending))


def _checkpoint(state: State, about: dict, path) -> bool:
    """Save all that training goes on from, unless that is broken already; return whether it is safe on disk."""
    if not _finite(state):
        return False
    tensors = {f"optimiser.{name}": t for name, t in optim.get_state(state.optimisers).items()}
    about = about | {"step": state.step, "seconds": state.seconds}
    otherwise = "Training goes on without checkpoints."
    return runs.keep(path, _tensors(state) | tensors | {"pending": state.pending}, about, otherwise)


def _tensors(state: State) -> dict[str, Tensor]:
    """Return the weights, averaged and not, and the history, by their names in a run's file."""
    for averaged, own in zip(state.average.buffers(), state.net.buffers(), strict=True):
        averaged.copy_(own)
    sets = {"ema": state.average, "raw": state.net}
    weights = {f"{prefix}.{name}": t for prefix, net in sets.items() for name, t in net.state_dict().items()}
    steps, losses = torch.tensor(state.history, dtype=torch.float64).reshape(-1, 2).unbind(1)
    return weights | {"history.step": steps.long(), "history.loss": losses.float()}

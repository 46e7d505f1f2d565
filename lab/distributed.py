"""Training that several processes share, one a GPU, by PyTorch's torchrun and its DistributedDataParallel.

All draw the same batches and the same noise, on the CPU. Each asks the network about its own part of a batch and is
told the others' answers, so that the loss is that of the whole batch everywhere, and a run is, to rounding, what
`training.fit` makes of the same arguments, under the same key. The first process alone prints, saves and keeps; it also
says when all stop, so that Ctrl-C leaves no step half done.
"""

import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.nn.parallel import DistributedDataParallel

from lab import batches, fingerprint, locks, runs, sources, training
from litrev import checks, paths
from litrev.device import derived_seed, device

AGAIN = "run the same command again, and it goes on from the step that was saved last."


def launch(module: str, arguments: list[str], processes: int) -> None:
    """Run `python -m module *arguments` in so many processes, by torchrun; where one of them fails or is killed, end
    all and exit with the reason. Raises ValueError as `require_devices` does."""
    require_devices(processes)
    logging.disable(logging.ERROR)  # torchrun's account of how it ends processes; the reason is said below
    if sys.flags.safe_path:  # python -P, which they do not inherit
        os.environ["PYTHONSAFEPATH"] = "1"
    here = ["--standalone", "--local-addr=localhost", f"--nproc-per-node={processes}"]
    try:
        torchrun.run(torchrun.parse_args([*here, "--module", module, *arguments]))
    except ChildFailedError as error:
        sys.exit(_reason(error))
    except SignalException as stopped:
        sys.exit(f"Stopped by {stopped.sigval.name}: {AGAIN}")


def _reason(error: ChildFailedError) -> str:
    """What a process has recorded of its own failure, else which one was lost first."""
    said = [failure.message for failure in error.failures.values() if isinstance(failure.message, dict)]
    if said:
        return said[0]["extraInfo"]["py_callstack"]
    lost = [rank for rank, failure in error.failures.items() if failure.exitcode not in (1, -signal.SIGTERM)]
    rank = min(lost or error.failures)
    failure = error.failures[rank]
    how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
    return f"Process {rank} {how}, so all were ended: {AGAIN}"


def require_devices(processes: int) -> None:
    """Raise ValueError unless so many processes have a GPU of CUDA each, or compute on the CPU."""
    checks.whole(processes=processes)
    where, found = device().type, torch.cuda.device_count()
    if where == "mps":
        raise ValueError("Processes share CUDA's GPUs or, with LITREV_DEVICE=cpu, the processor; here is Apple's GPU.")
    if where == "cuda" and processes > found:
        raise ValueError(f"{processes} processes need a GPU each, and PyTorch finds {found} here: start {found}.")


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun has started, for a block that all of them go through and that is all they do:
    at its end, when the first has got there, and when something goes wrong in it, which torchrun is told, they end.

    Raises RuntimeError where torchrun has not started this process.
    """
    if not dist.is_torchelastic_launched():
        raise RuntimeError("This needs torchrun: torchrun --standalone --nproc-per-node=2 -m lab.large NAME.")
    code = 0
    try:
        require_devices(int(os.environ["LOCAL_WORLD_SIZE"]))
        if device().type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if device().type == "cuda" else "gloo")
        with nullcontext() if _first() else _silence():
            yield
            _go_on()
        dist.destroy_process_group()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception as problem:
        code = 1
        if not (isinstance(problem, dist.DistError) or "gloo" in str(problem)):  # else another process is gone
            get_error_handler().record_exception(problem)
    sys.stdout.flush()
    os._exit(code)  # DistributedDataParallel leaves threads of gloo's behind, beside which Python's own end may abort


@contextmanager
def _silence() -> Iterator[None]:
    """Print nothing, save nothing, and leave Ctrl-C to the first process."""
    training.CHECKPOINT_SECONDS = math.inf
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _first() -> bool:
    return dist.get_rank() == 0


def _go_on(going: bool = True) -> None:
    """Hear from the first process whether all go on; raises KeyboardInterrupt where it does not."""
    flag = torch.tensor(going)
    dist.broadcast(flag, 0)
    if not flag:
        raise KeyboardInterrupt


def _of_first(value):
    """The first process's value, in all of them."""
    box = [value]
    dist.broadcast_object_list(box, 0)
    return box[0]


def data_parallel(net: nn.Module) -> Callable[..., Tensor]:
    """Return `net` as a function of a whole batch, of which this process computes its part; the rest is the others'.

    Every input whose first axis is as long as that of the first input is divided along it, and the answer is joined.
    All processes must ask the same, and take the same scalar of the answers: then its gradient with respect to the
    weights of `net` is in each process that of the whole batch, if the function still exists when it is taken. Raises
    ValueError for a batch without equal parts.
    """
    parallel, count, rank = DistributedDataParallel(net), dist.get_world_size(), dist.get_rank()

    def ask(*inputs, **named):
        n = len(inputs[0])
        checks.divisible(processes=count, batch=n)

        def part(x):
            return x.chunk(count)[rank] if isinstance(x, Tensor) and x.shape[:1] == (n,) else x

        mine = parallel(*map(part, inputs), **{name: part(x) for name, x in named.items()}).contiguous()
        parts = [torch.empty_like(mine) for _ in range(count)]
        dist.all_gather(parts, mine.detach())
        parts[rank] = mine
        if mine.requires_grad:
            mine.register_hook(lambda gradient: count * gradient)  # the whole is the sum of parts, not their mean
        return torch.cat(parts)

    return ask


def fit(build, loss, data, recipe: training.Recipe, *, name: str) -> runs.Run | None:
    """Train as `training.fit` with these arguments, all processes together; return the Run in the first, else None.

    To be called in all `processes`. `loss` asks the network itself, none of its methods; its answer to an example must
    depend on that example alone. Raises ValueError for batches without equal parts, for a network with dropout or batch
    norm, and as `training.fit` does, RuntimeError when the loss is not finite.
    """
    checks.divisible(processes=dist.get_world_size(), batch=recipe.batch)
    batches.check(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(recipe.seed, "weights"))
        net = build()
    _require_examples_apart(net)
    about = {"name": name, "description": training._description(net, build, loss, data, recipe)}
    about["key"] = fingerprint.digest(about["description"])
    about["sources"] = sources.used(build, loss, data if callable(data) else None, net)
    path = runs.location(paths.runs_dir(), name, about["key"])
    with locks.lock(path) if _first() else nullcontext():
        kept = training._kept(net, loss, data, recipe, about) if _first() else None
        return kept if _of_first(kept is not None) else _train(net, loss, data, recipe, about, path)


def _require_examples_apart(net: nn.Module) -> None:
    mixing = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    if found := [type(part).__name__ for part in net.modules() if isinstance(part, mixing) and getattr(part, "p", 1)]:
        raise ValueError(f"{found[0]} gives a part of a batch other answers than the whole: train without it.")


def _train(net, loss, data, recipe: training.Recipe, about: dict, path) -> runs.Run | None:
    """Train from the start or from where an interrupted run was; the first process keeps the run and returns it."""
    partial = path.with_suffix(".partial.safetensors")
    checkpoint = _of_first(training._checkpointed(partial, about) if _first() else None)
    state = training._start(net.to(device()), recipe, checkpoint)
    count, ask, draw = dist.get_world_size(), data_parallel(state.net), batches.drawing(data, recipe.batch)
    training._announce(state, data, recipe, about, "")
    print(f"{about['name']}: {count} processes, each with {recipe.batch // count} examples of a batch.")

    def draw_together(rng):
        _go_on()
        return draw(rng)

    try:
        training._loop(state, lambda _, batch, rng: loss(ask, batch, rng), draw_together, recipe, about, partial)
    except KeyboardInterrupt:
        if _first():
            _go_on(False)
        raise
    _go_on()
    return _kept_now(state, loss, data, recipe, about, path) if _first() else None


def _kept_now(state: training.State, loss, data, recipe: training.Recipe, about: dict, path) -> runs.Run:
    tensors = {name: t.cpu().clone() for name, t in training._tensors(state).items()}
    about |= {"seconds": state.seconds, "device": f"{dist.get_world_size()} x {device()}"}
    run = runs.restore(state.net, tensors, about, "trained now")
    about["probe"] = training._probe(run.net, loss, data, recipe)
    if runs.keep(path, tensors, about, "This run is lost when Python ends."):
        with suppress(OSError):
            path.with_suffix(".partial.safetensors").unlink(missing_ok=True)
    return run

"""Where the CPU time of a training step goes, operator by operator, in bfloat16 and in float32."""

import contextlib
import statistics
import time
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench import speed, subjects
from bench.growth import NETWORKS
from litrev.nets.blocks import float32_inside

# Kinds of operators, by the beginnings of their names. What else a step takes is between them: VIEWS compute nothing.
KINDS = {
    "convolutions": ("convolution",),
    "products": ("mm", "addmm"),
    "attention": ("bmm", "baddbmm", "_softmax"),
    "norms": ("native_layer_norm",),
    "copies": (
        "copy_",
        "_to_copy",
        "clone",
        "cat",
        "pixel_",
        "slice_backward",
        "select_backward",
        "stack",
        "as_strided",
    ),
    "optimiser": ("_fused", "_foreach", "linalg_vector_norm", "zero_"),
}
ELEMENTWISE, BETWEEN = "elementwise", "between"
VIEWS = ("view", "_unsafe_view", "t", "transpose", "permute", "expand", "detach", "split", "unsqueeze", "squeeze")


def kind(operator: str) -> str:
    """Return the one of KINDS that an operator belongs to, BETWEEN for VIEWS, or else ELEMENTWISE: modulation,
    activations, sums, the loss."""
    if operator in VIEWS:
        return BETWEEN
    return next((name for name, beginnings in KINDS.items() if operator.startswith(beginnings)), ELEMENTWISE)


class Clock(TorchDispatchMode):
    """Counts the thread's CPU seconds and the FLOPs by the kind of operator, backward too."""

    def __init__(self):
        super().__init__()
        self.seconds, self.flops = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = time.thread_time()
        out = func(*args, **(kwargs or {}))
        spent, of = time.thread_time() - start, kind(func._overloadpacket.__name__)
        self.seconds[of] += spent
        if formula := flop_registry.get(func._overloadpacket):
            self.flops[of] += formula(*args, **(kwargs or {}), out_val=out)
        return out


class Profile:
    """Both networks in each number of `millions` of parameters, in one process, and the machine's ceiling."""

    def __init__(self, millions: list[float], batch: int):
        self.trainees = {(n, m): speed.Trainee(NETWORKS[n], m, 28, batch) for n in NETWORKS for m in millions}
        self.ceiling = speed.Ceiling()
        precisions = {label.split()[1] for label in self.ceiling.labels()}
        self.asked = [(*key, precision) for key in self.trainees for precision in sorted(precisions)]

    def measure(self, rounds: int, seconds: float) -> list[dict]:
        """Return for each network and precision the CPU milliseconds of a step, the milliseconds of each kind of
        operator in it and its GFLOP/s, and the ceiling's; medians of rounds in which all take turns."""
        steps, parts = {key: [] for key in self.asked}, {key: [] for key in self.asked}
        limits = {label: [] for label in self.ceiling.labels()}
        for _ in range(rounds):
            for label, rates in limits.items():
                rates.append(self.ceiling.run(label, seconds))
            for key in self.asked:
                trainee = self.trainees[key[:2]]
                with float32_inside() if key[2] == "float32" else contextlib.nullcontext():
                    steps[key].append(1000 * trainee.batch / trainee.train(seconds))
                    with Clock() as clock:
                        for _ in range(4):
                            subjects.step(trainee.subject, trainee.images)
                parts[key].append(clock)
        return [self._row(key, steps[key], parts[key], limits) for key in self.asked]

    def torch_version(self) -> str:
        """Return PyTorch's version."""
        return torch.__version__.split("+")[0]

    def _row(self, key: tuple, steps: list[float], clocks: list[Clock], limits: dict[str, list[float]]) -> dict:
        name, millions, precision = key
        step, flops = statistics.median(steps), clocks[0].flops
        ms = {of: 250 * statistics.median(clock.seconds[of] for clock in clocks) for of in (*KINDS, ELEMENTWISE)}
        ms[BETWEEN] = max(0.0, step - sum(ms.values()))
        rates = {of: flops[of] / 4e6 / ms[of] for of in flops}
        main = "conv" if name == "U-Net" else "matmul"
        ceiling = max(statistics.median(r) for label, r in limits.items() if label.startswith(f"{main} {precision}"))
        whole = {"step": step, "gflop": sum(flops.values()) / 4e9, "ceiling": ceiling}
        found = {what: float(f"{value:.4g}") for what, value in whole.items()}
        rounded = {what: {of: float(f"{v:.4g}") for of, v in d.items()} for what, d in (("ms", ms), ("rates", rates))}
        return {"name": name, "millions": millions, "precision": precision} | found | rounded

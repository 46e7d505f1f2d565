"""What a child process measures: training, sampling and memory of one subject, or the machine's ceiling."""

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench import subjects
from litrev.nets.blocks import bfloat16_pays

CONV_SHAPES = [(64, 28), (128, 14), (256, 14), (256, 7)]  # channels, side
MATMUL_SHAPES = [(1024, 1024, 1024), (6272, 128, 512), (6272, 512, 512)]  # the last two are a DiT's MLP, batch 128


def per_second(work, seconds: float) -> float:
    """Return how often a CPU second sees `work()` done, repeated for `seconds` of CPU time, at least once."""
    count, start = 0, time.process_time()
    while True:
        work()
        count, spent = count + 1, time.process_time() - start
        if spent >= seconds:
            return count / spent


def megabytes() -> float:
    """Return this process's largest memory so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


class Flops(TorchDispatchMode):
    """Counts FLOPs of convolutions, matrix products and attention, by the precision that they are computed in."""

    def __init__(self):
        super().__init__()
        self.of = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.of[args[0].dtype] += formula(*args, **(kwargs or {}), out_val=out)
        return out


class Trainee:
    """A subject in training on random images, its first steps (which prepare kernels and memory) behind it."""

    def __init__(self, build: str, millions: float, size: int, batch: int):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        build = getattr(subjects, build)
        build(millions, size)  # imports the peer
        self.imported = megabytes()
        self.subject, self.batch = build(millions, size), batch
        self.images = torch.rand(batch, 1, size, size) * 2 - 1
        with Flops() as flops:
            self.subject.loss(self.images[:2]).backward()
        self.flops = flops.of
        for _ in range(2):
            subjects.step(self.subject, self.images)

    def facts(self) -> dict:
        """Return parameters, GFLOP per image and step, the precision of most of them, and the peak memory in MB that
        training took so far beyond the imports."""
        precision = max(self.flops, key=self.flops.get)
        return {
            "parameters": sum(p.numel() for p in self.subject.net.parameters()),
            "gflop": sum(self.flops.values()) / 2 / 1e9,
            "precision": str(precision).removeprefix("torch."),
            "megabytes": megabytes() - self.imported,
        }

    def train(self, seconds: float) -> float:
        """Return images per core-second of whole training steps: loss, backward, optimiser, average."""
        return self.batch * per_second(lambda: subjects.step(self.subject, self.images), seconds)

    def sample(self, evaluations: int) -> float:
        """Return images per core-second at 50 network evaluations each, from a sampler of fewer `evaluations`."""
        return self.batch * evaluations / 50 * per_second(lambda: self.subject.sample(self.batch, evaluations), 0)


class Ceiling:
    """The machine's convolutions (3x3, batch 128, forward and backward) and matrix products."""

    def __init__(self):
        torch.set_num_threads(1)
        precisions = [torch.float32] + [torch.bfloat16] * bfloat16_pays(torch.device("cpu"))
        self.works = {}
        for dtype in precisions:
            name = str(dtype).removeprefix("torch.")
            for layout in (torch.contiguous_format, torch.channels_last):
                label = f"conv {name}" + (" channels_last" if layout == torch.channels_last else "")
                self.works[label] = [conv(channels, side, dtype, layout) for channels, side in CONV_SHAPES]
            self.works[f"matmul {name}"] = [matmul(*shape, dtype) for shape in MATMUL_SHAPES]

    def labels(self) -> list[str]:
        """Return the kinds of work."""
        return list(self.works)

    def torch_version(self) -> str:
        """Return PyTorch's version."""
        return torch.__version__.split("+")[0]

    def run(self, label: str, seconds: float) -> float:
        """Return GFLOP/s of one kind of work, at its fastest shape."""
        works = self.works[label]
        return max(flops / 1e9 * per_second(work, seconds / len(works)) for work, flops in works)


def conv(channels: int, side: int, dtype: torch.dtype, layout: torch.memory_format) -> tuple[Callable, int]:
    """Return what does a convolution forward and backward, and the FLOPs that it takes."""

    def tensor(*shape):
        return torch.randn(shape, dtype=dtype).contiguous(memory_format=layout)

    x, gradient = (tensor(128, channels, side, side) for _ in range(2))
    weight = tensor(channels, channels, 3, 3).requires_grad_()
    inputs = [x.requires_grad_(), weight]
    flops = 3 * 2 * 128 * side**2 * channels**2 * 9  # forward, and backward to each of the two
    return lambda: torch.autograd.grad(F.conv2d(x, weight, padding=1), inputs, gradient), flops


def matmul(rows: int, inner: int, columns: int, dtype: torch.dtype) -> tuple[Callable, int]:
    """Return what does a matrix product, and the FLOPs that it takes."""
    a, b = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    return lambda: a @ b, 2 * rows * inner * columns

"""A small MNIST classifier whose features measure generated digits; `tools/train_classifier.py` trains it again."""

import functools
import hashlib

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from litrev import checks, paths

FEATURES = 64
FILE = "classifier/mnist.safetensors"


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution with batch norm and ReLU."""
    checks.whole(inputs=inputs, outputs=outputs)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Classifier(nn.Module):
    """Digits 28x28 in [-1, 1] to 64 features to 10 logits; 0.21 M parameters."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            block(1, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2), block(64, 96), block(96, 96), nn.MaxPool2d(2)
        )
        self.embed = nn.Linear(96 * 3 * 3, FEATURES)
        self.head = nn.Linear(FEATURES, 10)
        self.register_buffer("mean", torch.zeros(FEATURES))  # of the training set's features, and their spread
        self.register_buffer("std", torch.ones(FEATURES))
        self.register_buffer(
            "test_mean", torch.zeros(FEATURES)
        )  # of the test set's features as `features` returns them
        self.register_buffer("test_cov", torch.eye(FEATURES))

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [n, 1, 28, 28] to the raw penultimate layer [n, 64], before its ReLU."""
        checks.floats("n 1 28 28", x=x)
        checks.same_type(x, self.embed.weight)
        return self.embed(self.body(x.contiguous(memory_format=torch.channels_last)).flatten(1))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [n, 1, 28, 28] in [-1, 1] to features [n, 64] that have mean 0 and variance 1 on the training set."""
        return (self.embedding(x) - self.mean) / self.std

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [n, 1, 28, 28] in [-1, 1] to logits [n, 10]."""
        return self.head(F.relu(self.embedding(x)))


def in_batches(function, x: torch.Tensor, size: int = 500) -> torch.Tensor:
    """Return `function` of x [n, ...], computed without gradients in batches of `size`."""
    checks.kind(callable, "a function of a batch", function=function)
    checks.kind(torch.Tensor, "a tensor [n, ...]", x=x)
    checks.whole(size=size)
    with torch.no_grad():
        return torch.cat([function(part) for part in x.split(size)])


@functools.cache
def load() -> Classifier:
    """Return the shipped classifier on the CPU, in eval mode and without gradients; read once per process.

    Raises FileNotFoundError or RuntimeError, with the remedy, when a shipped file is missing or damaged.
    """
    file = paths.data_dir() / FILE
    remedy = "restore it with: git checkout -- data/classifier, or train it: tools/bazel run train_classifier"
    if not (file.is_file() and file.with_suffix(".json").is_file()):
        raise FileNotFoundError(f"{file} or the JSON file beside it is missing; {remedy}")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() not in file.with_suffix(".json").read_text():
        raise RuntimeError(f"{file} is damaged (its sha256 is not the one in the JSON file beside it); {remedy}")
    net = Classifier()
    net.load_state_dict({name: tensor.float() for name, tensor in safetensors.torch.load(content).items()})
    return net.eval().requires_grad_(False)

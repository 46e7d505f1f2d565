"""Image data sets as tensors in memory: MNIST comes with the repository, two more are downloaded when asked for."""

import functools
import gzip
import hashlib
import lzma
import tarfile
from pathlib import Path

import numpy as np
import torch

from litrev import checks, paths

# Of the uncompressed IDX files, byte for byte those that LeCun, Cortes and Burges published.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
# CIFAR-10's binary edition: the Python edition, which torchvision reads, is made of pickles, and litrev loads none.
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_PREFIX = {"train": "train", "test": "t10k"}


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """Map 8-bit pixels k in 0..255, of any shape, to float32 k / 127.5 - 1 in [-1, 1]."""
    checks.pixels(pixels=pixels)
    return pixels.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_pixels(x: torch.Tensor) -> torch.Tensor:
    """Map images in [-1, 1], of any shape, to uint8 round(127.5 (x + 1)), clipped to 0..255; it undoes `to_unit`."""
    checks.floats("...", x=x)
    return x.detach().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def mnist_file(name: str) -> Path:
    """Return where the shipped copy of MNIST's IDX file `name` is."""
    checks.choice(MNIST_SHA256, name=name)
    return paths.data_dir() / "mnist" / f"{name}.xz"


def _shipped(name: str) -> bytes:
    """Return the checked, uncompressed content of a shipped IDX file."""
    file = mnist_file(name)
    remedy = f"restore it with: git checkout -- data/mnist/{file.name}"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; {remedy}")
    try:
        raw = lzma.decompress(file.read_bytes())
    except (lzma.LZMAError, EOFError):
        raise RuntimeError(f"{file} is damaged; {remedy}") from None
    if hashlib.sha256(raw).hexdigest() != MNIST_SHA256[name]:
        raise RuntimeError(f"{file} does not hold MNIST (its content has another sha256); {remedy}")
    return raw


def _downloaded(url: str, sha256: str) -> bytes:
    """Return the content of a file in data/downloads, fetched from `url` first when it is not there or is another."""
    file = paths.data_dir() / "downloads" / url.rsplit("/", 1)[-1]
    if file.is_file() and hashlib.sha256(content := file.read_bytes()).hexdigest() == sha256:
        return content
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=sha256)  # checks the hash, then moves into place
    except (OSError, RuntimeError) as problem:
        raise RuntimeError(
            f"{url} could not be downloaded to {file.parent} ({problem}): connect to the internet and run this again, "
            "or use data.mnist, which comes with the repository."
        ) from None
    return file.read_bytes()


def _from_idx(images: bytes, labels: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode a pair of IDX files: 28x28 pixels after a header of 16 bytes, labels after one of 8."""
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return to_unit(torch.tensor(pixels)), torch.tensor(np.frombuffer(labels, np.uint8, offset=8), dtype=torch.int64)


def _check(split: str) -> None:
    if split not in _PREFIX:
        raise ValueError(f"There is no split {split!r}: ask for 'train' or 'test'.")


@functools.cache
def mnist(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return MNIST's images, float32 [n, 1, 28, 28] in [-1, 1], and labels, int64 [n]; n is 60,000 or 10,000.

    `split` is 'train' or 'test'. The tensors are read once per process and shared by all callers: do not change them in
    place. Raises ValueError for another split, FileNotFoundError or RuntimeError when a shipped file is missing or
    damaged. Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits" (CC BY-SA 3.0).
    """
    _check(split)
    return _from_idx(*(_shipped(f"{_PREFIX[split]}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")))


@functools.cache
def fashion_mnist(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Fashion-MNIST: images float32 [n, 1, 28, 28] in [-1, 1], labels int64 [n]; a download of 30 MB, once.

    Shared by all callers, as in `mnist`. Raises ValueError for an unknown split, RuntimeError when the files are not
    there and cannot be downloaded. Source: Xiao, Rasul & Vollgraf, arXiv 1708.07747 (MIT licence).
    """
    _check(split)
    names = [f"{_PREFIX[split]}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    return _from_idx(*(gzip.decompress(_downloaded(FASHION_URL + name, FASHION_SHA256[name])) for name in names))


@functools.cache
def cifar10(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return CIFAR-10: images float32 [n, 3, 32, 32] in [-1, 1], labels int64 [n]; a download of 170 MB, once.

    Shared by all callers, as in `mnist`. Raises ValueError for an unknown split, RuntimeError when the archive is not
    there and cannot be downloaded. Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    _check(split)
    _downloaded(CIFAR_URL, CIFAR_SHA256)
    batches = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else ["test_batch.bin"]
    with tarfile.open(paths.data_dir() / "downloads" / CIFAR_URL.rsplit("/", 1)[-1]) as archive:
        raw = b"".join(archive.extractfile(f"cifar-10-batches-bin/{name}").read() for name in batches)
    records = torch.tensor(np.frombuffer(raw, np.uint8).reshape(-1, 1 + 3 * 32 * 32))  # a label, then R, G, B planes
    return to_unit(records[:, 1:].reshape(-1, 3, 32, 32)), records[:, 0].to(torch.int64)

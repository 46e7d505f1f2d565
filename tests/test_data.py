"""MNIST is the original, whatever is wrong with a file is said, and downloads are checked before use."""

import gzip
import hashlib
import io
import lzma
import shutil
import tarfile

import numpy as np
import pytest
import torch

from litrev import paths
from litrev.data import images as data


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A checkout of its own whose MNIST test labels a test may damage; no data set is remembered before or after."""
    source = data.mnist_file("t10k-labels-idx1-ubyte")
    target = tmp_path / "data" / "mnist" / source.name
    target.parent.mkdir(parents=True)
    shutil.copyfile(source, target)
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    for cached in (data.fashion_mnist, data.cifar10):
        cached.cache_clear()
    yield target
    for cached in (data.fashion_mnist, data.cifar10):
        cached.cache_clear()


@pytest.mark.parametrize("split, n", [("train", 60_000), ("test", 10_000)])
def test_mnist_is_whole(split, n):
    images, labels = data.mnist(split)
    assert images.shape == (n, 1, 28, 28) and images.dtype == torch.float32
    assert labels.shape == (n,) and labels.dtype == torch.int64
    assert images.min() == -1 and images.max() == 1
    assert labels.unique().tolist() == list(range(10))


def test_mnist_known_figures():
    images, labels = data.mnist("train")
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    ink = (images + 1) / 2
    assert ink.mean().item() == pytest.approx(0.1307, abs=1e-4)  # the mean and standard deviation that everybody uses
    assert ink.std().item() == pytest.approx(0.3081, abs=1e-4)


def test_mnist_is_read_once():
    assert data.mnist("test")[0] is data.mnist("test")[0]


def test_shipped_files_stay_small():
    assert sum(file.stat().st_size for file in (paths.data_dir() / "mnist").iterdir()) < 12e6


def test_pixels_round_trip_and_clip():
    pixels = torch.arange(256).to(torch.uint8)
    assert torch.equal(data.to_pixels(data.to_unit(pixels)), pixels)
    assert data.to_pixels(torch.tensor([-3.0, 3.0, 0.0031, -0.0031])).tolist() == [0, 255, 128, 127]
    ends = torch.tensor([0, 255], dtype=torch.uint8)
    assert data.to_unit(ends).tolist() == [-1.0, 1.0]
    assert ends.tolist() == [0, 255]  # the argument is left alone


@pytest.mark.parametrize("load", [data.mnist, data.fashion_mnist, data.cifar10])
def test_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match="'validation'.*'train' or 'test'"):
        load("validation")


def test_missing_file_is_named(elsewhere):
    elsewhere.unlink()
    with pytest.raises(FileNotFoundError, match="missing; restore it with: git checkout -- data/mnist/t10k-labels"):
        data._shipped("t10k-labels-idx1-ubyte")


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda b: b[: len(b) // 2], "is damaged; restore"),
        (lambda b: b"", "is damaged; restore|another sha256"),
        (lambda b: b[:1000] + bytes([b[1000] ^ 1]) + b[1001:], "is damaged; restore"),
        (lambda b: b"not xz at all", "is damaged; restore"),
        (lambda b: lzma.compress(b"another file"), "does not hold MNIST .*another sha256.*; restore"),
    ],
)
def test_damaged_file_is_named(elsewhere, damage, said):
    elsewhere.write_bytes(damage(elsewhere.read_bytes()))
    with pytest.raises(RuntimeError, match=said):
        data._shipped("t10k-labels-idx1-ubyte")


def publish(monkeypatch, folder, files, urls_from, table_name):
    """Put `files` where a web server would have them and tell litrev.data about their sha256."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(data, urls_from, f"{folder.as_uri()}/")
    monkeypatch.setattr(
        data, table_name, {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    )


def small_fashion():
    images = bytes(16) + bytes(range(256)) * 49  # 16 images of 784 pixels
    return {
        "t10k-images-idx3-ubyte.gz": gzip.compress(images),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(bytes(8) + bytes(range(16))),
    }


def test_fashion_mnist_is_fetched_once_checked_and_decoded(elsewhere, monkeypatch, tmp_path):
    publish(monkeypatch, tmp_path / "server", small_fashion(), "FASHION_URL", "FASHION_SHA256")
    images, labels = data.fashion_mnist("test")
    assert images.shape == (16, 1, 28, 28) and labels.tolist() == list(range(16))
    assert data.to_pixels(images).flatten().tolist() == list(range(256)) * 49
    shutil.rmtree(tmp_path / "server")
    data.fashion_mnist.cache_clear()
    assert torch.equal(data.fashion_mnist("test")[0], images)  # from data/downloads, with no server left


def test_a_download_that_is_another_file_is_refused_and_not_kept(elsewhere, monkeypatch, tmp_path):
    publish(monkeypatch, tmp_path / "server", small_fashion(), "FASHION_URL", "FASHION_SHA256")
    (tmp_path / "server" / "t10k-images-idx3-ubyte.gz").write_bytes(b"tampered")
    with pytest.raises(RuntimeError, match="could not be downloaded .*invalid hash value"):
        data.fashion_mnist("test")
    assert list((tmp_path / "data" / "downloads").iterdir()) == []


def test_a_damaged_download_is_fetched_again(elsewhere, monkeypatch, tmp_path):
    publish(monkeypatch, tmp_path / "server", small_fashion(), "FASHION_URL", "FASHION_SHA256")
    images, _ = data.fashion_mnist("test")
    (tmp_path / "data" / "downloads" / "t10k-images-idx3-ubyte.gz").write_bytes(b"bit rot")
    data.fashion_mnist.cache_clear()
    assert torch.equal(data.fashion_mnist("test")[0], images)


@pytest.mark.parametrize("load, address", [(data.fashion_mnist, "FASHION_URL"), (data.cifar10, "CIFAR_URL")])
def test_without_network_one_sentence_says_what_to_do(elsewhere, monkeypatch, tmp_path, load, address):
    monkeypatch.setattr(data, address, (tmp_path / "nowhere").as_uri() + "/archive.tar.gz")
    with pytest.raises(RuntimeError, match="connect to the internet and run this again, or use data.mnist"):
        load("train")


def test_cifar10_is_decoded_from_the_binary_archive(elsewhere, monkeypatch, tmp_path):
    records = np.arange(2 * 3073, dtype=np.int64).astype(np.uint8).reshape(2, 3073)
    records[:, 0] = [3, 9]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = records.nbytes
            archive.addfile(info, io.BytesIO(records.tobytes()))
    server = tmp_path / "cifar.tar.gz"
    server.write_bytes(packed.getvalue())
    monkeypatch.setattr(data, "CIFAR_URL", server.as_uri())
    monkeypatch.setattr(data, "CIFAR_SHA256", hashlib.sha256(packed.getvalue()).hexdigest())
    images, labels = data.cifar10("test")
    assert images.shape == (2, 3, 32, 32) and labels.tolist() == [3, 9]
    assert data.to_pixels(images)[1].flatten().tolist() == records[1, 1:].tolist()
    assert data.cifar10("train")[0].shape == (10, 3, 32, 32)

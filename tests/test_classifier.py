"""The shipped classifier reads digits as well as it says, the code that trained it learns, and damage is found."""

import json
import shutil

import pytest
import torch

from litrev import data, paths
from litrev.device import generator
from litrev.quality import classifier
from tools import train_classifier


@pytest.fixture
def copy(monkeypatch, tmp_path):
    """A checkout that holds nothing but the shipped classifier; what is in memory is forgotten before and after."""
    shutil.copytree(paths.data_dir() / "classifier", tmp_path / "data" / "classifier")
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    classifier.load.cache_clear()
    yield tmp_path / "data" / classifier.FILE
    classifier.load.cache_clear()


def test_shipped_classifier_reads_the_test_digits():
    right = train_classifier.accuracy(classifier.load(), *data.mnist("test"))
    assert right >= 0.993
    facts = json.loads((paths.data_dir() / classifier.FILE).with_suffix(".json").read_text())
    assert right == pytest.approx(facts["test_accuracy"], abs=3e-4)  # a few digits may tip over on another machine
    assert facts["parameters"] == sum(p.numel() for p in classifier.load().parameters())


def test_shipped_file_is_small_and_half():
    file = paths.data_dir() / classifier.FILE
    assert file.stat().st_size < 3e6
    weights = [tensor for tensor in classifier.load().state_dict().values() if tensor.ndim == 4]
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in weights)


def test_load_is_ready_to_measure_with():
    net = classifier.load()
    assert net is classifier.load() and not net.training
    assert not any(p.requires_grad for p in net.parameters())
    x = data.mnist("test")[0][:7]
    assert net(x).shape == (7, 10) and net.features(x).shape == (7, 64)
    assert torch.allclose(net.features(x)[2:3], net.features(x[2:3]), atol=1e-4)  # no image depends on its neighbours


def test_jitter_moves_digits_but_keeps_them_on_the_paper():
    x = data.mnist("train")[0][:200]
    moved = train_classifier.jitter(x, generator(0))
    assert torch.equal(moved, train_classifier.jitter(x, generator(0)))
    assert moved.min() >= -1 and moved.max() <= 1 + 1e-5
    assert ((moved - x).abs().mean((1, 2, 3)) > 0.01).all()
    assert train_classifier.accuracy(classifier.load(), moved, data.mnist("train")[1][:200]) > 0.95


def test_training_learns_and_repeats():
    images, labels = data.mnist("train")
    net = train_classifier.train(images[:1000], labels[:1000], epochs=3, batch=25)
    assert train_classifier.accuracy(net, *(x[:500] for x in data.mnist("test"))) > 0.8
    once, twice = (train_classifier.train(images[:100], labels[:100], epochs=1, seed=3, batch=50) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True))


def test_write_and_load_give_the_same_classifier(copy):
    net = train_classifier.halve(train_classifier.train(*(x[:100] for x in data.mnist("train")), epochs=1, batch=50))
    net.test_mean = torch.full((64,), 1 / 3)  # moments keep their float32
    train_classifier.write(net, {"seed": 0})
    loaded = classifier.load()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert json.loads(copy.with_suffix(".json").read_text())["bytes"] == copy.stat().st_size


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda file: file.unlink(), "missing"),
        (lambda file: file.with_suffix(".json").unlink(), "missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"), "damaged"),
    ],
)
def test_missing_or_damaged_file_is_named(copy, damage, said):
    damage(copy)
    with pytest.raises((FileNotFoundError, RuntimeError), match=f"{said}.*git checkout -- data/classifier"):
        classifier.load()

"""Shared networks are found by name, shipped ones first, and trained where there are none."""

import shutil

import pytest
import torch

from lab import base, students
from lab.training import fit
from litrev import data, device, paths
from litrev.diffusion import distillation
from litrev.diffusion.denoiser import clip_x0, from_network, given
from litrev.diffusion.samplers import ddim, final
from litrev.nets.laptop_unet import LaptopUNet
from litrev.quality import classifier, metrics


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """A checkout with MNIST and nothing trained, at the smoke preset."""
    (tmp_path / "data" / "trained").mkdir(parents=True)
    shutil.copytree(paths.data_dir() / "mnist", tmp_path / "data" / "mnist")
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_PRESET", "smoke")
    monkeypatch.delenv("LITREV_RUNS", raising=False)
    return tmp_path


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """The laptop preset, and nothing kept beside what is shipped."""
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))


@pytest.mark.parametrize(("build", "steps"), [(base.ddpm_mnist_brief, 4000), (base.ddpm_mnist, 60000)])
def test_a_shipped_base_draws_digits(shipped, build, steps):
    run = build()
    assert run.source == "shipped" and run.about["description"]["steps"] == steps
    xT = device.randn((100, 1, 28, 28), device.generator(0), device.device())
    made = final(ddim(clip_x0(from_network(run.net, base.CHAIN, "v")), xT, base.CHAIN.grid(10))).cpu()
    assert metrics.class_balance(made).confidence > 0.85


def test_trained_where_there_is_none_then_found(empty):
    for build in (base.ddpm_mnist, base.digits_by_class, base.ddpm_mnist_brief):
        first, again = build(), build()
        assert first.source == "trained now" and again.source == "this machine's cache" and again.key == first.key


DIGITS = (data.mnist("train")[0],)


def test_a_run_of_another_notebook_is_shared(empty):
    """Notebook 03 trains the brief network by a loss of its own that is written out."""

    def loss(net, batch, generator):
        return 1.0 * base.simple_loss(net, batch, generator)

    options = {"name": "ddpm_mnist", "steps": 6, "batch": 8, "optimiser": "muon"}
    theirs = fit(LaptopUNet, loss, DIGITS, **options)
    found = base.ddpm_mnist_brief()
    assert found.source != "trained now" and found.key == theirs.key
    arguments = "ddpm_mnist", LaptopUNet, base.simple_loss, DIGITS
    assert base.shared(*arguments, 7, 8) is None
    assert base.shared("other", *arguments[1:], 6, 8) is None


def test_a_run_that_was_trained_on_something_else_is_not_shared(empty):
    fit(LaptopUNet, lambda *a: 2.0 * base.simple_loss(*a), DIGITS, name="ddpm_mnist", steps=6, batch=8)
    assert base.ddpm_mnist_brief().source == "trained now"


def test_weights_that_do_not_fit_are_refused(empty):
    base.ddpm_mnist_brief()
    with pytest.raises(RuntimeError, match="size mismatch|Missing key"):
        base.shared("ddpm_mnist", lambda: LaptopUNet(width=32), base.simple_loss, DIGITS, 6, 8)


def test_class_loss_of_a_silent_network_is_the_mean_of_v_squared():
    # F = 0: the loss is E |alpha eps - sigma x0|^2 = 1 for images of ones; hidden labels are what DROPPED says.
    seen = []

    def silent(xt, time, label):
        seen.append(label)
        return torch.zeros_like(xt)

    x0, label = torch.ones(4000, 1, 1, 1), torch.arange(4000) % 10
    loss = base.class_loss(silent, (x0, label), device.generator(0))
    assert float(loss) == pytest.approx(1, abs=0.08)
    hidden = (seen[0] == base.CLASSES).float().mean()
    assert hidden == pytest.approx(base.DROPPED, abs=0.02) and (seen[0] == label).float().mean() == 1 - hidden


def test_simple_loss_of_a_silent_network_is_what_is_left():
    # F = 0 predicts eps_hat = sigma x_t, so the loss is E |alpha (alpha eps - sigma x0)|^2 = alpha^2 E |v|^2.
    x0, rng = torch.ones(4000, 1, 1, 1), device.generator(0)
    loss = base.simple_loss(lambda xt, time: torch.zeros_like(xt), (x0,), rng)
    t = torch.arange(1, 1001)
    alpha, sigma = base.CHAIN.alpha(t), base.CHAIN.sigma(t)
    expected = (alpha**2 * (alpha**2 + sigma**2 * 1)).mean()
    assert float(loss) == pytest.approx(float(expected), rel=0.08)


LABEL, XT = torch.arange(100) % 10, device.randn((100, 1, 28, 28), device.generator(0))


def right(made):
    """The share of 100 digits that the classifier takes for what they should be."""
    return (classifier.in_batches(classifier.load(), made).argmax(1) == LABEL).double().mean().item()


def test_the_shipped_digits_by_class_are_of_their_class(shipped):
    run = base.digits_by_class()
    assert run.source == "shipped"
    denoiser = clip_x0(from_network(run.net, base.COSINE, "v"))
    assert right(final(ddim(given(denoiser, label=LABEL), XT, base.COSINE.grid(10)))) > 0.95
    assert right(final(ddim(given(denoiser, label=torch.full((100,), base.CLASSES)), XT, base.COSINE.grid(10)))) < 0.3


def test_shipped_students_draw_in_few_steps_what_they_are_asked_for(shipped):
    found = students.progressive()
    assert list(found) == [16, 8, 4, 2, 1] and {run.source for run in found.values()} == {"shipped"}
    for steps in (4, 1):
        denoiser = given(clip_x0(from_network(found[steps].net, base.COSINE, "v")), label=LABEL)
        assert right(final(ddim(denoiser, XT, base.COSINE.grid(steps)))) > 0.95
    for run in (students.consistency_distillation(), students.consistency_training()):
        f, times = distillation.consistency(run.net), [distillation.T_MAX, 0.6]
        assert run.source == "shipped"
        assert right(distillation.multistep(f, XT, times, device.generator(1), label=LABEL)) > 0.95


def test_students_are_trained_where_there_are_none(empty):
    assert [run.source for run in students.progressive().values()] == ["trained now"] * 5
    for made in (students.consistency_distillation, students.consistency_training):
        assert made().source == "trained now" and made().source == "this machine's cache"

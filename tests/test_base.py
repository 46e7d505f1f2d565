"""Shared networks are found by name, shipped ones first, and trained where there are none."""

import shutil

import pytest
import torch

from lab import base, runs
from litrev import device, paths
from litrev.diffusion.denoiser import clip_x0, from_network
from litrev.diffusion.samplers import ddim, final
from litrev.nets.laptop_unet import LaptopUNet
from litrev.quality import metrics


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """A checkout with MNIST and nothing trained, at the smoke preset."""
    (tmp_path / "data" / "trained").mkdir(parents=True)
    shutil.copytree(paths.data_dir() / "mnist", tmp_path / "data" / "mnist")
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_PRESET", "smoke")
    monkeypatch.delenv("LITREV_RUNS", raising=False)
    return tmp_path


def test_the_shipped_ddpm_draws_digits(monkeypatch):
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    run = base.ddpm_mnist()
    assert run.source == "shipped" and run.about["description"]["steps"] == 4000
    xT = device.randn((100, 1, 28, 28), device.generator(0), device.device())
    made = final(ddim(clip_x0(from_network(run.net, base.CHAIN, "v")), xT, base.CHAIN.grid(10))).cpu()
    assert metrics.class_balance(made).confidence > 0.85


def test_trained_where_there_is_none_then_found(empty, capsys):
    first = base.ddpm_mnist()
    assert first.source == "trained now"
    again = base.ddpm_mnist()
    assert again.source == "this machine's cache" and again.key == first.key
    runs.ship(first)
    shipped = base.shared("ddpm_mnist", LaptopUNet, 6)
    assert "loaded, not trained again" in capsys.readouterr().out and shipped.key == first.key
    assert base.shared("ddpm_mnist", LaptopUNet, 7) is None and base.shared("other", LaptopUNet, 6) is None


def test_weights_that_do_not_fit_are_refused(empty):
    base.ddpm_mnist()
    with pytest.raises(RuntimeError, match="size mismatch|Missing key"):
        base.shared("ddpm_mnist", lambda: LaptopUNet(width=32), 6)


def test_simple_loss_of_a_silent_network_is_what_is_left():
    # F = 0 predicts eps_hat = sigma x_t, so the loss is E |alpha (alpha eps - sigma x0)|^2 = alpha^2 E |v|^2.
    x0, rng = torch.ones(4000, 1, 1, 1), device.generator(0)
    loss = base.simple_loss(lambda xt, time: torch.zeros_like(xt), (x0,), rng)
    t = torch.arange(1, 1001)
    alpha, sigma = base.CHAIN.alpha(t), base.CHAIN.sigma(t)
    expected = (alpha**2 * (alpha**2 + sigma**2 * 1)).mean()
    assert float(loss) == pytest.approx(float(expected), rel=0.08)

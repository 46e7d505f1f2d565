"""The device is chosen in one order, noise is the same everywhere, and a wrong device is found out."""

import pytest
import torch

from litrev import device


@pytest.fixture
def machine(monkeypatch):
    """Pretend that this machine has exactly the given accelerators."""

    def pretend(*kinds):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)

    monkeypatch.delenv("LITREV_DEVICE", raising=False)
    return pretend


@pytest.mark.parametrize(
    "present, chosen", [(["mps", "cuda"], "mps"), (["mps"], "mps"), (["cuda"], "cuda"), ([], "cpu")]
)
def test_order_is_mps_cuda_cpu(machine, present, chosen):
    machine(*present)
    assert device.device().type == chosen


def test_environment_overrides(machine, monkeypatch):
    machine("mps", "cuda")
    monkeypatch.setenv("LITREV_DEVICE", "cpu")
    assert device.device().type == "cpu"


def test_missing_and_unknown_devices_are_refused(machine, monkeypatch):
    machine()
    monkeypatch.setenv("LITREV_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match="'cuda'.*unset it"):
        device.device()
    monkeypatch.setenv("LITREV_DEVICE", "gpu")
    with pytest.raises(ValueError, match="'gpu'.*'mps', 'cuda' or 'cpu'"):
        device.device()


def test_noise_is_a_function_of_the_seed_alone():
    first = device.randn((2, 3), device.generator(7))
    torch.manual_seed(0)  # the global generator plays no part
    assert torch.equal(first, device.randn((2, 3), device.generator(7), torch.device("cpu")))
    assert not torch.equal(first, device.randn((2, 3), device.generator(8)))
    assert first.dtype == torch.float32


def test_describe_names_device_and_version(machine):
    machine()
    assert device.describe().startswith("CPU, ")
    assert torch.__version__.split("+")[0] in device.describe()


def test_check_agrees_on_the_cpu_and_finds_a_wrong_device(machine, monkeypatch, capsys):
    machine()
    device.synchronize(device.device())
    assert device.check() == 0.0
    assert "agrees with the CPU" in capsys.readouterr().out
    right = device._probe
    answers = iter([right(torch.device("cpu")), [tensor * 1.01 for tensor in right(torch.device("cpu"))]])
    monkeypatch.setattr(device, "_probe", lambda _: next(answers))
    with pytest.raises(RuntimeError, match="differs from the CPU by 1.0e-02.*LITREV_DEVICE=cpu"):
        device.check()

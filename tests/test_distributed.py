"""Two processes on the CPU train what one trains with the whole batch; when one is lost, all end, and one sentence says
how to go on."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import distributed_toy as toy
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn

from lab import batches, distributed, large, runs, training

HERE = Path(__file__).parent
AGAIN = "run the same command again, and it goes on from the step that was saved last.\n"


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    monkeypatch.setenv("LITREV_DEVICE", "cpu")
    monkeypatch.setenv("LITREV_PRESET", "smoke")


def started(folder, module, *arguments):
    """A program that starts two processes, when it has ended; runs are kept in `folder`."""
    settings = {"LITREV_RUNS": str(folder), "LITREV_DEVICE": "cpu", "LITREV_PRESET": "smoke", "OMP_NUM_THREADS": "1"}
    settings |= {"PYTHONPATH": f"{HERE}:{HERE.parent}", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # no complaint of a lack of DNS
    settings |= {"TMPDIR": str(folder)}  # where torchrun leaves a folder for each start
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)


def toys(folder, mode):
    return started(folder, "distributed_toy", mode, str(folder))


def kept(folder, optimiser):
    (path,) = folder.glob(f"toy_{optimiser}-{'?' * 12}.safetensors")
    return runs.unpack(path.read_bytes())[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both toy runs by two processes: the folder, and what was said."""
    folder = tmp_path_factory.mktemp("trained")
    done = toys(folder, "train")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_gradients_are_those_of_the_whole_batch(trained):
    """Not those of a part, of a mean of parts, nor twice theirs; they differ by the order in which they are summed."""
    whole = toy.gradients()
    for rank in (0, 1):
        shared = safetensors.torch.load_file(trained[0] / f"gradients-{rank}.safetensors")
        assert shared.keys() == whole.keys() and len(whole) == 5
        for name, gradient in whole.items():
            torch.testing.assert_close(shared[name], gradient, rtol=1e-5, atol=1e-6)


def test_batches_come_in_the_same_order_everywhere(trained, monkeypatch):
    monkeypatch.setattr(batches, "draw", batches.draw)  # which `seen` replaces
    order = toy.seen()
    for optimiser in toy.TOYS:
        toy.alone(optimiser)
    probes = 2  # the first process probes what it keeps, as one alone does
    of_first, of_second = ((trained[0] / f"seen-{rank}").read_text().split()[2:] for rank in (0, 1))
    assert of_first == order and len(order) == 2 * (40 + probes)
    assert of_second == order[:40] + order[40 + probes : 80 + probes]


@pytest.mark.parametrize(("optimiser", "rounding"), [("adamw", 1e-6), ("muon", 3e-5)])
def test_weights_are_those_of_one_process(trained, optimiser, rounding):
    """After 40 steps of about 1e-3 they are off by 3e-8 and 3e-6: Muon scales up small singular values of a gradient,
    and its rounding with them. With other noise in one step of the forty they would be off by more than 2e-3."""
    one, two = toy.alone(optimiser).tensors, kept(trained[0], optimiser)
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=1e-5, atol=rounding)


def test_the_first_process_alone_speaks_and_keeps(trained, monkeypatch, capsys):
    folder, said = trained
    assert said.count("toy_muon: training 0.000402 M parameters, 40 steps of 8") == 1
    assert said.count("toy_muon: 2 processes, each with 4 examples of a batch.") == 1
    assert said.count("40/40") <= 4 and said.count("0/40 [00:00<?") == 2  # one bar a run
    assert [(folder / f"seen-{rank}").read_text().split()[:2] for rank in (0, 1)] == [["True"] * 2, ["False"] * 2]
    assert len(list(folder.glob("toy_*.safetensors"))) == 2 and not list(folder.glob("*.partial*"))
    monkeypatch.setenv("LITREV_RUNS", str(folder))
    run = toy.alone("muon")
    assert (run.source, run.device) == ("this machine's cache", "2 x cpu")


def test_ctrl_c_saves_and_the_same_command_goes_on(trained, tmp_path):
    done = toys(tmp_path, "interrupt")
    assert done.returncode == 1 and done.stderr == f"Stopped by SIGINT: {AGAIN}"
    assert done.stdout.count("toy_muon: interrupted at step") == 1
    done = toys(tmp_path, "resume")
    assert done.returncode == 0 and done.stdout.count("toy_muon: goes on at step") == 1, done.stderr
    whole, resumed = kept(trained[0], "muon"), kept(tmp_path, "muon")
    assert all(torch.equal(whole[name], resumed[name]) for name in {*whole, *resumed})


def test_a_killed_process_ends_all(tmp_path):
    done = toys(tmp_path, "kill")
    assert done.returncode == 1 and done.stderr == f"Process 1 was killed by SIGKILL, so all were ended: {AGAIN}"
    for rank in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"pid-{rank}").read_text()), 0)
    assert len(list(tmp_path.glob("toy_muon*.partial.safetensors"))) == 1


def test_what_goes_wrong_in_all_is_said_once(tmp_path):
    done = toys(tmp_path, "diverge")
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert done.stderr.count("RuntimeError: toy_adamw: loss or weights became infinite or NaN in steps 1 to 1") == 1


def test_a_larger_network_is_trained_by_one_command(tmp_path):
    done = started(tmp_path, "lab.large", "digits_by_class", "--processes", "2")
    assert done.returncode == 0, done.stderr
    shared = large.load("digits_by_class")
    assert (shared.source, shared.device) == ("this machine's cache", "2 x cpu")
    parts, numbers = large.parts("digits_by_class"), asdict(large.recipe())
    alone = training.fit(*parts, name="large_digits_by_class", retrain=True, **numbers)
    assert shared.history.loss == pytest.approx(alone.history.loss, rel=1e-2)  # a processor may compute in bfloat16


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["mnist"], {}, "invalid choice: 'mnist' (choose from"),
        (["ddpm_mnist", "--processes=0"], {}, "processes must be a whole number of at least 1, not 0."),
        (["ddpm_mnist", "--processes=3"], {}, "batch must be a multiple of processes; 8 is none of 3."),
        (["ddpm_mnist"], {"LITREV_PRESET": "huge"}, "LITREV_PRESET is 'huge': set it to 'laptop' or 'smoke'"),
        (["ddpm_mnist"], {"LITREV_DEVICE": "gpu"}, "LITREV_DEVICE is 'gpu': set it to"),
    ],
)
def test_a_command_that_cannot_be_meant_gets_a_sentence(monkeypatch, capsys, arguments, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["large", *arguments])
    with pytest.raises(SystemExit) as ended:
        large.main()
    assert ended.value.code in (1, 2) and said in capsys.readouterr().err


def test_devices_that_are_not_there_are_missed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for kind, said in (("cuda", "4 processes need a GPU each, and PyTorch finds 2"), ("mps", "here is Apple's GPU")):
        monkeypatch.setattr(distributed, "device", lambda kind=kind: torch.device(kind))
        with pytest.raises(ValueError, match=said):
            distributed.require_devices(4)


def test_without_torchrun_it_says_so():
    with pytest.raises(RuntimeError, match="This needs torchrun: torchrun --standalone"), distributed.processes():
        pass


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_network_that_mixes_examples_is_refused(one_process):
    for part in (nn.Dropout(0.1), nn.BatchNorm1d(2)):
        with pytest.raises(ValueError, match=f"{type(part).__name__} gives a part of a batch other answers"):
            distributed.fit(lambda: nn.Sequential(part), toy.loss, toy.examples, toy.recipe("muon"), name="mixed")  # noqa: B023

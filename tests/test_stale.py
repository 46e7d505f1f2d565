"""What is kept is shown only while litrev still computes it: an edit that matters is said, tidying is not noticed."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_run import build, examples, loss, train

from lab import fingerprint, optim, probe, runs, sources
from lab.measure import measure
from litrev import paths
from litrev.diffusion import samplers, schedules
from litrev.diffusion.denoiser import from_network
from litrev.nets.laptop_unet import LaptopUNet

HERE = Path(__file__).parent
TRAINED = ["activation", "time embedding", "schedule", "times off by one", "added noise", "noise generator"]
MEASURED = [*TRAINED, "prediction", "clipping's default", "sampler", "guidance", "grid", "metric", "data"]
HARMLESS = ["nothing", "comment", "docstring", "layout", "local name", "type hint", "helper's name", "unused function"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What fit and measure did after each edit, and after it was taken back."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("litrev", "lab"):
        shutil.copytree(HERE.parent / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(root), "LITREV_ROOT": str(root), "LITREV_RUNS": str(root / "runs")}
    environment |= {"LITREV_DEVICE": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, HERE / "stale_edits.py", root]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("edit", MEASURED)
def test_an_edit_of_what_was_used_is_noticed_and_said(outcomes, edit):
    (trained, measured, said), back = outcomes[edit]
    assert (trained, measured) == (edit in TRAINED, True), said
    assert "changed since" in said and "litrev." in said
    # Taken back: the run is made again, and the measurement of its network, which has the weights of before, is found.
    assert back[:2] == [trained, not trained]


@pytest.mark.parametrize("edit", HARMLESS)
def test_tidying_is_not_noticed(outcomes, edit):
    for trained, measured, said in outcomes[edit]:
        assert not trained and not measured and "changed" not in said, said


def test_every_edit_was_tried(outcomes):
    assert set(outcomes) == {*MEASURED, *HARMLESS}


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_DEVICE", "cpu")
    return tmp_path


CHAIN = schedules.LinearChain(10)


def answer(net, x):
    denoiser = from_network(net, CHAIN, "v")
    return {"x": samplers.final(samplers.ddim(denoiser, x, CHAIN.grid(2)))}


def small():
    torch.manual_seed(0)
    return LaptopUNet(width=16, depth=1, middle=1, heads=1)


def measured(capsys, net):
    measure(answer, net, torch.ones(1, 1, 8, 8), name="answer")
    return capsys.readouterr().out


def halved(self, t):
    return 0.5 * schedules.Chain.alpha(self, t)


@pytest.mark.parametrize(
    "owner, name, new",
    [
        (schedules.LinearChain, "alpha", halved),
        (LaptopUNet, "forward", lambda self, x, time: x),
        (samplers, "_levels", lambda schedule, t: (1.0, 0.5)),
    ],
    ids=["schedule", "network", "helper"],
)
def test_code_replaced_in_the_session_is_noticed(capsys, monkeypatch, owner, name, new):
    assert "measured now" in measured(capsys, small()) and "this machine's cache; measured" in measured(capsys, small())
    monkeypatch.setattr(owner, name, new)
    assert "changed since: measuring again" in measured(capsys, small())
    monkeypatch.undo()


def test_a_network_changed_in_place_is_measured_again(capsys):
    net = small()
    measured(capsys, net)
    for weight in net.parameters():
        weight.data.mul_(3)
    assert "measured now" in measured(capsys, net)


def test_code_that_moves_to_another_file_is_the_same(monkeypatch):
    used = sources.used(answer, small())
    monkeypatch.setattr(samplers, "__name__", "litrev.elsewhere")
    for value in vars(samplers).values():
        if getattr(value, "__module__", "") == samplers.__name__:
            monkeypatch.setattr(value, "__module__", "litrev.elsewhere")
    moved = sources.used(answer, small())
    assert sources.changed(used, moved) == []


def test_every_function_of_litrev_that_is_used_is_named():
    named = sources.used(answer, small())["functions"]
    expected = ["diffusion.samplers:ddim", "diffusion.samplers:_levels", "diffusion.schedules:LinearChain.betas"]
    expected += ["nets.laptop_unet:Block.forward", "nets.blocks:sinusoidal", "diffusion.denoiser:as_prediction"]
    assert {f"litrev.{name}" for name in expected} <= named.keys()
    assert all(sources.now(name) == digest for name, digest in named.items() if "<locals>" not in name)
    assert sources.now("litrev.diffusion.samplers:nothing") is None is sources.now("litrev.nothing:ddim")


def test_what_a_newer_python_adds_to_a_dataclass_is_no_edit(monkeypatch):
    chain = schedules.LinearChain
    before, described = sources.used(chain), fingerprint.describe(chain(), "chain")
    monkeypatch.setattr(chain, "__replace__", dataclasses.replace, raising=False)  # as Python 3.13 does
    assert sources.used(chain) == before and fingerprint.describe(chain(), "chain") == described


def test_an_optimiser_that_was_used_is_the_same_code(monkeypatch):
    step = optim.Muon.step
    while getattr(step, "hooked", False):  # an earlier test may have used it
        step = step.__wrapped__
    monkeypatch.setattr(optim.Muon, "step", step)
    unused = sources.used(optim.Muon)
    optim.Muon([torch.ones(2, 2)], 0.1)
    assert optim.Muon.step.hooked and sources.used(optim.Muon) == unused


def test_a_function_that_pytorch_wraps_stays_itself(monkeypatch):
    """Importing torch._dynamo, which an optimiser does, puts a wrapper around torch.manual_seed."""

    def seeded():
        return torch.manual_seed(0)

    before = sources.used(seeded)
    monkeypatch.setattr(torch, "manual_seed", functools.wraps(torch.manual_seed)(lambda *args: None))
    assert sources.used(seeded) == before


def test_a_loss_changed_from_outside_is_noticed(capsys, monkeypatch):
    """Nothing of litrev has changed, but the kept run no longer does what it did."""
    train()
    take = probe.take
    monkeypatch.setattr(probe, "take", lambda *arguments: [1.1 * answer for answer in take(*arguments)])
    assert train().source == "trained now"
    assert "something outside of litrev changed since" in capsys.readouterr().out


def test_a_loss_that_only_works_in_training_is_kept_all_the_same():
    def strict(net, batch, generator):
        assert net.training
        return loss(net, batch, generator)

    assert [train(loss=strict).source for _ in range(2)] == ["trained now", "this machine's cache"]


def test_a_loss_that_wants_its_batch_is_probed_with_it():
    def paired(net, batch, generator):
        return (net(batch) - torch.ones(32, 1)).square().mean()

    run = train(loss=paired, batch=32)
    assert len(run.about["probe"]) == 2 * probe.BATCHES and train(loss=paired, batch=32).source != "trained now"


def test_probes_tell_small_changes_from_rounding():
    net = build().eval()
    taken = probe.take(net, loss, examples, 8, 0)
    assert taken == probe.take(net, loss, examples, 8, 0) and len(taken) == 4
    net[0].weight.data.mul_(1 + 1e-7)
    assert probe.agree(taken, probe.take(net, loss, examples, 8, 0), probe.CLOSE)
    net[0].weight.data.mul_(1.01)
    assert not probe.agree(taken, probe.take(net, loss, examples, 8, 0), probe.CLOSE)
    assert probe.agree([float("nan"), 1.0], [float("nan"), 1.0], probe.CLOSE)
    assert not probe.agree([1.0], [1.0, 1.0], probe.LOOSE)


def test_an_interrupted_run_does_not_go_on_with_other_code(monkeypatch, capsys):
    interrupted = {"sources": sources.used(), "step": 3}
    monkeypatch.setattr(runs, "read", lambda path, key: ({}, interrupted) if "partial" in path.name else None)
    train()
    said = capsys.readouterr().out
    assert "goes on" not in said and "toy: was interrupted, and" in said and "changed since: starts again" in said


def test_what_is_vouched_for_is_taken_over(checkout, monkeypatch, capsys):
    first = train()
    runs.ship(first)
    shutil.rmtree(paths.runs_dir())
    assert train(lr=1e-3, name="toy").source == "trained now"
    shutil.rmtree(paths.runs_dir())
    monkeypatch.setenv("LITREV_VOUCH", "other toy")
    assert train(lr=1e-3).source == "shipped" and "toy: vouched for" in capsys.readouterr().out
    monkeypatch.delenv("LITREV_VOUCH")
    again = train(lr=1e-3)
    assert again.source == "shipped" and torch.equal(again.net[0].weight, first.net[0].weight)
    assert len(list(paths.trained_dir().iterdir())) == 1


def test_an_edit_that_changes_no_answer_is_taken_over_too(checkout, monkeypatch, capsys):
    """Else another processor, whose answers differ by their rounding, would blame the edit and train again."""
    runs.ship(train())
    shutil.rmtree(paths.runs_dir())
    monkeypatch.setattr(sources, "used", lambda *values: {"digest": "of now", "functions": {}})
    (shipped,) = paths.trained_dir().iterdir()
    for asked, digest_is_new in (("other", False), ("toy", True)):
        monkeypatch.setenv("LITREV_VOUCH", asked)
        assert train().source == "shipped" and ("toy: vouched for" in capsys.readouterr().out) == digest_is_new
        assert (runs.unpack(shipped.read_bytes())[1]["sources"]["digest"] == "of now") == digest_is_new


def test_a_measurement_is_vouched_for(capsys, monkeypatch, checkout):
    measured(capsys, small())
    runs.ship("answer")
    shutil.rmtree(paths.runs_dir())
    monkeypatch.setattr(samplers, "_levels", lambda schedule, t: (1.0, 0.5))
    monkeypatch.setenv("LITREV_VOUCH", "all")
    assert "answer: vouched for" in measured(capsys, small())
    assert "shipped; measured" in measured(capsys, small())
    shutil.copy(next(paths.trained_dir().iterdir()), paths.trained_dir() / "answer-0123456789ab.safetensors")
    net = nn.Sequential(small())
    with pytest.raises(ValueError, match="answer is shipped 2 times"):
        measured(capsys, net)


def test_what_is_shipped_was_made_by_litrev_as_it_is(monkeypatch):
    """When this fails, an edit may have changed results: execute the notebooks that use it, so that they measure again,
    or, where it is known to change none, with --vouch (CONTRIBUTING)."""
    monkeypatch.setenv("LITREV_ROOT", str(HERE.parent))
    old, shipped = [], [path for path in runs.kept() if path.parent == paths.trained_dir()]
    for path in shipped:
        about = runs.facts(path)
        assert "sources" in about, path.name
        if "steps" not in about["description"]:  # a run has its probe, which its notebook takes again
            was = about["sources"]["functions"]
            named = [name for name in was if "<locals>" not in name]  # what is defined inside another has no name
            old += [f"{path.name}: {name}" for name in named if sources.now(name) != was[name]]
    assert len(shipped) > 50 and not old

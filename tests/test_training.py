"""fit follows its recipe, depends on its arguments alone, resumes exactly, and says what is wrong with its input."""

import math
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn
from toy_run import build, loss, train

from lab import training


@pytest.fixture(autouse=True)
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LITREV_DEVICE", "cpu")
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    return tmp_path / "runs"


def same(a, b):
    return all(torch.equal(a.tensors[name], b.tensors[name]) for name in {*a.tensors, *b.tensors})


def test_a_tiny_data_set_is_learned_by_heart():
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])

    def regression(net, batch, generator):
        return (net(batch[0]) - batch[1]).square().mean()

    def without_dropout():
        return nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))

    for optimiser in ("adamw", "muon"):
        run = train(
            build=without_dropout, loss=regression, data=(x, y), steps=500, lr=1e-2, optimiser=optimiser, ema=0.9
        )
        assert run.history.loss[-1] < 1e-3
        assert (run.net(x) - y).abs().max() < 0.05


def test_one_step_is_adamw_written_out():
    """The first step of AdamW moves every weight by lr g / (|g| + eps); with ema 0.999 the ramp averages at 0.1."""
    weights = torch.tensor([[0.5, -0.25]])

    def one():
        net = nn.Linear(2, 1, bias=False)
        nn.init.constant_(net.weight, 0.0)
        net.weight.data += weights
        return net

    def slope(net, batch, generator):
        return net(batch).mean()

    data = torch.tensor([[3.0, -4.0]])
    run = train(build=one, loss=slope, data=data, steps=1, batch=1, lr=0.1, optimiser="adamw", warmup=0.0)
    torch.testing.assert_close(run.tensors["raw.weight"], weights - 0.1 * data.sign())
    torch.testing.assert_close(run.tensors["ema.weight"], 0.1 * weights + 0.9 * (weights - 0.1 * data.sign()))


def test_gradients_are_clipped_to_the_norm():
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]).norm().item())

    def steep(net, batch, generator):
        return 1000 * net(batch).square().sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.optim, "optimisers", lambda net, *_: [Watched(net.parameters(), 1e-3)])
        train(loss=steep, steps=2, clip=0.5)
        train(loss=steep, steps=2, clip=math.inf)
    assert seen[:2] == pytest.approx([0.5, 0.5], rel=1e-4)
    assert min(seen[2:]) > 10


def test_a_run_depends_on_its_arguments_alone(runs_dir):
    first = train()
    torch.manual_seed(123)
    torch.randn(7)
    state = torch.get_rng_state()
    again = train(retrain=True)
    assert (first.source, again.source) == ("trained now", "trained now")
    assert first.key == again.key and same(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(first, train(seed=1))


def test_batches_cover_the_data_and_keep_rows_together():
    rows = torch.arange(50)
    seen = []

    def watch(net, batch, generator):
        x, index = batch
        seen.extend(index.tolist())
        assert torch.equal(x[:, 0], index.float())
        return net(x / 50).square().mean()

    train(loss=watch, data=(rows.float()[:, None].repeat(1, 2), rows), steps=100)
    assert set(seen[:800]) == set(range(50)) and len(seen) == 800 + 16  # two batches of 8 for the probe


def test_noise_of_a_step_does_not_depend_on_the_steps_before():
    seen = {}

    def watch(length):
        def noted(net, batch, generator):
            seen.setdefault(length, []).append(torch.randn(3, generator=generator))
            return net(batch).mean()

        return noted

    train(loss=watch(3), steps=3)
    train(loss=watch(5), steps=5)
    assert torch.equal(torch.stack(seen[3][:3]), torch.stack(seen[5][:3]))
    assert len(torch.stack(seen[5][:5]).unique()) == 15


def test_history_is_the_mean_loss_of_each_window():
    losses = []

    def noted(net, batch, generator):
        value = net(batch).square().mean()
        losses.append(value.item())
        return value

    run = train(loss=noted, steps=90)
    assert run.history.step.tolist() == list(range(2, 91, 2))
    np.testing.assert_allclose(run.history.loss, np.reshape(losses[:90], (-1, 2)).mean(1), rtol=1e-5)
    long = train(steps=1010)
    assert long.history.step.tolist() == [*range(25, 1001, 25), 1010]


def interrupted_at(step, kill=signal.SIGINT):
    """A loss that interrupts training at a step once, and equals `loss` in every description."""
    left = [step]

    def interrupting(net, batch, generator):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), kill)
        return loss(net, batch, generator)

    return interrupting


def alike(monkeypatch):
    """One loss counts as another from here on: the same key, and no code that has changed."""
    monkeypatch.setattr(training.fingerprint, "describe", lambda value, where: where)
    monkeypatch.setattr(training.sources, "used", lambda *values: {"digest": "", "functions": {}})


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("step", [1, 7, 30, 59, 60])
def test_an_interrupted_run_goes_on_and_ends_bit_for_bit(monkeypatch, runs_dir, capsys, optimiser, step):
    whole = train(steps=60, optimiser=optimiser, name="whole")
    alike(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(loss=interrupted_at(step), steps=60, optimiser=optimiser)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert f"toy: interrupted at step {step} of 60. Call fit again to go on." in capsys.readouterr().out
    assert [p.name.partition(".")[2] for p in sorted(runs_dir.glob("toy*"))] == ["partial.safetensors"]
    run = train(steps=60, optimiser=optimiser)
    assert f"toy: goes on at step {step}" in capsys.readouterr().out
    assert same(run, whole) and run.source == "trained now"
    assert [p.name.partition(".")[2] for p in sorted(runs_dir.glob("toy*"))] == ["safetensors"]


def test_a_run_in_channels_last_with_buffers_resumes_bit_for_bit(monkeypatch):
    def convolutions():
        net = nn.Sequential(nn.Conv2d(1, 20, 3), nn.BatchNorm2d(20), nn.SiLU(), nn.Conv2d(20, 17, 3))
        return net.to(memory_format=torch.channels_last)

    def energy(net, batch, generator):
        return net(batch).square().mean()

    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    common = {"build": convolutions, "data": images, "steps": 10}
    whole = train(**common, loss=energy, name="whole")
    assert whole.net[1].num_batches_tracked == 10
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    alike(monkeypatch)
    failing = [5]

    def breaks(net, batch, generator):
        failing[0] -= 1
        if not failing[0]:
            raise ZeroDivisionError
        return energy(net, batch, generator)

    with pytest.raises(ZeroDivisionError):
        train(**common, loss=breaks)
    assert same(train(**common, loss=energy), whole)


def test_networks_come_back_with_average_and_own_weights():
    now, cached = train(), train()
    assert (now.source, cached.source) == ("trained now", "this machine's cache")
    x = torch.randn(5, 2)
    for run in (now, cached):
        assert not run.net.training and not run.raw.training
        assert not torch.equal(run.net(x), run.raw(x))
    assert torch.equal(now.net(x), cached.net(x)) and torch.equal(now.raw(x), cached.raw(x))
    assert np.array_equal(now.history.loss, cached.history.loss)
    assert (now.seconds, now.device) == (cached.seconds, "cpu") and now.seconds > 0


def test_it_says_what_it_does(capsys):
    train(expect="a loss near 1 after a blink")
    start, *_, last = capsys.readouterr().out.splitlines()
    numbers = "0.000354 M parameters, 20 steps of 8 out of fresh examples, on cpu; kept in LITREV_RUNS"
    assert start == f"toy: training {numbers}. Expect a loss near 1 after a blink."
    assert "20/20" in last and "loss" in last
    train()
    assert "toy: loaded, not trained again (this machine's cache, trained in 0.0 min on cpu;" in capsys.readouterr().out
    train(lr=1e-3)
    assert "toy: lr was 0.002 and is now 0.001: training again." in capsys.readouterr().out


def test_a_frozen_part_stays_as_it_was():
    def half_frozen():
        net = build()
        net[0].requires_grad_(False)
        return net

    run = train(build=half_frozen)
    assert torch.equal(run.net[0].weight, run.raw[0].weight)
    assert not torch.equal(run.net[3].weight, run.raw[3].weight)


BAD_NUMBERS = [
    {"steps": 0}, {"steps": 2.5}, {"batch": 0}, {"lr": 0.0}, {"lr": math.nan}, {"optimiser": "sgd"}, {"ema": 1.0},
    {"warmup": -0.1}, {"warmup": 1.0}, {"clip": 0.0}, {"weight_decay": -1.0}, {"seed": -1}, {"seed": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_NUMBERS, ids=str)
def test_numbers_that_make_no_sense_are_refused(bad, runs_dir):
    with pytest.raises(ValueError, match=r"fit needs whole numbers steps >= 1.*it got Recipe\("):
        train(**bad)
    assert not runs_dir.exists()


x = torch.zeros(4, 2)
BAD_DATA = {
    "float64": (x.double(), r"float64.*use data.float\(\)"),
    "NaN": (torch.tensor([[1.0, math.nan]]), "NaN or infinity"),
    "infinity": ((x, torch.tensor([1.0, 2.0, -math.inf, 0.0])), "NaN or infinity"),
    "lengths": ((x, x[:3]), r"equally long and not empty; their lengths are \[4, 3\]"),
    "empty": (x[:0], "not empty"),
    "no tensors": ((), "must be a tensor"),
    "scalar": (torch.tensor(1.0), "must be a tensor"),
    "numpy": (np.zeros((4, 2)), "must be a tensor"),
}


@pytest.mark.parametrize("data, sentence", BAD_DATA.values(), ids=BAD_DATA)
def test_data_that_cannot_be_trained_on_is_refused(data, sentence, runs_dir):
    with pytest.raises(ValueError, match=sentence):
        train(data=data)
    assert not runs_dir.exists()


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", "a.b"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="name is part of a file name"):
        train(name=name)


def number(net, batch, generator):
    return 1.0


def no_mean(net, batch, generator):
    return net(batch)


def no_network(net, batch, generator):
    return batch.mean()


@pytest.mark.parametrize("wrong", [number, no_mean, no_network])
def test_a_loss_that_is_no_loss_is_refused(wrong):
    with pytest.raises(ValueError, match="loss must return a scalar tensor that depends on the network"):
        train(loss=wrong)


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_last_good_state(monkeypatch, runs_dir):
    calls = []

    def explodes(net, batch, generator):
        calls.append(1)
        return loss(net, batch, generator) * (math.inf if len(calls) == 15 else 1.0)

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    alike(monkeypatch)
    with pytest.raises(RuntimeError, match="toy: .*infinite or NaN in steps 15 to 16, lr 0.002: try a lower lr"):
        train(loss=explodes, steps=80)
    calls.clear()
    run = train(loss=loss, steps=80)
    assert same(run, train(loss=loss, steps=80, name="whole"))


def test_weights_broken_by_the_last_step_are_noticed():
    def slope(net, batch, generator):
        return net(batch).square().sum().sqrt()  # finite at zero, but its gradient is not

    def zero():
        net = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(net.weight)
        return net

    with pytest.raises(RuntimeError, match="infinite or NaN in steps 1 to 1"):
        train(build=zero, loss=slope, steps=1, optimiser="adamw")


def test_training_works_outside_the_main_thread():
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(train()))
    thread.start()
    thread.join()
    assert same(found[0], train(retrain=True))


def test_a_network_is_the_same_trained_now_kept_and_shipped(monkeypatch):
    """Otherwise what was measured with one of them would not be found with another."""
    from lab import fingerprint, runs

    def student(teacher):
        def distil(net, batch, generator):
            return (net(batch) - teacher.net(batch).detach()).square().mean()

        return distil

    teacher, kept = train(), train()
    first = train(loss=student(teacher), name="student")
    runs.ship(teacher)
    for file in runs.paths.runs_dir().glob("toy-*"):
        file.unlink()
    shipped = train()
    assert [run.source for run in (teacher, kept, shipped)] == ["trained now", "this machine's cache", "shipped"]
    described = [fingerprint.describe(run.net, "net") for run in (teacher, kept, shipped)]
    assert described[0] == described[1] == described[2]
    assert train(loss=student(shipped), name="student").source == "this machine's cache"
    assert train(loss=student(train(seed=5)), name="student").key != first.key
    shipped.net[0].weight.data.mul_(1.01)
    assert train(loss=student(shipped), name="student").key != first.key

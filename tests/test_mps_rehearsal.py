"""The pretended Apple GPU refuses what a real one would, and litrev trains, samples, measures and draws on it."""

import pytest
import torch
from mps_rehearsal import MPS, MpsRehearsal, Refused
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lab import training
from litrev import data, device, plots
from litrev.data import toys
from litrev.diffusion import samplers
from litrev.diffusion.denoiser import from_network
from litrev.diffusion.schedules import LinearChain
from litrev.quality import classifier, metrics


@pytest.fixture
def mps(monkeypatch):
    monkeypatch.setenv("LITREV_DEVICE", "cpu")  # which the rehearsal overrides
    with MpsRehearsal():
        yield device.device()
    assert device.device().type == "cpu"


def test_tensors_say_where_they_are(mps):
    assert mps == MPS
    x = torch.arange(6.0).to(mps)
    for on in (x, x + 1, x[2:], x.reshape(2, 3), torch.zeros(2, device=mps), torch.zeros_like(x), x.half(), x.to(x)):
        assert on.device == MPS
    for off in (torch.zeros(2), x.cpu(), x.cpu() + 1, x.to("cpu"), torch.zeros(2).to(torch.ones(1))):
        assert off.device.type == "cpu"
    assert x.cpu().tolist() == x.tolist() == list(range(6))
    assert torch.zeros(6).copy_(x).device.type == "cpu"
    assert torch.as_tensor(x, device="cpu").device.type == "cpu"
    assert torch.ones(3, dtype=torch.float64).to(torch.float32).to(mps).device == MPS
    assert (x * torch.tensor(2.0)).sum().item() == 30  # a number on the CPU is welcome
    for shape in (torch.zeros(2, device="meta"), torch.zeros(2).to("meta"), x.to("meta"), x.to("meta", torch.int32)):
        assert shape.device.type == "meta"
    assert nn.Linear(2, 2).to("meta")(torch.zeros(1, 2, device="meta")).shape == (1, 2)


def test_operators_are_counted_wherever_they_run(mps):
    for where in ("cpu", "meta", mps):
        net, x = nn.Linear(3, 5).to(where), torch.zeros(2, 3, device=where)
        with FlopCounterMode(display=False) as counter:
            net(x)
        assert counter.get_total_flops() == 2 * 2 * 3 * 5


def test_what_pytorch_makes_on_the_way_is_where_its_tensor_is(mps):
    x = torch.arange(6.0).reshape(2, 3).to(mps)
    assert x.quantile(0.5, dim=1).tolist() == [1, 4]
    assert nn.functional.one_hot(x[0].long(), 4).device == x.quantile(0.5).device == MPS
    assert nn.functional.adaptive_avg_pool1d(x, 1).flatten().tolist() == [1, 4]
    assert "3., 4., 5." in repr(x) and f"{x[1, 1]:.1f}" == "4.0"


REFUSALS = {
    "float64": lambda x: x.double(),
    "moved float64": lambda x: torch.ones(3, dtype=torch.float64).to(MPS),
    "created float64": lambda x: torch.zeros(3, dtype=torch.float64, device=MPS),
    "promoted to float64": lambda x: torch.ones(3, dtype=torch.float64).to(x.device),
    "back as float64": lambda x: x.to("cpu", torch.float64),
    "float64 module": lambda x: nn.Linear(2, 2).double().to(MPS),
    "two devices": lambda x: x + torch.ones(3),
    "two devices in a layer": lambda x: nn.Linear(3, 3)(x),
    "cpu indexed from mps": lambda x: torch.ones(3)[torch.zeros(1, dtype=torch.long).to(MPS)],
    "numpy": lambda x: x.numpy(),
    "cpu generator in a factory": lambda x: torch.randn(3, generator=torch.Generator(), device=MPS),
    "cpu generator in place": lambda x: x.normal_(generator=torch.Generator()),
    "missing operator": lambda x: x.mode(),
    "missing operator behind a function": lambda x: torch.special.ndtri(x),
    "averages to a size that does not divide": lambda x: nn.functional.adaptive_avg_pool1d(x[None], 2),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_mps_would_refuse_is_refused(mps, name):
    with pytest.raises(Refused):
        REFUSALS[name](torch.rand(3).to(mps))


def test_gradients_find_their_way_over_both_devices(mps):
    weight = torch.ones(3, requires_grad=True)
    (weight.to(mps) * torch.arange(3.0).to(mps)).sum().cpu().mul(2).backward()
    assert weight.grad.tolist() == [0, 2, 4] and weight.grad.device.type == "cpu"
    net = nn.Linear(3, 1).to(mps)
    net(torch.ones(2, 3).to(mps)).sum().backward()
    assert net.weight.grad.device == MPS and net.weight.grad.tolist() == [[2, 2, 2]]
    used, _ = (net.weight * torch.ones(2, 1).to(mps)).split(1)  # of the other half the gradient is made, of zeros
    used.sum().backward()
    assert net.weight.grad.tolist() == [[3, 3, 3]]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x, time):
        return self.conv(torch.cat([x, torch.ones_like(x) * time[:, None, None, None] / 1000], 1))


def loss(net, x0, generator):
    schedule = LinearChain()
    t = torch.randint(1, 1001, (len(x0),), generator=generator)
    eps = device.randn(x0.shape, generator, x0.device)
    denoiser = from_network(net, schedule)
    return (denoiser(schedule.add_noise(x0, t, eps), t).eps - eps).square().mean()


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_training_and_sampling(mps, monkeypatch, tmp_path, optimiser):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    x0 = data.mnist("test")[0][:32]
    run = training.fit(Net, loss, x0, name="rehearsal", steps=4, batch=8, optimiser=optimiser)
    assert next(run.net.parameters()).device == MPS
    again = training.fit(Net, loss, x0, name="rehearsal", steps=4, batch=8, optimiser=optimiser)
    assert again.source != run.source and next(again.net.parameters()).device == MPS
    denoiser, schedule = from_network(run.net, LinearChain()), LinearChain()
    noise = schedule.prior((3, 1, 28, 28), device.generator(0), mps)
    for sample in (
        samplers.final(samplers.ancestral(denoiser, noise, schedule.grid(3), device.generator(1))),
        samplers.final(samplers.ddim(denoiser, noise, schedule.grid(3))),
    ):
        assert sample.device == MPS and sample.isfinite().all()


def test_measures_toys_and_figures(mps):
    x = data.mnist("test")[0][:12].to(mps)
    assert metrics.mnist_fd(x).n == 12 and metrics.class_balance(x).confidence > 0.9
    features = classifier.load().features(x.cpu()).to(mps)
    assert metrics.sliced_wasserstein(features, features) == 0
    assert metrics.mmd(features, features + 10, 3.0) > 0
    assert metrics.precision_recall(features, features) == (1, 1)
    assert plots.png(plots.grid(x)) and plots.animation([x, x.neg()]).data
    mixture, points = toys.ring(), torch.randn(5, 2).to(mps)
    assert mixture.score(points).device == mixture.log_prob(points).device == MPS
    assert mixture.posterior_mean(points, 0.8, 0.6).device == MPS
    level = torch.full((5, 1), 0.6).to(mps)
    assert mixture.posterior_mean(points, (1 - level**2).sqrt(), level).device == MPS
    assert plots.png(plots.trajectories(torch.stack([points, points + 1])))
    assert device.check() < 1e-6
    device.synchronize(mps)

"""Laws that hold whatever the numbers: property tests over schedules, conversions, guidance and samplers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litrev.diffusion import samplers
from litrev.diffusion.denoiser import PREDICTS, as_prediction, clip_x0, exact, from_network, rescheduled
from litrev.diffusion.denoiser import given as given_label
from litrev.diffusion.grids import karras_grid, log_snr_grid
from litrev.diffusion.guidance import classifier, classifier_free
from litrev.diffusion.ode import probability_flow
from litrev.diffusion.schedules import (
    CosineChain,
    CosineVP,
    Geometric,
    Karras,
    LinearChain,
    LinearVP,
    RectifiedFlow,
    SubVP,
)

settings.register_profile("steady", deadline=None, derandomize=True, database=None)  # a busy machine is slow
settings.load_profile("steady")

CONTINUOUS = [LinearVP(), CosineVP(), SubVP(), RectifiedFlow(), RectifiedFlow(3.0), Geometric(), Karras()]
INSIDE = st.floats(1e-4, 0.999)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(t=INSIDE, s=INSIDE)
@pytest.mark.parametrize("schedule", CONTINUOUS, ids=repr)
def test_log_snr_falls_and_its_inverse_finds_the_time(schedule, t, s):
    if t < s:
        assert schedule.log_snr(t) > schedule.log_snr(s)
    assert float(schedule.time_of(schedule.log_snr(t))) == pytest.approx(t, rel=1e-6)


@given(t=st.integers(1, 1000))
@pytest.mark.parametrize("schedule", [LinearChain(), CosineChain()], ids=repr)
def test_a_chain_finds_its_own_times(schedule, t):
    assert int(schedule.time_of(schedule.log_snr(t))) == t


@given(t=INSIDE)
def test_vp_keeps_the_variance_and_sub_vp_stays_below(t):
    for schedule in (LinearVP(), CosineVP()):
        assert float(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) == pytest.approx(1, abs=1e-12)
    assert SubVP().sigma(t) <= LinearVP().sigma(t)


@given(t=INSIDE)
@pytest.mark.parametrize("schedule", CONTINUOUS, ids=repr)
def test_drift_and_diffusion_move_the_marginals(schedule, t):
    """d log alpha/dt = f and d sigma^2/dt = 2 f sigma^2 + g^2, against central differences."""
    h = 1e-5 * t
    f, g2, sigma = (float(x(t)) for x in (schedule.drift, schedule.diffusion, schedule.sigma))
    late, early = ((schedule.alpha(u).log(), schedule.sigma(u) ** 2) for u in (t + h, t - h))
    assert f == pytest.approx(float(late[0] - early[0]) / (2 * h), rel=1e-3, abs=1e-6)
    assert 2 * f * sigma**2 + g2 == pytest.approx(float(late[1] - early[1]) / (2 * h), rel=1e-3, abs=1e-6)
    assert g2 >= 0


@given(t=st.floats(1e-3, 0.99), seed=st.integers(0, 99), kind=st.sampled_from(PREDICTS))
@pytest.mark.parametrize("schedule", CONTINUOUS, ids=repr)
def test_conversions_invert(schedule, t, seed, kind):
    x0, eps = noise(2, 3, seed=seed).double(), noise(2, 3, seed=seed + 100).double()
    alpha, sigma = schedule.levels(t, x0)
    xt = alpha * x0 + sigma * eps
    truth = as_prediction("x0", x0, xt, alpha, sigma)
    found = as_prediction(kind, getattr(truth, kind), xt, alpha, sigma)
    torch.testing.assert_close(found.x0, x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.eps, eps, rtol=1e-6, atol=1e-6)


@given(t=st.floats(1e-3, 0.99), u=st.floats(1e-3, 0.99))
def test_a_change_of_schedule_and_back_is_no_change(t, u):
    plain = exact(lambda x, alpha, sigma: alpha * 0.3 * x / (alpha**2 * 0.3 + sigma**2), LinearVP())
    xt = noise(3, 2, seed=1).double()
    there = rescheduled(plain, RectifiedFlow())
    torch.testing.assert_close(rescheduled(there, LinearVP())(xt, t).eps, plain(xt, t).eps, rtol=1e-5, atol=1e-6)
    direct = exact(lambda x, alpha, sigma: alpha * 0.3 * x / (alpha**2 * 0.3 + sigma**2), RectifiedFlow())
    torch.testing.assert_close(there(xt, u).x0, direct(xt, u).x0, rtol=1e-5, atol=1e-6)


def network(x, time, label):
    return torch.tanh(x + 0.1 * label[:, None] + time[:, None] / 1000)


@given(t=st.floats(1e-3, 0.99), seed=st.integers(0, 99), scale=st.floats(-2, 8))
def test_guidance_at_its_neutral_value_is_the_model_bit_for_bit(t, seed, scale):
    model, xt, label = from_network(network, LinearVP()), noise(4, 3, seed=seed), torch.arange(4)
    conditional, unconditional = model(xt, t, label=label), model(xt, t, label=torch.full((4,), 9))
    for guided, plain in [(1, conditional), (0, unconditional)]:
        answer = classifier_free(model, guided, {"label": 9})(xt, t, label=label)
        assert torch.equal(answer.x0, plain.x0) and torch.equal(answer.eps, plain.eps)
    off = classifier(model, lambda x, t: -x.square().sum(1), scale=0)(xt, t, label=label)
    assert torch.equal(off.x0, conditional.x0) and torch.equal(off.eps, conditional.eps)
    guided = classifier_free(model, scale, {"label": 9})(xt, t, label=label)
    torch.testing.assert_close(guided.eps, unconditional.eps + scale * (conditional.eps - unconditional.eps))


SAMPLERS = {
    "ancestral": lambda d, x, times, g: samplers.ancestral(d, x, times, g),
    "ddim": lambda d, x, times, g: samplers.ddim(d, x, times, 0.5, g),
    "heun": lambda d, x, times, g: samplers.heun(d, x, times),
    "dpm_solver": lambda d, x, times, g: samplers.dpm_solver(d, x, times),
    "sde_dpm_solver": samplers.sde_dpm_solver,
    "euler": lambda d, x, times, g: samplers.euler(d, x, times),
    "euler_maruyama": samplers.euler_maruyama,
    "annealed_langevin": samplers.annealed_langevin,
    "predictor_corrector": samplers.predictor_corrector,
    "probability_flow": lambda d, x, times, g: probability_flow(d, x, times[0], times[-2], rtol=1e-3, atol=1e-3),
}


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), schedule=st.sampled_from([LinearVP(), SubVP(), Geometric(0.05, 5)]))
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_are_deterministic_given_a_generator(name, seed, schedule):
    denoiser = clip_x0(from_network(lambda x, time: torch.tanh(x + time[:, None] / 1000), schedule))
    for grid in (schedule.grid(4), log_snr_grid(schedule, 4), karras_grid(schedule, 4)):
        runs = []
        for _ in range(2):
            generator = torch.Generator().manual_seed(seed)
            start = schedule.prior((3, 2), generator)
            kept = start.clone()
            runs.append(list(SAMPLERS[name](denoiser, start, grid, generator)))
            assert torch.equal(start, kept)  # a sampler leaves the noise it was given alone
        assert len(runs[0]) == len(runs[1]) > 0
        for a, b in zip(*runs, strict=True):
            assert a.t == b.t and torch.equal(a.xt, b.xt) and torch.equal(a.x0, b.x0) and a.xt.isfinite().all()


class NoFloat64OnDevice(TorchDispatchMode):
    """Stands in for a GPU without float64: the meta device, on which every float64 is an error."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        answer = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, answer)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                assert tensor.dtype != torch.float64, f"{function} brings float64 to the device"
        return answer


@pytest.mark.parametrize(
    "name", [name for name in SAMPLERS if name != "probability_flow"]
)  # its step size needs values
def test_no_float64_reaches_the_device(name, monkeypatch):
    monkeypatch.setattr("litrev.checks.finite", lambda **named: None)  # a tensor without memory has no values
    net = lambda x, time, label: torch.cat([x + time[:, None] + label[:, None], x], 1)  # noqa: E731
    for schedule in (LinearVP(), Geometric(0.05, 5), RectifiedFlow()):
        model = rescheduled(from_network(net, LinearVP(), learned_variance=True), schedule)
        guided = classifier(classifier_free(model, 2.0, {"label": 9}), lambda x, t: -x.square().sum(1))
        denoiser = given_label(clip_x0(guided), label=torch.zeros(3, device="meta", dtype=torch.long))
        with NoFloat64OnDevice():
            generator = torch.Generator().manual_seed(0)
            start = schedule.prior((3, 2), generator, "meta")
            for state in SAMPLERS[name](denoiser, start, log_snr_grid(schedule, 3, start=0.9), generator):
                assert state.xt.device.type == "meta" and state.xt.dtype == torch.float32

"""Distillation against its closed forms: a step that lands where two land, Gaussian data, the consistency function."""

import math

import pytest
import torch
from diffusers import CMStochasticIterativeScheduler

from lab import base
from litrev.data.toys import GaussianMixture
from litrev.diffusion import distillation
from litrev.diffusion.denoiser import exact, from_network
from litrev.diffusion.grids import karras_grid
from litrev.diffusion.samplers import ddim, final, heun
from litrev.diffusion.schedules import CosineVP, Geometric, LinearVP

COSINE, T_MIN, T_MAX = distillation.COSINE, distillation.T_MIN, distillation.T_MAX
MIXTURE = GaussianMixture(torch.tensor([[1.0, 0.5], [-1.0, 0.0]]), 0.3)
PERFECT = exact(MIXTURE.posterior_mean, COSINE)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("schedule", [CosineVP(), LinearVP()])
def test_a_step_with_halved_lands_where_two_steps_of_the_teacher_land(schedule):
    teacher, xt = exact(MIXTURE.posterior_mean, schedule), noise(64, 2)
    for t, s in ((0.9, 0.6), (0.5, 0.4), (0.25, 0.0)):
        v = distillation.halved(teacher, xt, t, s)
        cos, sin = distillation.turn(schedule, t, s, xt)
        two = final(ddim(teacher, xt, [t, (t + s) / 2, s]))
        assert torch.allclose(cos * xt - sin * v, two, atol=2e-6)
        student = final(ddim(from_network(lambda x, time, v=v: v, schedule, "v"), xt, [t, s]))
        assert torch.allclose(student, two, atol=5e-6)


def test_the_last_step_aims_at_the_teachers_x0():
    xt, t = noise(8, 2), 0.25
    middle = distillation.ddim_step(PERFECT, xt, t, t / 2)
    alpha, sigma = COSINE.levels(t, xt)
    x0 = alpha * xt - sigma * distillation.halved(PERFECT, xt, t, 0.0)
    assert torch.allclose(x0, PERFECT(middle, t / 2).x0, atol=1e-6)


def test_times_may_differ_within_a_batch():
    xt, t = noise(6, 2), torch.tensor([0.9, 0.7, 0.5, 0.3, 0.2, 0.1])
    together = distillation.halved(PERFECT, xt, t, t / 2)
    alone = [distillation.halved(PERFECT, x[None], u.item(), u.item() / 2) for x, u in zip(xt, t, strict=True)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    for step, sampler in ((distillation.ddim_step, ddim), (distillation.heun_step, heun)):
        alone = [final(sampler(PERFECT, x[None], [u.item(), u.item() / 2])) for x, u in zip(xt, t, strict=True)]
        assert torch.allclose(step(PERFECT, xt, t, t / 2), torch.cat(alone), atol=1e-6)


def test_halving_on_gaussian_data_is_the_known_recursion():
    """For data N(0, 1) the ideal v is 0, and a student's is k x: k_N = (cos d - cos(d0)^(N0 / N)) / sin d."""
    first, k, x = 64, 0.0, torch.ones(1, 1, dtype=torch.float64)
    for steps in (32, 16, 8, 4, 2, 1):
        teacher = from_network(lambda xt, time, k=k: k * xt, COSINE, "v")
        k = distillation.halved(teacher, x, 1.0, 1.0 - 1 / steps).item()
        d, d0 = math.pi / (2 * steps), math.pi / (2 * first)
        assert k == pytest.approx((math.cos(d) - math.cos(d0) ** (first / steps)) / math.sin(d), abs=1e-9)


def test_a_consistency_function_keeps_what_is_at_its_boundary():
    net = base.labelled_network()
    with torch.no_grad():
        net.conv_out.weight.normal_(generator=torch.Generator().manual_seed(0))
    x, label = noise(2, 1, 28, 28), torch.tensor([3, 10])
    f = distillation.consistency(net)
    assert torch.equal(f(x, T_MIN, label=label), x)
    assert not torch.allclose(f(x, 0.5, label=label), x, atol=0.1)


def test_a_consistency_function_is_one_step_of_ddim_to_its_boundary():
    def net(xt, time):
        return PERFECT(xt, (time[0].item() + 1) / 1000).v

    x = noise(5, 2)
    assert torch.allclose(distillation.consistency(net)(x, 0.7), final(ddim(PERFECT, x, [0.7, T_MIN])), atol=1e-5)


def test_multistep_of_the_exact_function_keeps_the_distribution():
    """One Gaussian: f(x, t) = x s_min / s_t, s the standard deviation at a time; each renoising keeps it."""

    def std(t):
        return float((0.09 * COSINE.alpha(t) ** 2 + COSINE.sigma(t) ** 2) ** 0.5)

    def f(x, t):
        return x * std(T_MIN) / std(t)

    made = distillation.multistep(f, noise(20_000, 2), [T_MAX, 0.7, 0.4], torch.Generator().manual_seed(1))
    assert made.std().item() == pytest.approx(0.3, rel=0.02) and made.mean().abs() < 0.01
    once = distillation.multistep(f, 100 * noise(4, 2), [T_MAX], torch.Generator())
    assert once.abs().max() == 1  # clipped


def theirs(points=40, **options):
    """diffusers' scheduler between the noise levels of T_MIN and T_MAX."""
    low, high = (math.tan(math.pi / 2 * t) for t in (T_MIN, T_MAX))
    return CMStochasticIterativeScheduler(points, sigma_min=low, sigma_max=high, **options)


def test_the_grid_of_times_is_that_of_diffusers():
    scheduler = theirs()
    scheduler.set_timesteps(40)
    levels = [math.tan(math.pi / 2 * t) for t in karras_grid(COSINE, 40, T_MAX, T_MIN)[:-1]]
    assert torch.allclose(scheduler.sigmas[:-1], torch.tensor(levels, dtype=torch.float32), rtol=2e-5)


def test_the_turn_has_the_weights_of_diffusers_for_data_of_size_one():
    """f of x_t is alpha_min (c_skip x_t / alpha_t + c_out F), F = -v, up to T_MIN's own noise: the paper's weights
    shift t by t_min, the turn shifts its angle."""
    scheduler = theirs(sigma_data=1.0)
    for t in (T_MIN, 0.01, 0.1, 0.5, 0.9, T_MAX):
        (alpha, sigma), (last, _) = (map(float, (COSINE.alpha(u), COSINE.sigma(u))) for u in (t, T_MIN))
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition(torch.tensor(sigma / alpha))
        cos, sin = (float(part) for part in distillation.turn(COSINE, t, T_MIN, noise(1)))
        least = float(COSINE.sigma(T_MIN))
        assert cos == pytest.approx(float(c_skip) * last / alpha, abs=2 * least, rel=2 * least)
        assert sin == pytest.approx(float(c_out) * last, abs=least)


def test_multistep_is_that_of_diffusers():
    """The same answers, times and generator; theirs works on x_t / alpha_t, and lets a network say F."""
    scheduler = theirs(clip_denoised=False)
    scheduler.set_timesteps(timesteps=[30, 22, 7, 0])
    levels = scheduler.sigmas[:-1].double()
    times = (levels.atan() * 2 / math.pi).tolist()
    last = float(COSINE.alpha(T_MIN))

    def f(x, t):  # within [-1, 1], so that ours, which clips, keeps it
        return 0.9 * torch.tanh(x / float(COSINE.alpha(t)) / 2)

    xT, generator = noise(6, 1, 4, 4), torch.Generator().manual_seed(3)
    x = xT / float(COSINE.alpha(times[0]))
    for t, level, time in zip(times, levels, scheduler.timesteps, strict=True):
        scheduler.scale_model_input(x, time)
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition(level.float())
        answer = f(x * float(COSINE.alpha(t)), t) / last
        x = scheduler.step((answer - c_skip * x) / c_out, time, x, generator).prev_sample
    ours = distillation.multistep(f, xT, times, torch.Generator().manual_seed(3))
    assert torch.allclose(ours, last * x, atol=2e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: distillation.turn(Geometric(0.01, 50), 0.5, 0.2, x), "variance at 1"),
        (lambda x: distillation.turn(COSINE, 0.2, 0.5, x), "s must not be after t"),
        (lambda x: distillation.v_towards(x, x, 0.5, 0.5, COSINE), "between a time and itself"),
        (lambda x: distillation.multistep(lambda x, t: x, x, [0.5, 0.9], torch.Generator()), "must fall"),
        (lambda x: distillation.multistep(lambda x, t: x, x, [], torch.Generator()), "must fall"),
        (lambda x: distillation.multistep(lambda x, t: x, x, [0.5, 0.001], torch.Generator()), r"times\[1\]"),
    ],
)
def test_what_cannot_be_distilled_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call(noise(2, 2))

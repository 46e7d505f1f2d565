"""Small calls of everything public in litrev and lab, each a function of the device, for `test_mps_public`."""

import contextlib
import functools
import inspect
import io
from types import SimpleNamespace
from unittest import mock

import torch

from lab import base, captioned_clip, fingerprint, optim, recipe, students, training
from lab import captioned as bases_of_scenes
from lab.measure import measure
from litrev import data, device, plots
from litrev.data import captions, scenes, toys
from litrev.device import generator, randn
from litrev.diffusion import denoiser, distillation, grids, guidance, ode, samplers, schedules
from litrev.nets import autoencoder, blocks, clip, dit, mmdit, prior
from litrev.nets.laptop_unet import LaptopUNet
from litrev.nets.text import BagTextEncoder, TextEncoder
from litrev.nets.unet import NoisyClassifier, UNet, adm
from litrev.quality import classifier, metrics, oracle

FLOW, VP, CHAIN = schedules.RectifiedFlow(3.0), schedules.LinearVP(), schedules.LinearChain(100)
SCHEDULES = [VP, CHAIN, FLOW, schedules.CosineChain(100), schedules.CosineVP(), schedules.SubVP()]
SCHEDULES += [schedules.Geometric(), schedules.Karras()]


def schedule_calls(schedule):
    def call(on):
        times = torch.tensor(schedule.grid(4)[1:3])
        x, eps = randn((2, 1, 2, 2), generator(0), on), randn((2, 1, 2, 2), generator(1), on)
        levels = [schedule.add_noise(x, t, eps) for t in (times, times.to(on), schedule.grid(2)[1])]
        slopes = [f(times.to(on)) for f in (schedule.rates, schedule.drift, schedule.diffusion) if not chain]
        log_snr = schedule.log_snr(times.float().to(on))
        back = schedule.time_of(log_snr.float().to(on))
        spaced = [f(schedule, 3, *inside) for f in (grids.log_snr_grid, grids.karras_grid)]
        prior, betas = schedule.prior((2, 3), generator(2), on), getattr(schedule, "betas", 0)
        return levels, slopes, log_snr, back, spaced, prior, schedule.network_time(times.to(on)), betas

    chain = isinstance(schedule, schedules.Chain)
    inside = (80, 3) if chain else (0.9, 0.1)
    return call


def tiny(x, time, label=None):
    """A network without weights."""
    out = torch.tanh(x + time[:, None, None, None] / 1000)
    return out if label is None else out + 0.1 * label[:, None, None, None]


def predictions(on):
    xt, t = randn((2, 2, 4, 4), generator(0), on), torch.tensor([0.3, 0.8]).to(on)
    denoisers = [denoiser.from_network(tiny, VP, predicts) for predicts in denoiser.PREDICTS]
    learned = denoiser.from_network(lambda x, time: tiny(x, time).repeat(1, 2, 1, 1), VP, learned_variance=True)
    wrapped = [denoiser.clip_x0(learned), denoiser.threshold_x0(learned), denoiser.rescheduled(learned, FLOW)]
    answers = [d(xt, t) for d in (*denoisers, learned, *wrapped)]
    return [(p.x0, p.eps, p.v, p.score, p.flow, p.fraction) for p in answers]


def guided(on):
    xt, label = randn((2, 1, 4, 4), generator(0), on), torch.tensor([1, 4]).to(on)
    free = guidance.classifier_free(denoiser.from_network(tiny, VP), guidance.scale_from_w(2.0), {"label": 10})
    by_class = guidance.classifier(denoiser.from_network(tiny, VP), lambda x, t: -x.square().sum((1, 2, 3)), 2.0)
    away = guidance.autoguidance(denoiser.from_network(tiny, VP), denoiser.from_network(tiny, VP, "v"), 2.0)
    within = guidance.limited(away, denoiser.from_network(tiny, VP), 0.33, 5.0)
    answers = [denoiser.given(free, label=label)(xt, 0.5), by_class(xt, torch.tensor([0.2, 0.7]).to(on))]
    answers += [within(xt, 0.5), within(xt, torch.full((2,), 0.9).to(on))]
    return [(p.x0, p.eps) for p in answers], guidance.drop(label, 10, 0.5, generator(0))


def walk(sampler, schedule=VP, times=(0.9, 0.6, 0.3, 0), **options):
    """A sampler from noise on the device to data, with all that it yields."""

    def call(on):
        rng = generator(1)
        more = {"generator": rng} if "generator" in inspect.signature(sampler).parameters else {}
        net, xT = denoiser.from_network(tiny, schedule), randn((2, 1, 4, 4), rng, on)
        states = list(sampler(net, xT, times, **more, **options))
        assert samplers.final(states).device == on
        return states

    return call


def learned_variance(on):
    net = denoiser.from_network(lambda x, time: tiny(x, time).repeat(1, 2, 1, 1), CHAIN, learned_variance=True)
    return list(samplers.ancestral(net, randn((2, 1, 4, 4), generator(0), on), [60, 20, 0], generator(1), "learned"))


def flows(on):
    x0, exact = randn((3, 2), generator(0), on), denoiser.exact(toys.ring().posterior_mean, VP)
    pixels = torch.arange(6, dtype=torch.uint8).reshape(1, 1, 2, 3).to(on)
    estimate = ode.log_likelihood(exact, x0, generator(1), start=1e-2, rtol=1e-2, atol=1e-2)
    log_p = ode.log_likelihood(exact, x0, start=1e-2, rtol=1e-2, atol=1e-2)
    path = list(ode.probability_flow(exact, x0, 1, 1e-2, rtol=1e-2, atol=1e-2))[-1]
    return estimate, log_p, ode.bits_per_dim(log_p, 2), path, ode.dequantised(pixels, generator(2))


def network(build, shape=(2, 1, 8, 8), condition=()):
    """A network with random weights, its answer, and the gradient that reaches each of its parameters."""

    def call(on):
        net, rng = build(), generator(0)
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.randn(p.shape, generator=rng) / p[0].numel() ** 0.5)
        net = net.to(on)
        x, time, *given = randn(shape, rng), torch.tensor([3.0, 700.0]), *map(torch.tensor, condition)
        out = net(x.to(on), time.to(on), *(c.to(on) for c in given))
        out.square().mean().backward()
        return out, [p.grad for p in net.parameters()]

    return call


SMALL = {"channels": 1, "out_channels": 1, "size": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
LABEL = ([0, 3],)
TEXT = captions.tokenize(["a red two", ""]).tolist()
ADM = {name: value for name, value in SMALL.items() if name != "size"} | {
    "attention": (4,),
    "head_width": 4,
    "classes": 5,
}


def conditional():
    return LaptopUNet(width=8, depth=1, middle=1, heads=2, classes=4, text=TextEncoder(width=8, depth=1, heads=2))


def upsampler(on):
    net = UNet(**SMALL | {"channels": 2, "attention": ()}).to(on)
    x, low_res = randn((2, 1, 8, 8), generator(0), on), randn((2, 1, 4, 4), generator(1), on)
    return net(x, torch.zeros(2).to(on), low_res=low_res)


def in_float32(on):
    with blocks.float32_inside():
        return CALLS["LaptopUNet"](on)


def paired(on):
    """The loss of pairs and its gradients, by each of the towers for images."""
    x, ids, answers = randn((2, 3, 32, 32), generator(0), on), torch.tensor(TEXT).to(on), []
    small = {"ViT-B/32": (8, 32, 1, 64, 16, 64), "RN50": (8, 32, (1, 1, 1, 1), 4, None, 64)}
    with mock.patch.dict(clip.SIZES, small):
        towers = [clip.official(name).images.to(on) for name in small]
    for tower in [*towers, clip.SceneTower(4, 8).to(on)]:
        net = clip.CLIP(tower, TextEncoder(width=8, depth=1), 8).to(on).eval()
        loss = clip.contrastive_loss(net(x, ids))
        answers += [loss, *torch.autograd.grad(loss, list(net.projection.parameters())), net.class_vectors(ids[None])]
    return answers, clip.scene_clip(4, 8, 1, 2).to(on).text_vectors(ids)


def digit_classifier(on):
    net, x = classifier.Classifier().to(on), data.mnist("test")[0][:8].to(on)
    torch.nn.functional.cross_entropy(net(x), torch.arange(8).to(on)).backward()
    assert net.head.weight.grad.device == on
    return classifier.in_batches(classifier.load(), x.cpu(), 3), data.to_unit(data.to_pixels(x))


def toy_data(on):
    made = [f(5, generator(0)) for f in (toys.swiss_roll, toys.two_moons, toys.checkerboard, toys.ring().sample)]
    x, mixture = made[0].to(on), toys.GaussianMixture(made[1].to(on), torch.tensor(0.3).to(on), torch.ones(5).to(on))
    level = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])[:, None].to(on)
    exact = mixture.log_prob(x), mixture.score(x), mixture.responsibilities(x)
    return made, exact, mixture.posterior_mean(x, (1 - level**2).sqrt(), level), mixture.diffused(0.8, 0.6).score(x)


def measures(on):
    x, a, b = data.mnist("test")[0][:20].to(on), randn((20, 4), generator(0), on), randn((20, 4), generator(1), on)
    distances = [metrics.frechet_distance, metrics.sliced_wasserstein, metrics.precision_recall]
    distances.append(functools.partial(metrics.mmd, bandwidth=2.0))
    digits, balance = metrics.mnist_fd(x), metrics.class_balance(x)
    bits = metrics.bits_per_dim(a.sum(1), data.to_pixels(x))
    assert str(digits) and str(balance) and str(bits)
    floors = [metrics.floor(distance, a, 8) for distance in distances]
    return [d(a, b) for d in distances], floors, digits.value, balance.counts, bits.value, metrics.mnist_features(x)


def figures(on):
    x, points = randn((6, 1, 8, 8), generator(0), on), randn((5, 2), generator(1), on)
    mixture, history = toys.ring(), SimpleNamespace(step=[1, 2, 3], loss=[3.0, 2.0, 1.0])
    drawn = [
        plots.grid(x, alt="noise"),
        plots.strip([x, x]),
        plots.loss_curve(history),
        plots.bars(["a"], [1.0], floor=0.5),
    ]
    drawn += [plots.scatter(points), plots.trajectories(torch.stack([points, points + 1]))]
    drawn.append(plots.score_field(lambda at: mixture.score(at.to(on)), 1.5, lambda at: mixture.log_prob(at.to(on))))
    with contextlib.redirect_stdout(io.StringIO()):
        drawn.append(plots.slider(lambda value: plots.grid(value * x), [0.1, 1.0], "scale"))
    assert all(plots.png(figure) for figure in drawn) and plots.animation([x, -x]).data


def captioned(on):
    batch = scenes.Scenes(two=0.5, style="varied").batch(6, generator(0))
    alpha = batch.alpha.to(on)
    assert captions.detokenize(batch.tokens.to(on)) and captions.null_tokens().shape == (20,)
    maps = [scenes.control(alpha, kind) for kind in ("edges", "mask", "box")]
    rows, columns = (16 + randn((6, 4), generator(seed), on) for seed in (1, 2))
    return maps, scenes.resample(alpha[:, 0], rows, columns), scenes.boxes(alpha[:, 0] > 0.5), batch.x


def judged(on):
    one, two = scenes.evaluation("seen"), scenes.evaluation("seen", two=True)
    attrs, attrs_two = ({key: value[:6] for key, value in batch.attrs.items()} for batch in (one, two))
    x, x_two, judge = one.x[:6].to(on), two.x[:6].to(on), oracle.Oracle()
    found, named = judge.decode(x), captions.mentioned(one.tokens[:6].to(on))
    spread = oracle.diversity(found.attrs["c"], scenes.allowed("c", {"d": 3}))
    overlap = oracle.iou(found.alpha.to(on), one.alpha[:6].to(on))
    return (
        judge.score(x, attrs, named),
        judge.score_two(x_two, attrs_two),
        spread,
        overlap,
        judge.glyph_distance(x).value,
    )


def weight(on):
    return torch.nn.Sequential(torch.nn.Linear(20, 18), torch.nn.Linear(18, 1)).to(on)


def optimised(on):
    torch.manual_seed(0)
    net = weight(on)
    found = optim.optimisers(net, "muon", 0.1, 0.1)
    net(randn((4, 20), generator(0), on)).square().mean().backward()
    for optimiser in found:
        optimiser.step()
    optim.set_state(found, optim.get_state(found))
    return list(net.parameters()), optim.get_state(found), optim.orthogonalise(randn((2, 5, 3), generator(1), on))


def regression(net, batch, rng):
    x = batch[0]
    return (net(x + randn(x.shape, rng, x.device)) - x.mean(1, keepdim=True)).square().mean()


def trained(on):
    x, build = randn((9, 20), generator(0)), functools.partial(weight, "cpu")
    run, again = (training.fit(build, regression, (x,), name="a", steps=3, batch=4) for _ in range(2))
    assert again.source == "this machine's cache" and next(again.net.parameters()).device == on
    kept = measure(answers, run.net, randn((4, 20), generator(1)), name="b")
    described, other = (fingerprint.describe({"net": run.raw, "x": value}, "it") for value in (x.to(on), 0.5))
    assert len(fingerprint.digest(described)) == 64 and fingerprint.differences(described, other)
    return run.history.loss, kept


def by_the_recipe(on):
    done = recipe.train(data.mnist("test")[0][:9], name="c", steps=5, batch=4)
    return done.run.history.loss, done.sample(2, 2, generator(0)).shape


def answers(net, x):
    where = next(net.parameters()).device
    return {"y": net(x.to(where)).detach()}


def distilled(on):
    xt, t, s = randn((2, 1, 4, 4), generator(0), on), torch.tensor([0.5, 0.9]), torch.tensor([0.4, 0.1])
    teacher, f = denoiser.from_network(tiny, distillation.COSINE, "v"), distillation.consistency(tiny)
    steps = [step(teacher, xt, t, s) for step in (distillation.ddim_step, distillation.heun_step)]
    aims = distillation.v_towards(steps[0], xt, t, s, distillation.COSINE), distillation.halved(teacher, xt, t, s)
    made = distillation.multistep(f, xt, [distillation.T_MAX, 0.5], generator(0))
    return steps, aims, made, distillation.turn(distillation.COSINE, t, s, xt)


def text_and_images(on):
    """The networks of captioned scenes, small, and the losses that train them."""
    x, ids = scenes.Scenes(two=0.5).batch(2, generator(0)).x, torch.tensor(TEXT)
    bases = (bases_of_scenes.exact_and_partial, bases_of_scenes.pairs)
    drawn = [draw(3, generator(0)) for draw in bases], bases_of_scenes.pictures(3, generator(0))
    x, ids = x.to(on), ids.to(on)
    bag = LaptopUNet(3, width=8, depth=1, middle=1, heads=2, text=BagTextEncoder(width=8, depth=1, heads=2)).to(on)
    joint = mmdit.CaptionMMDiT(width=16, depth=1, heads=2).to(on)
    folded = autoencoder.LaptopAutoencoder(width=8, depth=1).to(on)
    answers = [
        bag(x, torch.zeros(2).to(on), text=ids).square().mean(),
        bases_of_scenes.flow_loss(joint, (x, ids), generator(0)),
        bases_of_scenes.autoencoder_loss(folded, x, generator(0)),
    ]
    sum(answers).backward()
    whole = mmdit.MMDiT(1, 4, 2, 16, 1, 2, words_width=4, whole_width=4).to(on)
    deep = autoencoder.AutoencoderKL(3, 2, 32, (1, 1), (16,), 1, 32).to(on)
    words = randn((2, 3, 4), generator(0), on)
    answers += [whole(x[:, :1, :4, :4].contiguous(), torch.zeros(2).to(on), words, words[:, 0].contiguous())]
    vectors, before = words[..., 0].contiguous(), prior.DiffusionPrior(3, 3, 8, 1, 2).to(on)
    answers += [before(vectors, torch.zeros(2).to(on), words[..., :3].contiguous(), vectors, vectors > 0)]
    mean, log_variance = deep.encode(x)
    with torch.device("meta"):
        sizes = [str(mmdit.mmdit(1)), str(autoencoder.autoencoder_kl(4)), str(prior.karlo())]
    return answers, drawn, deep.decode(mean), log_variance, scenes.pixels(scenes.standardized(x)), len(sizes)


def bases_of_captions(on):
    runs = bases_of_scenes.scenes_by_caption(), bases_of_scenes.two_digits_by_caption(), bases_of_scenes.autoencoder()
    assert bases_of_scenes.draw(runs[1].net, torch.tensor(TEXT), generator(0), steps=2).shape[1:] == (3, 32, 32)
    assert all(next(run.net.parameters()).device == on for run in runs)
    return [len(run.history.loss) for run in runs]


def clip_of_captions(on):
    run, (x, ids) = captioned_clip.clip_of_scenes(), captioned_clip.pairs(4, generator(0))
    assert next(run.net.parameters()).device == on
    net = captioned_clip.clip_network().to(on)
    loss = captioned_clip.pair_loss(net, (x.to(on), ids.to(on)), generator(0))
    prompts = [captioned_clip.attribute_prompts(key) for key in "dcspb"]
    return loss, prompts, captioned_clip.zero_shot(net, x.to(on), "p")


def students_of_the_base(on):
    runs = [*students.progressive().values(), students.consistency_distillation(), students.consistency_training()]
    assert all(next(run.net.parameters()).device == on for run in runs)
    digits, labels = data.mnist("test")
    batch, net = (digits[:4].to(on), labels[:4].to(on)), base.labelled_network().to(on)
    teacher = denoiser.from_network(net, base.COSINE, "v")
    losses = students.progressive_loss(teacher, 4), students.consistency_loss(4, teacher), students.consistency_loss(4)
    return [loss(net, batch, generator(0)) for loss in losses]


def shared(on):
    digits, labels = data.mnist("test")
    x0, label = digits[:4].to(on), labels[:4].to(on)
    plain, again, labelled = base.ddpm_mnist(), base.ddpm_mnist_brief(), base.digits_by_class()
    again = base.shared("ddpm_mnist", LaptopUNet, base.simple_loss, (data.mnist("train")[0],), 6, 8)
    assert next(plain.net.parameters()).device == on and again.source == "this machine's cache"
    losses = [base.simple_loss(run.net, (x0,), generator(0)) for run in (plain, again)]
    return losses, base.class_loss(labelled.net, (x0, label), generator(0))


def devices(on):
    assert device.device() == on and device.describe() and device.check() < 1e-6
    device.synchronize(on)
    return device.double(torch.arange(3.0).to(on)), randn((2,), generator(device.derived_seed(0, "a")), on)


CALLS = {f"{schedule}": schedule_calls(schedule) for schedule in SCHEDULES} | {
    "ancestral": walk(samplers.ancestral, CHAIN, (90, 40, 10, 0)),
    "ddim": walk(samplers.ddim, eta=0.5),
    "ddim_inversion": walk(samplers.ddim_inversion, times=(0, 0.3, 0.6)),
    "heun": walk(samplers.heun),
    "dpm_solver": walk(samplers.dpm_solver),
    "sde_dpm_solver": walk(samplers.sde_dpm_solver),
    "euler": walk(samplers.euler, FLOW),
    "euler_maruyama": walk(samplers.euler_maruyama),
    "annealed_langevin": walk(samplers.annealed_langevin, schedules.Geometric()),
    "predictor_corrector": walk(samplers.predictor_corrector),
    "UNet": network(lambda: UNet(**SMALL, attention=(4,))),
    "UNet, classes": network(lambda: UNet(**SMALL, attention=(), classes=5, openai=True), condition=LABEL),
    "ADM": network(lambda: adm(64, **ADM), (2, 1, 8, 8), LABEL),
    "ADM's classifier": network(lambda: NoisyClassifier(5, 1, 8, 8, (1, 2), 1, (4,), 4, 8)),
    "LaptopUNet": network(lambda: LaptopUNet(width=8, depth=1, middle=1, heads=2)),
    "LaptopUNet, label and text": network(conditional, condition=(*LABEL, TEXT)),
    "the paper's DiT": network(lambda: dit.dit("S", 8, pixels=8), (2, 4, 8, 8), LABEL),
}
for how in ("adaln_zero", "adaln", "cross", "in_context"):
    options = {"size": 8, "width": 16, "depth": 1, "heads": 2, "conditioning": how}
    CALLS[f"DiT, {how}"] = network(functools.partial(dit.DiT, **options), condition=LABEL)
CALLS |= {
    f.__name__: f
    for f in (
        predictions,
        guided,
        learned_variance,
        flows,
        upsampler,
        in_float32,
        paired,
        digit_classifier,
        toy_data,
        distilled,
    )
}
CALLS |= {
    f.__name__: f
    for f in (
        measures,
        figures,
        captioned,
        judged,
        optimised,
        trained,
        by_the_recipe,
        shared,
        devices,
        students_of_the_base,
        text_and_images,
        bases_of_captions,
        clip_of_captions,
    )
}

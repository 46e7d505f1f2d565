"""A valid call of everything public in litrev, by name, for `test_inputs`: a function and all its arguments."""

import functools
import tempfile
from unittest import mock

import torch
from PIL import Image

from lab import optim, recipe
from litrev import data, device
from litrev.data import captions, folder, scenes, toys
from litrev.device import generator
from litrev.diffusion import denoiser, distillation, grids, guidance, ode, samplers, schedules
from litrev.nets import autoencoder, clip, dit, mmdit, prior
from litrev.nets.laptop_unet import LaptopUNet
from litrev.nets.text import BagTextEncoder, TextEncoder
from litrev.nets.unet import NoisyClassifier, UNet, adm
from litrev.quality import classifier, metrics, oracle

VP, CHAIN, VE = schedules.LinearVP(), schedules.LinearChain(100), schedules.Geometric()
SCHEDULES = [VP, CHAIN, VE, schedules.CosineChain(100), schedules.CosineVP(), schedules.SubVP()]
SCHEDULES += [schedules.RectifiedFlow(3.0), schedules.Karras(), schedules.LinearChain(10)]


def noise(*shape):
    return torch.randn(shape, generator=generator(0))


def tiny(x, time, label=None):
    return torch.tanh(x) if label is None else torch.tanh(x + label.to(x)[:, None, None, None])


X, T, LABEL = noise(2, 1, 4, 4), torch.tensor([0.4, 0.6]), torch.tensor([0, 3])
D, D_CHAIN, D_VE = (denoiser.from_network(tiny, schedule, "v") for schedule in (VP, CHAIN, VE))
P, MIX, POINTS = D(X, 0.5), toys.ring(), noise(5, 2)
WRAPPED = {"xt": X, "t": 0.5}
CALLS = {}  # name: (function, arguments)


def add(function, where=None, /, **arguments):
    bare = getattr(function, "__func__", function)
    CALLS[where or f"{bare.__module__}.{bare.__qualname__}".removeprefix("litrev.")] = function, arguments


def asked(wrapper, with_label=False, **arguments):
    """A call that makes a denoiser and asks it."""

    def call(**given):
        return wrapper(**given)(X, 0.5, **({"label": LABEL} if with_label else {}))

    add(call, f"{wrapper.__module__}.{wrapper.__name__}".removeprefix("litrev."), **arguments)


def walked(sampler, walker=D, times=(0.9, 0.5, 0), **options):
    start = {"x0" if sampler is samplers.ddim_inversion else "xT": X}
    add(sampler, denoiser=walker, **start, times=list(times), **options)


def built(network, x, time, name=None, condition=None, **options):
    """The constructor's options, and what the network is asked."""
    where = name or f"{network.__module__}.{network.__name__}".removeprefix("litrev.")
    condition = condition or {}
    asked_when_built = network(**options)
    add(asked_when_built, f"{where}.forward", x=x, time=time, **condition)
    shape = len(x), x.shape[1], x.shape[2]

    def call(**given):
        net = network(**given)
        return net(noise(shape[0], given.get("channels", shape[1]), *x.shape[2:]), time, **condition)

    add(call, f"{where}.__init__" if isinstance(network, type) else where, **options)


for schedule in SCHEDULES:
    t = torch.tensor(schedule.grid(4)[1:3])
    for method in ("alpha", "sigma", "log_snr", "network_time"):
        add(getattr(schedule, method), t=t)
    for method in ("rates", "drift", "diffusion") if not isinstance(schedule, schedules.Chain) else ():
        add(getattr(schedule, method), t=t)
    add(schedule.time_of, log_snr=schedule.log_snr(t))
    add(schedule.levels, t=t, like=X)
    add(schedule.add_noise, x0=X, t=t, eps=X.flip(0))
    add(schedule.prior, shape=(2, 3), generator=generator(0))
    add(schedule.grid, steps=3, start=schedule.t_max / 2 if schedule.t_max == 1 else schedule.t_max // 2)
    settings = {name: getattr(schedule, name) for name in schedule.__dataclass_fields__}

    def check(kind, **given):
        return kind(**given).add_noise(X, torch.tensor(kind(**given).grid(4)[1:3]), X)

    add(functools.partial(check, type(schedule)), f"diffusion.schedules.{type(schedule).__name__}", **settings)

add(D, "diffusion.denoiser.Denoiser.__call__", xt=X, t=T)
asked(denoiser.from_network, net=tiny, schedule=VP, predicts="v", learned_variance=False)
add(denoiser.require_signal, schedule=VP, t=0.5)
add(denoiser.as_prediction, predicts="eps", out=X, xt=X.flip(0), alpha=P.alpha, sigma=P.sigma)
add(denoiser.with_x0, x0=X, xt=X.flip(0), prediction=P)
asked(denoiser.clip_x0, denoiser=D, low=-1.0, high=1.0)
asked(denoiser.threshold_x0, denoiser=D, quantile=0.9)
asked(denoiser.given, denoiser=D)
asked(denoiser.rescheduled, denoiser=D, schedule=schedules.CosineVP())
add(denoiser.velocity, prediction=P, rates=VP.rates(0.5))
asked(denoiser.exact, posterior_mean=lambda xt, alpha, sigma: alpha * xt, schedule=VP)
add(grids.log_snr_grid, schedule=VP, steps=3, start=0.9, end=0.1)
add(grids.karras_grid, schedule=VP, steps=3, start=0.9, end=0.1, rho=7.0)
asked(guidance.classifier_free, True, denoiser=D, scale=2.0, null={"label": 10})
asked(guidance.autoguidance, denoiser=D, weaker=denoiser.from_network(tiny, VP), scale=2.0)
asked(guidance.limited, guided=denoiser.from_network(tiny, VP), denoiser=D, low=0.1, high=9.0)
add(guidance.extrapolate, conditional=P, unconditional=D(X.flip(0), 0.5), scale=2.0)
add(guidance.scale_from_w, w=2.0)
asked(guidance.classifier, denoiser=D, log_prob=lambda x, t: -x.square().flatten(1).sum(1), scale=2.0)
add(distillation.turn, schedule=VP, t=0.5, s=0.2, like=X)
add(distillation.v_towards, xs=X.flip(0), xt=X, t=0.5, s=0.2, schedule=VP)
for step in (distillation.ddim_step, distillation.heun_step):
    add(step, denoiser=D, xt=X, t=0.5, s=0.2)
add(distillation.halved, teacher=D, xt=X, t=0.5, s=0.2)
add(lambda net: distillation.consistency(net)(X, 0.5), "diffusion.distillation.consistency", net=tiny)
add(
    distillation.multistep,
    f=distillation.consistency(tiny),
    xT=X,
    times=[distillation.T_MAX, 0.5],
    generator=generator(0),
)
add(guidance.drop, condition=LABEL, null=10, probability=0.5, generator=generator(0))
SOLVED = {"start": 0.5, "end": 0.4, "rtol": 1e-2, "atol": 1e-2}
add(ode.solve, f=lambda t, y: -y, y=POINTS, **SOLVED)
add(ode.probability_flow, denoiser=D, x=X, **SOLVED)
exact = denoiser.exact(lambda xt, alpha, sigma: alpha * xt, VP)
add(ode.log_likelihood, denoiser=exact, x0=POINTS, generator=generator(0), **SOLVED | {"end": 0.51})


def divergence(xt, probe):
    leaf = xt.requires_grad_() if torch.is_tensor(xt) and xt.is_floating_point() else xt
    return ode.divergence(leaf**2 if torch.is_tensor(leaf) else leaf, leaf, probe)


add(divergence, "diffusion.ode.divergence", xt=POINTS, probe=POINTS.flip(0))
add(ode.bits_per_dim, log_p=POINTS[:, 0], dimensions=2, offset=7.0)
add(ode.dequantised, pixels=data.to_pixels(X), generator=generator(0))
add(samplers.final, states=[samplers.State(0, X, X)])
walked(samplers.ancestral, D_CHAIN, (90, 40, 0), generator=generator(0), variance="large")
walked(samplers.ddim, eta=0.5, generator=generator(0))
walked(samplers.ddim_inversion, times=(0, 0.3, 0.6))
for sampler in (samplers.heun, samplers.dpm_solver, samplers.euler):
    walked(sampler)
walked(samplers.sde_dpm_solver, generator=generator(0), noise=1.0)
walked(samplers.euler_maruyama, generator=generator(0))
walked(samplers.annealed_langevin, D_VE, generator=generator(0), steps=2, size=0.1)
walked(samplers.predictor_corrector, generator=generator(0), snr=0.16, corrections=1, noise=True)
add(samplers.posterior_coefficients, schedule=VP, t=0.6, s=0.3)

SMALL = {"out_channels": 1, "size": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, "dropout": 0.0}
EIGHT, TIME = noise(2, 1, 8, 8), torch.tensor([3.0, 700.0])
TEXT = captions.tokenize(["a red two", ""])
built(UNet, EIGHT, TIME, channels=1, attention=(4,), classes=5, openai=False, condition={"label": LABEL}, **SMALL)
built(
    adm,
    EIGHT,
    TIME,
    size=64,
    channels=1,
    head_width=4,
    classes=5,
    condition={"label": LABEL},
    **{k: SMALL[k] for k in SMALL if k != "size"},
)
small = {"classes": 5, "channels": 1, "size": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
built(NoisyClassifier, EIGHT, TIME, **small, groups=4, head_width=8)
lean = {"channels": 1, "width": 8, "depth": 1, "middle": 1, "heads": 2, "time_width": 8, "classes": 4}
built(LaptopUNet, EIGHT, TIME, **lean, text=TextEncoder(width=8, depth=1), condition={"label": LABEL, "text": TEXT})
small = {"channels": 1, "out_channels": 1, "size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2, "classes": 5}
built(dit.DiT, EIGHT, TIME, **small, conditioning="adaln_zero", bfloat16=False, condition={"label": LABEL})


def official(**given):
    with mock.patch.dict(dit.SIZES, S=(1, 24, 2)):
        return str(dit.dit(**given))


add(official, "nets.dit.dit", size="S", patch=8, conditioning="cross", pixels=8)

add(TextEncoder(width=8, depth=1), "nets.text.TextEncoder.forward", ids=TEXT)
words = {"vocabulary": 38, "width": 8, "depth": 1, "heads": 2, "length": 20}
add(lambda **given: TextEncoder(**given)(TEXT), "nets.text.TextEncoder.__init__", **words)

PAIRED = {"channels": 2, "width": 8, "depth": 1, "heads": 2}
TWO_SCENES, pairer = noise(2, 3, 32, 32), clip.scene_clip(**PAIRED)
add(clip.scene_clip, **PAIRED)
add(pairer, "nets.clip.CLIP.forward", x=TWO_SCENES, ids=TEXT)
add(pairer.image_vectors, x=TWO_SCENES)
add(pairer.text_vectors, ids=TEXT)
add(pairer.class_vectors, ids=TEXT[:, None])
towers = {"images": clip.SceneTower(2, 8), "texts": TextEncoder(width=8, depth=1)}
add(lambda **given: clip.CLIP(**given)(TWO_SCENES, TEXT), "nets.clip.CLIP.__init__", **towers, width=8)
add(clip.contrastive_loss, logits=noise(3, 3))


def released(**given):
    with mock.patch.dict(clip.SIZES, {"ViT-B/32": (8, 32, 1, 64, 16, 64)}):
        return str(clip.official(**given))


add(released, "nets.clip.official", name="ViT-B/32")


def on_meta(build):
    def call(**given):
        with torch.device("meta"):
            return str(build(**given))

    return call


add(BagTextEncoder(width=8, depth=1), "nets.text.BagTextEncoder.forward", ids=TEXT)
add(lambda **given: BagTextEncoder(**given)(TEXT), "nets.text.BagTextEncoder.__init__", **words)
joint = {"channels": 1, "size": 4, "patch": 2, "width": 8, "depth": 1, "heads": 2, "words_width": 4, "whole_width": 4}
joint |= {"qk_norm": True, "open_gates": False, "bfloat16": False}
joined = {"x": noise(2, 1, 4, 4), "time": TIME, "words": noise(2, 3, 4), "whole": noise(2, 4)}
add(mmdit.MMDiT(**joint), "nets.mmdit.MMDiT.forward", **joined)
add(lambda **given: mmdit.MMDiT(**given)(**joined), "nets.mmdit.MMDiT.__init__", **joint)
by_caption = {"length": 14, "width": 8, "depth": 1, "heads": 2}
read = {"x": noise(2, 3, 32, 32), "time": TIME, "text": TEXT}
add(mmdit.CaptionMMDiT(**by_caption), "nets.mmdit.CaptionMMDiT.forward", **read)
add(lambda **given: mmdit.CaptionMMDiT(**given)(**read), "nets.mmdit.CaptionMMDiT.__init__", **by_caption)
add(on_meta(mmdit.mmdit), "nets.mmdit.mmdit", depth=1, qk_norm=True)
ahead = {"embedding": 4, "length": 3, "width": 8, "depth": 1, "heads": 2}
told = {"x": noise(2, 4), "time": TIME, "words": noise(2, 3, 4), "text": noise(2, 4)}
told["mask"] = torch.tensor([[True, True, True], [True, True, False]])
add(prior.DiffusionPrior(**ahead), "nets.prior.DiffusionPrior.forward", **told)
add(lambda **given: prior.DiffusionPrior(**given)(**told), "nets.prior.DiffusionPrior.__init__", **ahead)
add(on_meta(prior.karlo), "nets.prior.karlo")

SMALL_IMAGE = noise(2, 1, 4, 4)
folded = {"channels": 1, "latent": 2, "factor": 2, "width": 8, "depth": 1}
deep = {"channels": 1, "latent": 2, "width": 32, "multipliers": (1, 1), "attention": (2,), "blocks": 1, "side": 4}
for name, build, sizes in (
    ("LaptopAutoencoder", autoencoder.LaptopAutoencoder, folded),
    ("AutoencoderKL", autoencoder.AutoencoderKL, deep),
):
    first_stage = build(**sizes)
    add(first_stage.encode, f"nets.autoencoder.{name}.encode", x=SMALL_IMAGE)
    add(first_stage.decode, f"nets.autoencoder.{name}.decode", z=noise(2, 2, 2, 2))
    add(lambda build=build, **given: build(**given).encode(SMALL_IMAGE), f"nets.autoencoder.{name}.__init__", **sizes)
add(on_meta(autoencoder.autoencoder_kl), "nets.autoencoder.autoencoder_kl", factor=4)
moments = {"mean": noise(2, 1, 2, 2), "log_variance": noise(2, 1, 2, 2)}
add(autoencoder.kl_to_standard, **moments)
add(autoencoder.draw, **moments, eps=noise(2, 1, 2, 2))
add(scenes.standardized, x=noise(2, 3, 4, 4).clamp(-1, 1))
add(scenes.pixels, x0=noise(2, 3, 4, 4))

PICTURES = tempfile.TemporaryDirectory()
Image.new("L", (4, 4)).save(f"{PICTURES.name}/a.png")
add(folder.images, path=PICTURES.name, size=4, grey=True)
add(data.to_unit, pixels=data.to_pixels(X))
add(data.to_pixels, x=X)
add(data.images.mnist_file, name="train-labels-idx1-ubyte")
add(data.mnist, "data.images.mnist", split="test")
sentence = {"d": 1, "c": 2, "s": 0, "p": 3, "b": 1, "r": 2, "d2": 4, "c2": 1}
add(captions.sentence, **sentence, keep="cs", prefix=True)
ATTRS = scenes.Scenes(two=0.5).draw(4, generator(0))
ONE, TWO = (scenes.Scenes(two=two).batch(4, generator(0)) for two in (0, 1))
add(captions.write, attrs=ATTRS, generator=generator(0), drop=0.5, style="plain")
add(captions.require_attributes, attrs=ATTRS, n=4)
add(captions.tokenize, captions=["a red two"])
add(captions.detokenize, tokens=TEXT)
add(captions.null_tokens, kind="pad")
add(captions.mentioned, tokens=TEXT)
add(scenes.one_digit, split="A")
add(scenes.two_digits, split="A")
add(scenes.allowed, attribute="c", given={"d": 3}, split="seen")
add(scenes.boxes, ink=X[:, 0] > 0)
add(scenes.resample, image=X[:, 0], y=noise(2, 4), x=noise(2, 4), average=2)
add(scenes.render, attrs=ATTRS, generator=generator(0), glyphs="test", res=16)
settings = {"split": "seen", "glyphs": "test", "two": 0.5, "drop": 0.5, "style": "plain", "res": 16}
add(lambda **given: scenes.Scenes(**given).batch(2, generator(0)), "data.scenes.Scenes", **settings)
add(scenes.Scenes().draw, n=2, generator=generator(0))
add(scenes.Scenes().batch, n=2, generator=generator(0))
add(scenes.evaluation, split="seen", two=False, res=16)
add(scenes.control, alpha=X.sigmoid(), kind="box")
mixture = {"means": POINTS, "stds": torch.rand(5, 2, generator=generator(0)), "weights": torch.ones(5)}
add(lambda **given: toys.GaussianMixture(**given).score(POINTS), "data.toys.GaussianMixture", **mixture)
add(MIX.sample, n=3, generator=generator(0))
for method in (MIX.log_prob, MIX.responsibilities, MIX.score):
    add(method, x=POINTS)
add(MIX.diffused, alpha=0.8, sigma=0.6)
add(MIX.posterior_mean, xt=POINTS, alpha=0.8, sigma=0.6)
add(toys.ring, components=3, radius=1.0, std=0.1)
add(toys.swiss_roll, n=3, generator=generator(0), noise=0.1)
add(toys.two_moons, n=3, generator=generator(0), noise=0.1)
add(toys.checkerboard, n=3, generator=generator(0))
add(device.generator, seed=0)
add(device.randn, shape=(2, 3), generator=generator(0))

DIGITS = data.mnist("test")[0][:6]
add(classifier.block, inputs=1, outputs=2)
for method in (classifier.load().embedding, classifier.load().features, classifier.load().forward):
    add(method, x=DIGITS)
add(classifier.in_batches, function=torch.tanh, x=DIGITS, size=2)
A, B = noise(20, 3), noise(20, 3).flip(0) + 1
add(metrics.floor, distance=metrics.frechet_distance, real=A, n=8, seeds=2)
moments = {"mean_a": A.mean(0), "cov_a": A.T.cov(), "mean_b": B.mean(0), "cov_b": B.T.cov()}
add(metrics.gaussian_frechet, **moments)
add(metrics.frechet_distance, a=A, b=B)
add(metrics.sliced_wasserstein, a=A, b=B, directions=8, seed=0)
add(metrics.mmd, a=A, b=B, bandwidth=1.0)
add(metrics.precision_recall, samples=A, reference=B, k=3)
add(metrics.mnist_features, images=DIGITS)
add(metrics.fd_floor, n=2, seeds=2)
add(metrics.mnist_fd, samples=DIGITS)
add(metrics.class_balance, samples=DIGITS)
add(metrics.bits_per_dim, log_p=A[:6, 0], pixels=data.to_pixels(DIGITS), offset=7.0)
add(oracle.read, x=ONE.x)
judge = oracle.Oracle()
for method in (judge.decode, judge.features, judge.glyph_distance):
    add(method, x=ONE.x)
add(judge.score, x=ONE.x, attrs=ONE.attrs, mentioned=captions.mentioned(ONE.tokens))
add(judge.score_two, x=TWO.x, attrs=TWO.attrs)
add(oracle.iou, a=ONE.alpha, b=ONE.alpha.flip(0))
add(oracle.diversity, values=torch.tensor([0, 1, 1]), law=torch.tensor([0.5, 0.25, 0.25]))

net = torch.nn.Sequential(torch.nn.Linear(20, 18), torch.nn.Linear(18, 1))
add(optim.orthogonalise, matrices=noise(2, 3, 4), steps=3)
add(optim.Muon, "lab.optim.Muon.__init__", params=[net[0].weight], lr=0.1, momentum=0.9, weight_decay=0.1)
add(optim.optimisers, net=net, name="muon", lr=0.1, weight_decay=0.1)
add(optim.rate, step=1, steps=3, warmup=0.1)
add(optim.decay, step=1, ema=0.9)
add(recipe.small_net, heads=2)
add(recipe.noise_loss, centre=2.0, predicts="v")
add(recipe.noise_times, n=3, centre=2.0, generator=generator(0))

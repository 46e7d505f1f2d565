"""What is compared: this library's networks and its peers', each with its own loss, optimiser, average and sampler.

A peer gets what its own training code or tutorial does (named beside each), v-prediction where there is a choice,
batches from memory instead of its loader, and three resolutions where its default is four: 28 halves only twice.
"""

import collections
import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab import optim, recipe
from litrev.device import randn
from litrev.diffusion import denoiser, samplers
from litrev.diffusion.schedules import CosineVP
from litrev.nets.dit import DiT
from litrev.nets.laptop_unet import LaptopUNet


@dataclass
class Subject:
    """A network in training: `loss` of images [B, 1, size, size] in [-1, 1]; `average` is called after each step;
    `sample(n, steps)` draws images with the averaged weights; `rate(step, done)` is the factor of the learning rate at
    a step, with `done` in [0, 1] of the training over; `batch` images a step are what a peer's own training code
    takes."""

    net: nn.Module
    loss: Callable[[Tensor], Tensor]
    optimisers: list[torch.optim.Optimizer]
    average: Callable[[], None]
    sample: Callable[[int, int], Tensor]
    rate: Callable[[int, float], float] = lambda step, done: 1.0
    batch: int = 16


def step(subject: Subject, images: Tensor) -> None:
    """One training step. All clip gradients to the norm 1, as `fit` and most peers' trainers do."""
    subject.loss(images).backward()
    nn.utils.clip_grad_norm_(subject.net.parameters(), 1.0)
    for optimiser in subject.optimisers:
        optimiser.step()
        optimiser.zero_grad()
    subject.average()


def litrev_unet(millions: float, size: int, lr: float = 2e-3) -> Subject:
    """`LaptopUNet`, the recipe's or one with more blocks in the middle, where a parameter costs the fewest
    multiplications, trained as `lab.training.fit` does it by default."""
    widths = {1.6: 32, 6.0: 64}
    net = LaptopUNet(width=widths[millions], depth=1, middle=17, heads=0) if millions in widths else recipe.small_net()
    return _litrev(net, size, lr)


def litrev_dit(millions: float, size: int, lr: float = 2e-3) -> Subject:
    """`DiT`, patch 4, without labels; otherwise as `litrev_unet`."""
    shape = {0.4: dict(width=96, depth=2), 1.6: dict(width=128, depth=5), 6.0: dict(width=256, depth=5)}[millions]
    return _litrev(DiT(size=size, **shape), size, lr, labels=10)


def averaged(net: nn.Module, most: float) -> tuple[nn.Module, Callable[[], None]]:
    """Return the network that is to be the average, and what moves it after each step: with decay min(most, (1 + n) /
    (10 + n)) at step n."""
    mean, steps = copy.deepcopy(net), itertools.count()

    @torch.no_grad()
    def average():
        decay = optim.decay(next(steps), most)
        torch._foreach_lerp_(list(mean.parameters()), list(net.parameters()), 1 - decay)

    return mean, average


def _litrev(net: nn.Module, size: int, lr: float, labels: int | None = None) -> Subject:
    schedule, rng = CosineVP(), torch.default_generator
    mean, average = averaged(net, 0.999)

    def given(network):
        return network if labels is None else lambda x, t: network(x, t, torch.full((len(x),), labels))

    def loss(x0):
        t, eps = torch.rand(len(x0), generator=rng, dtype=torch.float64), randn(x0.shape, rng)
        alpha, sigma = schedule.levels(t, x0)
        time = schedule.network_time(t).float()
        return F.mse_loss(given(net)(alpha * x0 + sigma * eps, time), alpha * eps - sigma * x0)

    def sample(n, evaluations):
        model = denoiser.clip_x0(denoiser.from_network(given(mean), schedule, "v"))
        return samplers.final(samplers.ddim(model, randn((n, 1, size, size), rng), schedule.grid(evaluations)))

    return Subject(net, loss, optim.optimisers(net, "adamw", lr, 0.0), average, sample)


def lucidrains(millions: float, size: int, lr: float = 1e-4, ema_every: int = 10) -> Subject:
    """denoising-diffusion-pytorch's Unet and GaussianDiffusion (v, sigmoid schedule, DDIM) as in its Trainer: Adam
    with betas 0.9 and 0.99, lr 1e-4, EMA 0.995 every 10 steps."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    net = Unet({0.4: 12, 1.6: 24}[millions], channels=1, dim_mults=(1, 2, 4))
    diffusion = GaussianDiffusion(net, image_size=size, sampling_timesteps=50)
    ema = EMA(diffusion, beta=0.995, update_every=ema_every)

    def sample(n, evaluations):
        ema.ema_model.sampling_timesteps = evaluations
        return 2 * ema.ema_model.sample(n) - 1  # its images are in [0, 1]

    adam = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    return Subject(net, lambda x0: diffusion((x0 + 1) / 2), [adam], ema.update, sample)


def azula_unet(millions: float, size: int, lr: float = 3e-4) -> Subject:
    """azula's UNet and KarrasDenoiser (which on its VP schedule learns v) with DDIM as in its MNIST tutorial, without
    the label: Adam, lr 3e-4, batches of 64, no average."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    channels, blocks = {0.4: ((16, 32, 64), (2, 2, 1)), 1.6: ((28, 56, 112), (2, 2, 2))}[millions]
    model = KarrasDenoiser(_AzulaBackbone(channels, blocks), VPSchedule())

    def sample(n, evaluations):
        sampler = DDIMSampler(model, steps=evaluations, silent=True)
        return sampler(sampler.init((n, 1, size, size))).clamp(-1, 1)

    adam = torch.optim.Adam(model.parameters(), lr=lr)
    return Subject(
        model.backbone, lambda x0: model.loss(x0, torch.rand(len(x0))), [adam], lambda: None, sample, batch=64
    )


class _AzulaBackbone(nn.Module):
    """The tutorial's network: a UNet steered by features of the log-SNR."""

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...]):
        from azula.nn.unet import UNet

        super().__init__()
        self.unet = UNet(1, 1, hid_channels=channels, hid_blocks=blocks, mod_features=64)
        self.time = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, 64))

    def forward(self, x, time):
        return self.unet(x, self.time(time[..., None]))


def k_diffusion_unet(millions: float, size: int, lr: float = 2e-4) -> Subject:
    """k-diffusion's ImageDenoiserModelV1 and Denoiser (which learns v of images with the deviation 0.6162) as its
    train.py has them for config_mnist.json, without augmentation and without a variance: AdamW with betas 0.95 and
    0.999, eps 1e-6, weight decay 1e-3, lr 2e-4, EMA with warm-up, its 2M solver on EDM's times. Most blocks are at 7 x
    7, as in `litrev_unet`: the fastest of the shapes that were tried."""
    from k_diffusion import layers, models, sampling, utils

    width = {0.4: 16, 1.6: 32}[millions]
    shape = dict(depths=(1, 1, 5), channels=(width, width, 2 * width), self_attn_depths=(False, False, True))
    net = models.ImageDenoiserModelV1(1, 4 * width, dropout_rate=0.05, **shape)
    model = layers.Denoiser(net, sigma_data=0.6162)
    mean, warmup = copy.deepcopy(model).eval(), utils.EMAWarmup(power=2 / 3, max_value=0.9999)

    def loss(x0):
        return model.loss(x0, torch.randn_like(x0), utils.rand_log_normal([len(x0)], -1.2, 1.2)).mean()

    @torch.no_grad()
    def average():
        utils.ema_update(model, mean, warmup.get_value())
        warmup.step()

    def sample(n, evaluations):
        sigmas = sampling.get_sigmas_karras(evaluations, 0.01, 80.0)
        return sampling.sample_dpmpp_2m(mean, 80.0 * torch.randn(n, 1, size, size), sigmas, disable=True).clamp(-1, 1)

    adam = torch.optim.AdamW(net.param_groups(lr), betas=(0.95, 0.999), eps=1e-6, weight_decay=1e-3)
    return Subject(net, loss, [adam], average, sample, batch=64)


def smalldiffusion_unet(millions: float, size: int, lr: float = 7e-4) -> Subject:
    """smalldiffusion's Unet as in its example fashion_mnist_unet.py, but with v, and batches of 128, since the
    example's 1,024 are for hours: log-linear noise levels, AdamW, lr 7e-4, EMA 0.999, its sampler with gam 1.6."""
    import smalldiffusion

    factors = {0.4: (1, 1, 1), 1.6: (1, 2, 3)}[millions]
    build = smalldiffusion.Scaled(smalldiffusion.PredV(smalldiffusion.Unet))
    net = build(size, 1, 1, ch=32, ch_mult=factors, num_res_blocks=1, attn_resolutions=(size // 2,))
    schedule = smalldiffusion.ScheduleLogLinear(800, sigma_min=0.01, sigma_max=20)
    mean, average = averaged(net, 0.999)

    def loss(x0):
        return net.get_loss(*smalldiffusion.generate_train_sample(x0, schedule))

    def sample(n, evaluations):
        steps = smalldiffusion.samples(mean, schedule.sample_sigmas(evaluations), gam=1.6, batchsize=n)
        return collections.deque(steps, 1).pop().clamp(-1, 1)

    return Subject(net.train(), loss, [torch.optim.AdamW(net.parameters(), lr)], average, sample, batch=128)


def diffusers_unet(millions: float, size: int, lr: float = 1e-4) -> Subject:
    """UNet2DModel with DDPMScheduler; see `_diffusers`."""
    from diffusers import UNet2DModel

    channels = {0.4: (16, 32, 32), 1.6: (32, 64, 64)}[millions]
    down, up = ("DownBlock2D", *2 * ["AttnDownBlock2D"]), (*2 * ["AttnUpBlock2D"], "UpBlock2D")
    shape = dict(block_out_channels=channels, down_block_types=down, up_block_types=up, norm_num_groups=8)
    net = UNet2DModel(size, in_channels=1, out_channels=1, layers_per_block=2, **shape)
    return _diffusers(net, size, lr, lambda x, t: net(x, t).sample)


def diffusers_dit(millions: float, size: int, lr: float = 1e-4) -> Subject:
    """DiTTransformer2DModel of the same depth, width and patch as `litrev_dit`, with one label for all; see
    `_diffusers`."""
    from diffusers import DiTTransformer2DModel

    head, layers = {0.4: (24, 2), 1.6: (32, 5)}[millions]
    shape = dict(num_attention_heads=4, attention_head_dim=head, num_layers=layers, patch_size=4, sample_size=size)
    net = DiTTransformer2DModel(in_channels=1, num_embeds_ada_norm=10, **shape)
    return _diffusers(net, size, lr, lambda x, t: net(x, t, torch.zeros(len(x), dtype=torch.long)).sample)


def _diffusers(net: nn.Module, size: int, lr: float, forward) -> Subject:
    """As diffusers' example train_unconditional.py: AdamW with betas 0.95 and 0.999, weight decay 1e-6, lr 1e-4 along
    a cosine, EMA with warm-up, DDPM's sampler on fewer steps; but its linear schedule predicts v."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    scheduler = DDPMScheduler(prediction_type="v_prediction")
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, power=3 / 4)

    def loss(x0):
        eps, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        return F.mse_loss(forward(scheduler.add_noise(x0, eps, t), t), scheduler.get_velocity(x0, eps, t))

    @torch.no_grad()
    def sample(n, evaluations):
        ema.store(net.parameters())
        ema.copy_to(net.parameters())
        net.eval()
        scheduler.set_timesteps(evaluations)
        xt = torch.randn(n, 1, size, size)
        for t in scheduler.timesteps:
            xt = scheduler.step(forward(xt, t.expand(n)), t, xt).prev_sample
        net.train()
        ema.restore(net.parameters())
        return xt

    adam = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6)
    return Subject(net.train(), loss, [adam], lambda: ema.step(net.parameters()), sample, _warm_cosine)


def _warm_cosine(step: int, done: float) -> float:
    """The example's 500 steps of warm-up, or a twentieth of the training if that is shorter; then a cosine."""
    return min(1.0, max((step + 1) / 500, done / 0.05)) * (1 + math.cos(math.pi * done)) / 2

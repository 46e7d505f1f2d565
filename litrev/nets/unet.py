"""The U-Nets of DDPM and ADM, by configuration from the papers' sizes to a laptop's. Their lean relative is in
`laptop_unet`."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks
from litrev.nets.blocks import Attention, AttentionPool, Downsample, ResBlock, Upsample, conv3x3, sinusoidal, zeroed


class Encoder(nn.Module):
    """The way down and the middle, which U-Nets and ADM's classifiers share.

    Each of `levels`, pairs (width, whether with attention), has `blocks` of `stage` and is then halved by `resampler`.
    """

    def __init__(self, channels, width, levels, blocks, stage, resampler, classes, openai):
        super().__init__()
        checks.whole(channels=channels, blocks=blocks)
        checks.whole(0, classes=classes or 0)
        checks.flag(openai=openai)
        checks.divisible(**{"2 (for the time)": 2, "width": width})
        self.width, self.openai = width, openai
        self.time_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.label = nn.Embedding(classes, 4 * width) if classes else None
        self.conv_in = conv3x3(channels, levels[0][0])
        self.down, self.skip_widths = down_path(levels, blocks, stage, resampler)
        c = levels[-1][0]
        self.middle = nn.ModuleList([stage(c, c, True), stage(c, c, False)])

    def encode(self, x, time, label=None):
        """x [B, channels, size, size], time [B], label [B] -> (the feature map at the bottom, those left on the way,
        the embedding of time and label [B, 4 width])."""
        if (label is None) != (self.label is None):
            raise ValueError("Give a label to a network built with classes, and none to one without.")
        halvings = sum(not isinstance(layer, Stage) for layer in self.down)
        checks.network_input(x, time, self.conv_in.in_channels, 2**halvings, self.conv_in.weight)
        if label is not None:
            checks.require_indices("Label", label, time.shape, self.label.num_embeddings)
        time = self.time_mlp(sinusoidal(time, self.width, not self.openai, not self.openai))
        time = time if label is None else time + self.label(label)
        x = self.conv_in(x)
        skips = [x]
        for layer in self.down:
            x = layer(x, time)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, time)
        return x, skips, time


class UNet(Encoder):
    """x [B, channels, size, size], time [B] (0..999), label [B] if `classes` -> [B, out_channels, size, size].

    Going down, each level has `blocks` residual blocks and then halves the image; going up it has `blocks` + 1 and
    then doubles it. Every feature map made on the way down is concatenated to its twin on the way up. Self-attention
    follows each block at the sizes named in `attention`, and one sits in the middle. The defaults are DDPM's CIFAR-10
    network: 35,746,307 parameters (DDPM, app. B); `adm` makes ADM's. `style` is that of `makers`. With low_res [B, C,
    h, w] the network is an upsampler: it also sees that image, enlarged. Raises ValueError where `size` cannot be
    halved as often as there are levels.
    """

    def __init__(
        self,
        channels=3,
        out_channels=3,
        size=32,
        width=128,
        multipliers=(1, 2, 2, 2),
        blocks=2,
        attention=(16,),
        groups=32,
        dropout=0.1,
        classes=None,
        openai=False,
        **style,
    ):
        levels = plan(size, width, multipliers, attention)
        stage, resampler = makers(4 * width, groups, dropout, openai, **style)
        checks.whole(out_channels=out_channels)
        super().__init__(channels, width, levels, blocks, stage, resampler, classes, openai)
        self.up = up_path(self.skip_widths, levels, blocks, stage, resampler)
        self.norm_out = nn.GroupNorm(groups, levels[0][0], 1e-5 if openai else 1e-6)
        self.conv_out = zeroed(conv3x3(levels[0][0], out_channels))

    def forward(self, x, time, label=None, low_res=None):
        if low_res is not None:
            checks.floats("B C H W", x=x)
            checks.floats(f"{len(x)} {self.conv_in.in_channels - x.shape[1]} h w", low_res=low_res)
            x = torch.cat([x, F.interpolate(low_res, x.shape[2:], mode="bilinear")], dim=1)
        x, skips, time = self.encode(x, time, label)
        for layer in self.up:
            if isinstance(layer, Stage):
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, time)
        return self.conv_out(F.silu(self.norm_out(x)))


class NoisyClassifier(Encoder):
    """xt [B, channels, size, size], time [B] (0..999) -> logits [B, classes]: half of ADM's U-Net, and attention
    pooling (ADM, app. H). The defaults are ADM's for 64 x 64."""

    def __init__(
        self,
        classes=1000,
        channels=3,
        size=64,
        width=128,
        multipliers=(1, 2, 3, 4),
        blocks=4,
        attention=(32, 16, 8),
        groups=32,
        head_width=64,
    ):
        checks.whole(classes=classes, head_width=head_width)
        levels = plan(size, width, multipliers, attention)
        stage, resampler = makers(4 * width, groups, 0.0, True, True, True, head_width=head_width)
        super().__init__(channels, width, levels, blocks, stage, resampler, None, True)
        c = levels[-1][0]
        self.norm_out = nn.GroupNorm(groups, c, 1e-5)
        self.pool = AttentionPool(c, size // 2 ** (len(levels) - 1), classes, c // head_width)

    def forward(self, x, time):
        return self.pool(F.silu(self.norm_out(self.encode(x, time)[0])))


ADM = {  # size: width, multipliers, blocks (ADM, app. I)
    64: (192, (1, 2, 3, 4), 3),
    128: (256, (1, 1, 2, 3, 4), 2),
    256: (256, (1, 1, 2, 2, 4, 4), 2),
    512: (256, (0.5, 1, 1, 2, 2, 4, 4), 2),
}


def adm(size=256, classes=1000, **changes):
    """ADM's U-Net for ImageNet at 64, 128, 256 or 512 pixels, with learned variance; `changes` are options of UNet."""
    checks.choice(ADM, size=size)
    width, multipliers, blocks = ADM[size]
    options = {"size": size, "width": width, "multipliers": multipliers, "blocks": blocks, "attention": (32, 16, 8)}
    options |= {"out_channels": 6, "dropout": 0.1 if size == 64 else 0.0, "classes": classes}
    options |= {"heads": 4} if size == 128 else {"head_width": 64}
    return UNet(**options | {"openai": True, "adaptive": True, "resample_blocks": True} | changes)


def plan(size, width, multipliers, attention):
    """For each level its width, and whether it has attention; raises ValueError for a size that cannot be halved."""
    checks.whole(size=size, width=width)
    checks.kind(tuple | list, "a tuple of numbers, one for each level", multipliers=multipliers)
    checks.kind(tuple | list, "a tuple of sizes of images", attention=attention)
    for m in multipliers or (None,):
        checks.number(above=0, **{"A multiplier": m})
    if size % 2 ** (len(multipliers) - 1):
        raise ValueError(
            f"Images of {size} pixels cannot be halved {len(multipliers) - 1} times; use fewer multipliers."
        )
    return [(int(width * m), size // 2**i in attention) for i, m in enumerate(multipliers)]


def makers(time_width, groups, dropout, openai=False, adaptive=False, resample_blocks=False, heads=1, head_width=None):
    """What makes a network's stages and its resampling layers.

    `openai`: the small print of improved DDPM and ADM (cosines first in the time embedding, 1e-5 in group norms,
    padding on all sides); `adaptive`: time scales and shifts group norms (AdaGN); `resample_blocks`: images are halved
    and doubled inside residual blocks (BigGAN); attention has `heads` heads, or heads of `head_width` channels.
    """
    checks.flag(openai=openai, adaptive=adaptive, resample_blocks=resample_blocks)
    options = {"time_width": time_width, "groups": groups, "norm_eps": 1e-5 if openai else 1e-6, "dropout": dropout}
    options["adaptive"] = adaptive

    def resampler(c, way):
        if resample_blocks:
            return ResBlock(c, c, resample=way, **options)
        return Downsample(c, symmetric=openai) if way == "down" else Upsample(c)

    return partial(Stage, heads=heads, head_width=head_width, **options), resampler


class Stage(nn.Module):
    """A residual block, then self-attention if `attend`: x [B, c_in, H, W], time [B, time_width] -> [B, c_out, H,
    W]."""

    def __init__(self, c_in, c_out, attend, heads=1, head_width=None, **options):
        super().__init__()
        norm = {name: options[name] for name in ("groups", "norm_eps") if name in options}
        self.block = ResBlock(c_in, c_out, **options)
        if head_width:
            checks.divisible(head_width=head_width, c_out=c_out)
        heads = c_out // head_width if head_width else heads
        self.attention = Attention(c_out, heads, **norm) if attend else nn.Identity()

    def forward(self, x, time):
        return self.attention(self.block(x, time))


def down_path(levels, blocks, stage, resampler):
    """The layers of the way down, and the widths of the feature maps they leave for the way up."""
    c = levels[0][0]
    layers, skips = nn.ModuleList(), [c]
    for level, (c_out, attend) in enumerate(levels):
        if level > 0:
            layers.append(resampler(c, "down"))
            skips.append(c)
        for _ in range(blocks):
            layers.append(stage(c, c_out, attend))
            c = c_out
            skips.append(c)
    return layers, skips


def up_path(skips, levels, blocks, stage, resampler):
    """The layers of the way up: each residual block also takes the last feature map that the way down left in
    `skips`."""
    layers, skips, c = nn.ModuleList(), list(skips), levels[-1][0]
    for level, (c_out, attend) in reversed(list(enumerate(levels))):
        for _ in range(blocks + 1):
            layers.append(stage(c + skips.pop(), c_out, attend))
            c = c_out
        if level > 0:
            layers.append(resampler(c, "up"))
    return layers

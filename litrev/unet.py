"""DDPM's U-Net, by configuration from the paper's size to a laptop's. Its lean relative is in `laptop_unet`."""

import torch
import torch.nn.functional as F
from torch import nn

from litrev.nn import Attention, Downsample, ResBlock, Upsample, conv3x3, sinusoidal, zeroed


class UNet(nn.Module):
    """x [B, channels, size, size], time [B] (0..999) -> [B, out_channels, size, size].

    Going down, each level has `blocks` residual blocks and then halves the image; going up it has `blocks` + 1 and
    then doubles it. Every feature map made on the way down is concatenated to its twin on the way up. Self-attention
    follows each block at the sizes named in `attention`, and one sits in the middle. The defaults are DDPM's CIFAR-10
    network: 35,746,307 parameters (DDPM, app. B). Raises ValueError where `size` cannot be halved as often as there
    are levels.
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
    ):
        super().__init__()
        if size % 2 ** (len(multipliers) - 1):
            raise ValueError(
                f"Images of {size} pixels cannot be halved {len(multipliers) - 1} times; use fewer multipliers."
            )
        levels = [(width * m, size // 2**i in attention) for i, m in enumerate(multipliers)]
        options = {"time_width": 4 * width, "groups": groups, "dropout": dropout}
        self.width = width
        self.time_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.conv_in = conv3x3(channels, width)
        self.down, skips = down_path(width, levels, blocks, options)
        c = levels[-1][0]
        self.middle = nn.ModuleList([Stage(c, c, True, **options), Stage(c, c, False, **options)])
        self.up = up_path(skips, levels, blocks, options)
        self.norm_out = nn.GroupNorm(groups, levels[0][0], 1e-6)
        self.conv_out = zeroed(conv3x3(levels[0][0], out_channels))

    def forward(self, x, time):
        time = self.time_mlp(sinusoidal(time, self.width))
        x = self.conv_in(x)
        skips = [x]
        for layer in self.down:
            x = layer(x, time)
            skips.append(x)
        for layer in self.middle:
            x = layer(x, time)
        for layer in self.up:
            if isinstance(layer, Stage):
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, time)
        return self.conv_out(F.silu(self.norm_out(x)))


class Stage(nn.Module):
    """A residual block, then self-attention if `attend`: x [B, c_in, H, W], time [B, time_width] -> [B, c_out, H,
    W]."""

    def __init__(self, c_in, c_out, attend, **options):
        super().__init__()
        self.block = ResBlock(c_in, c_out, **options)
        self.attention = Attention(c_out, groups=options["groups"]) if attend else nn.Identity()

    def forward(self, x, time):
        return self.attention(self.block(x, time))


def down_path(c, levels, blocks, options):
    """The layers of the way down from c channels, and the widths of the feature maps they leave for the way up."""
    layers, skips = nn.ModuleList(), [c]
    for level, (c_out, attend) in enumerate(levels):
        if level > 0:
            layers.append(Downsample(c))
            skips.append(c)
        for _ in range(blocks):
            layers.append(Stage(c, c_out, attend, **options))
            c = c_out
            skips.append(c)
    return layers, skips


def up_path(skips, levels, blocks, options):
    """The layers of the way up: each residual block also takes the last feature map that the way down left in
    `skips`."""
    layers, skips, c = nn.ModuleList(), list(skips), levels[-1][0]
    for level, (c_out, attend) in reversed(list(enumerate(levels))):
        for _ in range(blocks + 1):
            layers.append(Stage(c + skips.pop(), c_out, attend, **options))
            c = c_out
        if level > 0:
            layers.append(Upsample(c))
    return layers

"""Autoencoders whose latents are small images, the first stage of latent diffusion: the paper's at any size, and a lean
one for 32x32 scenes on a laptop."""

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks
from litrev.nets.blocks import Attention, Downsample, Upsample, bfloat16_inside, conv3x3, zeroed
from litrev.nets.laptop_unet import channel_norm, channels_last, enlarged

# Factor: latent channels, channel multipliers, sides that have attention, for images of side 256 (LDM's code).
KL = {
    4: (3, (1, 2, 4), ()),
    8: (4, (1, 2, 4, 4), ()),
    16: (16, (1, 1, 2, 2, 4), (16,)),
    32: (64, (1, 1, 2, 2, 4, 4), (16, 8)),
}


class AutoencoderKL(nn.Module):
    """Images x [B, channels, H, W] <-> Gaussians over latents [B, latent, H/f, W/f], f = 2^(levels - 1).

    `encode` answers (mean, log variance), the latter in [-30, 20]; `decode` a latent's image. `width` times each of
    `multipliers` is a level's number of channels, of `blocks` residual blocks and, where its side is in `attention` for
    images of `side`, attention. Source: LDM (Rombach et al. 2022, sec. 3.1, supplement G); Stable Diffusion's is
    `autoencoder_kl(8)`.
    """

    def __init__(self, channels=3, latent=4, width=128, multipliers=(1, 2, 4, 4), attention=(), blocks=2, side=256):
        super().__init__()
        checks.whole(channels=channels, latent=latent, width=width, blocks=blocks, side=side)
        checks.kind(tuple | list, "whole numbers, such as (1, 2, 4)", multipliers=multipliers, attention=attention)
        self.factor, self.channels, self.latent = 2 ** (len(multipliers) - 1), channels, latent
        self.encoder = Encoder(channels, 2 * latent, width, multipliers, attention, blocks, side)
        self.decoder = Decoder(latent, channels, width, multipliers, attention, blocks, side)
        self.to_moments = nn.Conv2d(2 * latent, 2 * latent, 1)
        self.from_latent = nn.Conv2d(latent, latent, 1)

    def encode(self, x):
        _suits("x", x, self.channels, self.factor, self.to_moments.weight)
        mean, log_variance = self.to_moments(self.encoder(x)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, z):
        _suits("z", z, self.latent, 1, self.to_moments.weight)
        return self.decoder(self.from_latent(z))


def autoencoder_kl(factor):
    """The paper's KL autoencoder that makes images `factor` (4, 8, 16 or 32) times smaller (LDM, table 8)."""
    checks.choice(KL, factor=factor)
    latent, multipliers, attention = KL[factor]
    return AutoencoderKL(3, latent, 128, multipliers, attention)


class Encoder(nn.Module):
    """x [B, c_in, H, W] -> [B, c_out, H/f, W/f]: levels of residual blocks, each but the last halved at its end, then a
    block, attention and a block."""

    def __init__(self, c_in, c_out, width, multipliers, attention, blocks, side):
        super().__init__()
        layers, c = [conv3x3(c_in, width)], width
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                layers.append(Residual(c, c := width * multiplier))
                layers += [Attention(c)] * (side >> level in attention)
            layers += [Downsample(c)] * (level < len(multipliers) - 1)
        self.layers = nn.ModuleList([*layers, Residual(c, c), Attention(c), Residual(c, c)])
        self.out = Out(c, c_out)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x, None) if isinstance(layer, Downsample) else layer(x)
        return self.out(x)


class Decoder(nn.Module):
    """z [B, c_in, H/f, W/f] -> [B, c_out, H, W]: the encoder backwards, with one residual block more a level."""

    def __init__(self, c_in, c_out, width, multipliers, attention, blocks, side):
        super().__init__()
        c = width * multipliers[-1]
        layers = [conv3x3(c_in, c), Residual(c, c), Attention(c), Residual(c, c)]
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                layers.append(Residual(c, c := width * multiplier))
                layers += [Attention(c)] * (side >> level in attention)
            layers += [Upsample(c)] * (level > 0)
        self.layers = nn.ModuleList(layers)
        self.out = Out(c, c_out)

    def forward(self, z):
        for layer in self.layers:
            z = layer(z, None) if isinstance(layer, Upsample) else layer(z)
        return self.out(z)


class Residual(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), [B, c_in, H, W] -> [B, c_out, H, W]: a U-Net's block without time."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, c_in, 1e-6), nn.GroupNorm(32, c_out, 1e-6)
        self.conv1, self.conv2 = conv3x3(c_in, c_out), conv3x3(c_out, c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Out(nn.Sequential):
    """Norm, SiLU and the last convolution."""

    def __init__(self, c_in, c_out):
        super().__init__(nn.GroupNorm(32, c_in, 1e-6), nn.SiLU(), conv3x3(c_in, c_out))


class LaptopAutoencoder(nn.Module):
    """Images x [B, channels, H, W] <-> Gaussians over latents [B, latent, H/f, W/f] with f = `factor` 2, 4 or 8, as
    `AutoencoderKL`, in the manner of `LaptopUNet`: the image is folded 2x2 into channels at the door, and a layer norm
    over channels replaces group norm.

    `depth` blocks at every size, `width` channels at half the image's side and 2 `width` below; 0.9M parameters by
    default. Raises ValueError for another factor, and images whose sides it does not divide.
    """

    def __init__(self, channels=3, latent=4, factor=4, width=48, depth=2):
        super().__init__()
        checks.choice((2, 4, 8), factor=factor)
        checks.whole(channels=channels, latent=latent, width=width, depth=depth)
        self.factor, self.channels, self.latent = factor, channels, latent
        widths = [width, 2 * width, 2 * width][: factor.bit_length() - 1]
        pairs = list(zip(widths, widths[1:], strict=False))
        self.door = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.down = nn.ModuleList(Level(c, depth) for c in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairs)
        self.to_moments = nn.Conv2d(widths[-1], 2 * latent, 1)
        self.from_latent = nn.Conv2d(latent, widths[-1], 3, padding=1)
        self.up = nn.ModuleList(Level(c, depth) for c in reversed(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1, bias=False) for a, b in reversed(pairs))
        self.out = nn.Conv2d(width, 4 * channels, 3, padding=1)

    def encode(self, x):
        _suits("x", x, self.channels, self.factor, self.door.weight)
        with bfloat16_inside(x.device):
            h = self.door(channels_last(F.pixel_unshuffle(x, 2)))
            for level, block in enumerate(self.down):
                h = block(self.shrink[level - 1](h) if level else h)
            mean, log_variance = self.to_moments(channel_norm(h)).to(torch.float32).contiguous().chunk(2, dim=1)
        return mean.contiguous(), log_variance.clamp(-30, 20)

    def decode(self, z):
        _suits("z", z, self.latent, 1, self.from_latent.weight)
        with bfloat16_inside(z.device):
            h = self.from_latent(channels_last(z))
            for level, block in enumerate(self.up):
                h = block(channels_last(enlarged(h, self.grow[level - 1].weight)) if level else h)
            h = self.out(channel_norm(h))
        return F.pixel_shuffle(h.to(torch.float32), 2).contiguous()


class Level(nn.Sequential):
    """`depth` residual blocks x + conv(SiLU(conv(norm(x)))) on [B, c, H, W]."""

    def __init__(self, c, depth):
        super().__init__(*(Plain(c) for _ in range(depth)))


class Plain(nn.Module):
    """x + conv(SiLU(conv(norm(x)))), [B, c, H, W]."""

    def __init__(self, c):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.conv2 = zeroed(nn.Conv2d(c, c, 3, padding=1, bias=False))

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(channel_norm(x))))


def _suits(name, x, channels, multiple, weight):
    """Raise ValueError unless x is [B, channels, H, W], its sides multiples of `multiple`, as the network's weights."""
    checks.floats(f"B {channels} H W", **{name: x})
    if x.shape[2] % multiple or x.shape[3] % multiple:
        raise ValueError(f"The sides of {name} must be multiples of {multiple}, not {list(x.shape[2:])}: pad or crop.")
    if x.device != weight.device:
        raise ValueError(f"{name} is on {x.device}, the network on {weight.device}: move {name} there.")
    checks.same_type(x, weight)


def draw(mean, log_variance, eps):
    """mean + exp(log_variance / 2) eps, a latent [B, c, h, w] of the Gaussian that an image was encoded to; raises
    ValueError where the shapes differ."""
    checks.floats("B c h w", mean=mean, log_variance=log_variance, eps=eps)
    checks.alike(mean=mean, log_variance=log_variance, eps=eps)
    return mean + (log_variance / 2).exp() * eps


def kl_to_standard(mean, log_variance):
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each image [B]: 1/2 sum(mean^2 + var - 1 - log var)."""
    checks.floats("B c h w", mean=mean, log_variance=log_variance)
    checks.alike(mean=mean, log_variance=log_variance)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)

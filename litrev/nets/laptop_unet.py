"""A lean U-Net for small images on laptops: DDPM's plan (down, middle with attention, up) without what costs time.

What differs from `unet.UNet`, all of it for speed on a CPU: the image is folded 2x2 into channels at the door, so
that nothing runs at full resolution; skips are added instead of concatenated; a layer norm over channels, which
channels-last memory makes contiguous, replaces group norm; convolutions have no biases; and bfloat16 inside where the
CPU computes in it (weights, time, input and output stay float32).
"""

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks
from litrev.data.captions import PAD
from litrev.nets.blocks import attend, bfloat16_inside, sinusoidal, split_heads, zeroed
from litrev.nets.text import TextEncoder, attend_where, require_indices


class LaptopUNet(nn.Module):
    """x [B, channels, H, W], time [B] (0..999) -> [B, channels, H, W]; H and W divisible by 4.

    `depth` blocks at half resolution, `middle` blocks with attention of so many `heads` (0: without) at a quarter,
    `depth` blocks at half resolution again. With width 48 it has 0.97M parameters, and starts as the function that
    answers zero.

    With `classes` it also takes a label [B]: 0..classes-1, and `classes` itself for no label, which classifier-free
    guidance needs. With `text`, a `text.TextEncoder`, it also takes text [B, 20], ids of captions, `null_tokens()` for
    no caption: the vector of the whole joins the time, as a label does, those of the tokens are further keys and values
    in the middle's attention (GLIDE, sec. 4.1). Raises ValueError for text without attention, and for a label or text
    that is missing, not asked for, or of another shape, type or range.
    """

    def __init__(self, channels=1, width=48, depth=2, middle=3, heads=4, time_width=128, classes=0, text=None):
        super().__init__()
        checks.whole(channels=channels, width=width, time_width=time_width)
        checks.whole(0, depth=depth, middle=middle, heads=heads, classes=classes)
        if text is not None:
            checks.kind(TextEncoder, "a TextEncoder", text=text)
        if text and not heads:
            raise ValueError("A LaptopUNet reads its text by attention: give it heads=1 or more.")
        text_width = text.width if text else 0
        self.time_mlp = nn.Sequential(
            nn.Linear(64, time_width), nn.SiLU(), nn.Linear(time_width, time_width), nn.SiLU()
        )
        self.conv_in = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.down = nn.ModuleList(Block(width, time_width) for _ in range(depth))
        self.shrink = nn.Conv2d(width, 2 * width, 2, stride=2, bias=False)
        self.middle = nn.ModuleList(Block(2 * width, time_width, heads, text_width) for _ in range(middle))
        self.grow = nn.Conv2d(2 * width, 4 * width, 1, bias=False)
        self.up = nn.ModuleList(Block(width, time_width) for _ in range(depth))
        self.conv_out = zeroed(nn.Conv2d(width, 4 * channels, 3, padding=1))
        self.label = nn.Embedding(classes + 1, time_width) if classes else None
        self.text = text
        self.pooled = nn.Linear(text_width, time_width) if text else None
        if classes:
            nn.init.normal_(self.label.weight, std=0.2)  # about as large as the time's features: smaller learns slower

    def forward(self, x, time, label=None, text=None):
        checks.network_input(x, time, self.conv_in.in_channels // 4, 4, self.conv_in.weight)
        with bfloat16_inside(x.device):
            time, words = self._condition(time, label, text)
            x = self.conv_in(channels_last(F.pixel_unshuffle(x, 2)))  # [B, width, H/2, W/2]
            for block in self.down:
                x = block(x, time)
            skip, x = x, self.shrink(x)  # [B, 2 width, H/4, W/4]
            for block in self.middle:
                x = block(x, time, *words)
            x = skip + channels_last(enlarged(x, self.grow.weight))
            for block in self.up:
                x = block(x, time)
            x = self.conv_out(channel_norm(x))
        return F.pixel_shuffle(x.to(torch.float32), 2).contiguous()

    def _condition(self, time, label, text):
        """Features [B, time_width] of what steers every block, and the words for attention, (tokens, mask) or ()."""
        for name, part, given in (("label", self.label, label), ("text", self.text, text)):
            if (part is None) != (given is None) or (part and torch.is_tensor(given) and given.shape[:1] != time.shape):
                how = f"with {name}=..., one for each image" if part else f"without {name}=..."
                raise ValueError(f"This LaptopUNet was built {how.split()[0]} {name}: call it {how}.")
        features, words = self.time_mlp[:-1](sinusoidal(time, 64)), ()
        if self.label:
            require_indices("Label", label, time.shape, self.label.num_embeddings)
            features = features + self.label(label)
        if self.text:
            tokens, pooled = self.text(text)
            features, words = features + self.pooled(pooled), (tokens, text != PAD)
        return self.time_mlp[-1](features), words


class Block(nn.Module):
    """x + conv(SiLU(conv(norm(x) (1 + scale) + shift))), scale and shift from the time, then attention if `heads`;
    [B, C, H, W]."""

    def __init__(self, channels, time_width, heads=0, text_width=0):
        super().__init__()
        self.modulation = zeroed(nn.Linear(time_width, 2 * channels))
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        self.attention = Attention(channels, heads, text_width) if heads else nn.Identity()

    def forward(self, x, time, *words):
        scale, shift = self.modulation(time)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, channel_norm(x), 1 + scale)
        return self.attention(x + self.conv2(F.silu(self.conv1(h))), *words)


class Attention(nn.Module):
    """Every pixel looks at every pixel: x + out(softmax(q k^T / sqrt(d)) v) over the H W positions of [B, C, H, W];
    with `text_width` also, in the same softmax, at the tokens [B, L, text_width] where mask [B, L] is True."""

    def __init__(self, channels, heads, text_width=0):
        super().__init__()
        checks.divisible(heads=heads, channels=channels)
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = zeroed(nn.Linear(channels, channels, bias=False))
        self.text_kv = nn.Linear(text_width, 2 * channels, bias=False) if text_width else None

    def forward(self, x, tokens=None, mask=None):
        B, C, H, W = x.shape
        pixels = channel_norm(x).permute(0, 2, 3, 1).reshape(B, H * W, C)
        q, k, v = split_heads(self.qkv(pixels), 3, self.heads)
        if tokens is None:
            h = attend(q, k, v)
        else:
            text_k, text_v = split_heads(self.text_kv(tokens), 2, self.heads)
            seen = torch.cat([mask, mask.new_ones(B, H * W)], 1)[:, None, None]
            h = attend_where(q, torch.cat([text_k, k], 2), torch.cat([text_v, v], 2), seen)
        return x + self.out(h.transpose(1, 2).reshape(B, H, W, C)).permute(0, 3, 1, 2)


def channel_norm(x):
    """Each pixel's channels to mean 0, variance 1, without learned scale: [B, C, H, W] -> the same."""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def enlarged(x, weight):
    """pixel_shuffle(conv(x), 2) with the 1x1 kernel `weight` [4 C', C, 1, 1]: [B, C, H, W] -> [B, C', 2 H, 2 W]; as one
    matrix product whose rows are put in the order in which whole pixels are moved, where memory is channels last."""
    rows = weight.reshape(-1, 4, x.shape[1]).transpose(0, 1).flatten(0, 1)  # of the pixels, not of the channels, first
    pixels = F.linear(x.permute(0, 2, 3, 1), rows).unflatten(3, (2, 2, -1))  # [B, H, W, 2, 2, C']
    return pixels.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def channels_last(x):
    """The same tensor with its channels innermost in memory on a CPU, where convolutions and `channel_norm` are
    faster for it."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x.contiguous()

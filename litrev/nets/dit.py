"""DiT, the diffusion transformer: patches of the image are tokens, and time and class steer every block.

Four ways of conditioning, as in the paper's ablation (DiT, sec. 3.2): "adaln_zero", "adaln", "cross", "in_context".
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks
from litrev.nets.blocks import attend, bfloat16_inside, sinusoidal, split_heads, zeroed

SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}  # depth, width, heads


class DiT(nn.Module):
    """x [B, channels, size, size], time [B] (0..999), label [B] -> [B, out_channels, size, size].

    Labels are 0..classes-1; `classes` itself stands for no label, for classifier-free guidance. Starts as the function
    that answers zero. The defaults make a laptop's network for 28 x 28 digits, with bfloat16 inside where the CPU
    computes in it; `dit` makes the paper's. Raises ValueError for an unknown conditioning, or a size that is no
    multiple of the patch.
    """

    def __init__(
        self,
        channels=1,
        out_channels=1,
        size=28,
        patch=4,
        width=96,
        depth=4,
        heads=4,
        classes=10,
        conditioning="adaln_zero",
        bfloat16=True,
    ):
        super().__init__()
        checks.whole(channels=channels, out_channels=out_channels, size=size, patch=patch)
        checks.whole(0, depth=depth, classes=classes)
        checks.divisible(heads=heads, width=width)
        checks.divisible(**{"4 (for the positions)": 4, "width": width})
        checks.flag(bfloat16=bfloat16)
        if conditioning not in ("adaln_zero", "adaln", "cross", "in_context"):
            raise ValueError(f"Conditioning is adaln_zero, adaln, cross or in_context, not {conditioning!r}.")
        if size % patch:
            raise ValueError(f"Images of {size} pixels have no whole number of patches of {patch}; change the patch.")
        adaptive = conditioning.startswith("adaln")
        block = AdaptiveBlock if adaptive else TokenBlock
        option = conditioning == ("adaln_zero" if adaptive else "cross")
        self.patch, self.conditioning, self.bfloat16 = patch, conditioning, bfloat16
        self.embed = nn.Linear(channels * patch**2, width)
        self.time_mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)
        self.register_buffer("positions", positions(size // patch, width), persistent=False)
        self.blocks = nn.ModuleList(block(width, heads, option) for _ in range(depth))
        self.head = Head(width, out_channels * patch**2, adaptive)
        self.apply(_initialise)
        for name, module in self.named_modules():
            if name == "head.out" or name.endswith("modulation") and conditioning == "adaln_zero":
                zeroed(module)

    def forward(self, x, time, label):
        checks.network_input(x, time, self.embed.in_features // self.patch**2, self.patch, self.embed.weight)
        if len(self.positions) * self.patch**2 != x.shape[2] * x.shape[3] or x.shape[2] != x.shape[3]:
            side = self.patch * math.isqrt(len(self.positions))
            raise ValueError(f"This DiT was built for images of {side} x {side} pixels, not {list(x.shape[2:])}.")
        checks.require_indices("Label", label, time.shape, self.label.num_embeddings)
        with bfloat16_inside(x.device, self.bfloat16):
            return self._answer(x, time, label).to(torch.float32).contiguous()

    def _answer(self, x, time, label):
        tokens = F.pixel_unshuffle(x, self.patch)  # [B, channels patch^2, h, w]
        h, w = tokens.shape[2:]
        x = self.embed(tokens.flatten(2).transpose(1, 2))
        x = x + self.positions.to(x.dtype)
        time, label = self.time_mlp(sinusoidal(time, 256, sin_first=False, last_frequency=False)), self.label(label)
        condition = time + label
        if not self.conditioning.startswith("adaln"):
            condition = torch.stack([time, label], dim=1)  # two tokens
        if self.conditioning == "in_context":
            x = torch.cat([x, condition], dim=1)
        for block in self.blocks:
            x = block(x, condition)
        x = self.head(x[:, : h * w], condition)
        return F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (h, w)), self.patch)


def dit(size, patch, conditioning="adaln_zero", pixels=32):
    """The paper's DiT-size/patch, size one of S, B, L, XL: 4-channel latents of 32 x 32, 1000 classes, learned
    variance (DiT, table 1)."""
    checks.choice(SIZES, size=size)
    depth, width, heads = SIZES[size]
    return DiT(4, 8, pixels, patch, width, depth, heads, 1000, conditioning, bfloat16=False)


class AdaptiveBlock(nn.Module):
    """x + gate attention(modulated LN(x)), then the same with an MLP, for tokens x [B, N, width]: shift, scale and gate
    are linear in SiLU(condition) [B, width] (DiT, fig. 3). Without `gated` the gates are 1."""

    def __init__(self, width, heads, gated):
        super().__init__()
        self.parts = 6 if gated else 4
        self.norm1, self.norm2 = (nn.LayerNorm(width, 1e-6, elementwise_affine=False) for _ in range(2))
        self.attention = SelfAttention(width, heads)
        self.mlp = mlp(width)
        self.modulation = nn.Linear(width, self.parts * width)

    def forward(self, x, condition):
        parts = self.modulation(F.silu(condition))[:, None].chunk(self.parts, dim=-1)
        (shift1, scale1, *gate1), (shift2, scale2, *gate2) = parts[: self.parts // 2], parts[self.parts // 2 :]
        x = add(x, self.attention(modulate(self.norm1(x), shift1, scale1)), *gate1)
        return add(x, self.mlp(modulate(self.norm2(x), shift2, scale2)), *gate2)


class TokenBlock(nn.Module):
    """A plain pre-norm transformer block on tokens x [B, N, width]; with `cross` it also attends to the tokens of the
    condition [B, 2, width], between the two parts (DiT, sec. 3.2)."""

    def __init__(self, width, heads, cross):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, 1e-6) for _ in range(2))
        self.attention = SelfAttention(width, heads)
        self.mlp = mlp(width)
        self.cross = CrossAttention(width, heads) if cross else None

    def forward(self, x, condition):
        x = x + self.attention(self.norm1(x))
        if self.cross:
            x = x + self.cross(x, condition)
        return x + self.mlp(self.norm2(x))


class SelfAttention(nn.Module):
    """Every token looks at every token: softmax(q k^T / sqrt(d)) v and a last linear map, x [B, N, width]."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        h = attend(*split_heads(self.qkv(x), 3, self.heads))
        return self.out(h.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """The tokens LN(x) [B, N, width] look at the tokens of the condition [B, M, width]."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, 1e-6)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x, condition):
        q = self.q(self.norm(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        h = attend(q, *split_heads(self.kv(condition), 2, self.heads))
        return self.out(h.transpose(1, 2).flatten(2))


class Head(nn.Module):
    """LN, modulated if `adaptive`, and a linear map from tokens [B, N, width] to the pixels of their patches."""

    def __init__(self, width, out_width, adaptive):
        super().__init__()
        self.norm = nn.LayerNorm(width, 1e-6, elementwise_affine=not adaptive)
        self.modulation = nn.Linear(width, 2 * width) if adaptive else None
        self.out = nn.Linear(width, out_width)

    def forward(self, x, condition):
        x = self.norm(x)
        if self.modulation:
            x = modulate(x, *self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1))
        return self.out(x)


def mlp(width):
    """Linear, GELU in its tanh form, Linear, four times as wide inside."""
    return nn.Sequential(nn.Linear(width, 4 * width), TanhGELU(), nn.Linear(4 * width, width))


class TanhGELU(nn.Module):
    """GELU in its tanh form; in bfloat16, which cannot tell them apart, in its exact form, three times as fast."""

    def forward(self, x):
        return F.gelu(x, approximate="none" if x.dtype == torch.bfloat16 else "tanh")


def modulate(x, shift, scale):
    """x (1 + scale) + shift."""
    return torch.addcmul(shift, x, 1 + scale)


def add(x, h, gate=None):
    """x + gate h, or x + h where there is no gate."""
    return x + h if gate is None else torch.addcmul(x, gate, h)


def positions(side, width):
    """Fixed features [side^2, width] of where a patch is, row by row: sines and cosines of the column in the first half
    of the channels, of the row in the second (DiT's code)."""
    along = sinusoidal(torch.arange(side), width // 2, last_frequency=False)
    columns, rows = along.repeat(side, 1), along.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1)


def _initialise(module):
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)

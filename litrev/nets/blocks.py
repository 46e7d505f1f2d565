"""The parts that networks are made of: time embedding, residual block, self-attention, resampling. Images are [B, C,
H, W]."""

import contextlib
import math
import threading

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks


def sinusoidal(time, width, sin_first=True, last_frequency=True):
    """The features [sin(w_i t), cos(w_i t)] of a time, w_i falling geometrically from 1 to 1e-4; time [B] -> [B,
    width].

    DDPM puts the sines first and reaches 1e-4 exactly (w_i = 1e4^(-i/(half-1))); ADM and DiT put the cosines first
    and stop one step short (`sin_first=False, last_frequency=False`: w_i = 1e4^(-i/half)). Transformer, sec. 3.5.
    Raises ValueError for an odd width.
    """
    checks.whole(width=width)
    if not torch.is_tensor(time) or time.ndim != 1:
        raise ValueError(f"time must be a tensor [B], one number for each image, not {checks.shown(time)}.")
    if width % 2:
        raise ValueError(f"A sinusoidal embedding needs an even width, not {width}.")
    half = width // 2
    exponents = torch.arange(half, device=time.device, dtype=torch.float32) / (half - last_frequency)
    angles = time[:, None].to(torch.float32) * torch.exp(-math.log(1e4) * exponents)
    parts = (angles.sin(), angles.cos()) if sin_first else (angles.cos(), angles.sin())
    return torch.cat(parts, dim=1)


def zeroed(module):
    """The module with weight and bias set to zero: a residual branch that ends in one starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def conv3x3(c_in, c_out):
    """A 3x3 convolution that keeps height and width."""
    return nn.Conv2d(c_in, c_out, 3, padding=1)


class ResBlock(nn.Module):
    """norm - SiLU - conv - (time) - norm - SiLU - dropout - conv, added to its input [B, c_in, H, W] -> [B, c_out,
    H', W'].

    The time embedding [B, time_width] is added before the second norm (DDPM), or with `adaptive` scales and shifts
    after it: AdaGN, GN(h) (1 + scale) + shift (ADM, sec. 3). `resample` "down" or "up" halves or doubles the image
    inside the block (BigGAN's way).
    """

    def __init__(self, c_in, c_out, time_width, groups=32, norm_eps=1e-6, dropout=0.0, adaptive=False, resample=None):
        super().__init__()
        checks.whole(time_width=time_width)
        checks.divisible(groups=groups, c_in=c_in)
        checks.divisible(groups=groups, c_out=c_out)
        checks.number(0, below=1, dropout=dropout)
        if resample not in (None, "down", "up"):
            raise ValueError(f"resample must be None, 'down' or 'up', not {checks.shown(resample)}.")
        self.adaptive = adaptive
        self.norm1 = nn.GroupNorm(groups, c_in, norm_eps)
        self.conv1 = conv3x3(c_in, c_out)
        self.time = nn.Linear(time_width, 2 * c_out if adaptive else c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(conv3x3(c_out, c_out))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.resample = {None: nn.Identity(), "down": nn.AvgPool2d(2), "up": nn.Upsample(scale_factor=2)}[resample]

    def forward(self, x, time):
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        signal = self.time(F.silu(time))[:, :, None, None]
        if self.adaptive:
            scale, shift = signal.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + signal)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.skip(self.resample(x)) + h


class Attention(nn.Module):
    """Every pixel looks at every pixel: softmax(q k^T / sqrt(d)) v over the H W positions, added to the input [B, C,
    H, W]."""

    def __init__(self, channels, heads=1, groups=32, norm_eps=1e-6):
        super().__init__()
        checks.divisible(heads=heads, channels=channels)
        checks.divisible(groups=groups, channels=channels)
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, norm_eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each [B, heads, H W, C / heads]
        h = attend(q, k, v).transpose(-1, -2).reshape(B, C, H, W)
        return x + self.out(h)


class AttentionPool(nn.Module):
    """[B, C, side, side] -> [B, out]: the mean of all positions looks at every position, with learned places (CLIP's
    pooling, in ADM's classifier)."""

    def __init__(self, channels, side, out, heads):
        super().__init__()
        checks.whole(side=side, out=out)
        checks.divisible(heads=heads, channels=channels)
        self.heads = heads
        self.positions = nn.Parameter(torch.randn(side**2 + 1, channels) / channels**0.5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, out)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.positions
        q, k, v = split_heads(self.qkv(tokens), 3, self.heads)
        return self.out(attend(q[:, :, :1], k, v).flatten(1))


_PRECISION = threading.local()  # its `float32` counts the float32_inside that are open in this thread


@contextlib.contextmanager
def float32_inside():
    """A context in which litrev's networks compute in float32 on every processor: `bfloat16_inside` stays off.

    For what bfloat16's three digits are too few: adaptive solvers, derivatives by differences, comparisons between
    machines. Contexts nest, and an error leaves none open.
    """
    before = getattr(_PRECISION, "float32", 0)
    _PRECISION.float32 = before + 1
    try:
        yield
    finally:
        _PRECISION.float32 = before


def bfloat16_inside(device, wanted=True):
    """A context where matrix products and convolutions compute in bfloat16, with float32 weights, if that pays and no
    `float32_inside` is open."""
    enabled = wanted and not getattr(_PRECISION, "float32", 0) and bfloat16_pays(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def bfloat16_pays(device):
    """Whether the device is a CPU that multiplies bfloat16 natively; elsewhere it is emulated, and slower."""
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def split_heads(x, parts, heads):
    """`parts` (q, k, v or k, v) that lie side by side in x [B, N, parts C], each as [B, heads, N, C / heads]."""
    return [part.transpose(1, 2) for part in x.unflatten(2, (parts, heads, -1)).unbind(2)]


def attend(q, k, v):
    """softmax(q k^T / sqrt(d)) v for q [B, heads, M, d] and k, v [B, heads, N, d]: fused on a GPU, as two matrix
    products on a CPU, where that is faster."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    return torch.softmax(logits, dim=-1, dtype=torch.float32) @ v  # in bfloat16 it would take longer


class Downsample(nn.Module):
    """Halves the image with a strided convolution, padded right and below only, as DDPM's TensorFlow code does
    ("SAME"), or on all sides if `symmetric`, as ADM does."""

    def __init__(self, channels, symmetric=False):
        super().__init__()
        self.before = int(symmetric)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x, time):
        return self.conv(F.pad(x, (self.before, 1, self.before, 1)))


class Upsample(nn.Module):
    """Doubles the image: every pixel becomes a 2x2 square, then a 3x3 convolution."""

    def __init__(self, channels):
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x, time):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

"""MM-DiT, Stable Diffusion 3's transformer: patches and words are two streams with weights of their own that look at
each other in one attention."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks
from litrev.data.captions import LENGTH, VOCABULARY
from litrev.nets.blocks import attend, bfloat16_inside, sinusoidal, split_heads, zeroed
from litrev.nets.dit import Head, add, mlp, modulate, positions


class MMDiT(nn.Module):
    """x [B, channels, size, size], time [B] (0..999), words [B, L, words_width], whole [B, whole_width] -> [B,
    channels, size, size].

    Time and `whole`, a vector of the text, steer every block of both streams; without `whole_width` time does alone.
    Starts as the function that answers zero, each block as the identity, as DiT; with `open_gates` each block starts
    with gates of 1 instead. Raises ValueError for a size that is no multiple of the patch, and for text of another
    shape. Source: SD3 (Esser et al. 2024, sec. 4, fig. 2); the paper's is `mmdit(depth)`.
    """

    def __init__(
        self,
        channels=3,
        size=32,
        patch=4,
        width=96,
        depth=4,
        heads=4,
        words_width=96,
        whole_width=0,
        qk_norm=True,
        open_gates=True,
        bfloat16=True,
    ):
        super().__init__()
        checks.whole(channels=channels, size=size, patch=patch, depth=depth, words_width=words_width)
        checks.whole(0, whole_width=whole_width)
        checks.divisible(heads=heads, width=width)
        checks.divisible(patch=patch, size=size)
        checks.divisible(**{"4 (for the positions)": 4, "width": width})
        checks.flag(qk_norm=qk_norm, open_gates=open_gates, bfloat16=bfloat16)
        self.patch, self.bfloat16 = patch, bfloat16
        self.embed = nn.Linear(channels * patch**2, width)
        self.words = nn.Linear(words_width, width)
        self.time_mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.whole_mlp = None
        if whole_width:
            self.whole_mlp = nn.Sequential(nn.Linear(whole_width, width), nn.SiLU(), nn.Linear(width, width))
        self.register_buffer("positions", positions(size // patch, width), persistent=False)
        self.blocks = nn.ModuleList(JointBlock(width, heads, qk_norm, i == depth - 1) for i in range(depth))
        self.head = Head(width, channels * patch**2, adaptive=True)
        zeroed(self.head.out)
        for block in self.blocks:
            block.start(open_gates)

    def forward(self, x, time, words, whole=None):
        checks.network_input(x, time, self.embed.in_features // self.patch**2, self.patch, self.embed.weight)
        side = self.patch * math.isqrt(len(self.positions))
        if x.shape[2:] != (side, side):
            raise ValueError(f"This MMDiT was built for images of {side} x {side} pixels, not {list(x.shape[2:])}.")
        checks.floats(f"{len(x)} L {self.words.in_features}", words=words)
        checks.same_type(words, self.words.weight)
        if (whole is None) != (self.whole_mlp is None):
            how = "without whole=..." if self.whole_mlp is None else "with whole=..., a vector of each text"
            raise ValueError(f"This MMDiT was built {how.split()[0]} whole_width: call it {how}.")
        if self.whole_mlp:
            checks.floats(f"{len(x)} {self.whole_mlp[0].in_features}", whole=whole)
            checks.same_type(whole, self.whole_mlp[0].weight)
        with bfloat16_inside(x.device, self.bfloat16):
            return self._answer(x, time, words, whole).to(torch.float32).contiguous()

    def _answer(self, x, time, words, whole):
        tokens = F.pixel_unshuffle(x, self.patch)  # [B, channels patch^2, h, w]
        h, w = tokens.shape[2:]
        x = self.embed(tokens.flatten(2).transpose(1, 2))
        x, words = x + self.positions.to(x.dtype), self.words(words)
        condition = self.time_mlp(sinusoidal(time, 256, sin_first=False, last_frequency=False))
        if self.whole_mlp:
            condition = condition + self.whole_mlp(whole)
        for block in self.blocks:
            x, words = block(x, words, condition)
        x = self.head(x, condition)
        return F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (h, w)), self.patch)


def mmdit(depth, qk_norm=False):
    """The paper's network of `depth` blocks (15 to 38; Stable Diffusion 3 medium: 24), 64 depth wide, with heads of 64:
    16-channel latents, text tokens of 4,096 and a vector of 2,048 (SD3, sec. 4)."""
    checks.whole(depth=depth)
    return MMDiT(16, 128, 2, 64 * depth, depth, depth, 4096, 2048, qk_norm, open_gates=False, bfloat16=False)


class JointBlock(nn.Module):
    """Patches x [B, N, width] and words [B, L, width] -> the same; all look at all in one softmax. In the last block
    the words are only looked at, and answered as they came."""

    def __init__(self, width, heads, qk_norm, last):
        super().__init__()
        self.image, self.text = Stream(width, heads, qk_norm), Stream(width, heads, qk_norm, silent=last)

    def start(self, open_gates):
        """Initialise: no modulation, and gates of 0 or 1."""
        for stream in (self.image, self.text):
            zeroed(stream.modulation)
            if open_gates and not stream.silent:
                with torch.no_grad():
                    stream.modulation.bias.unflatten(0, (6, -1))[[2, 5]] = 1.0

    def forward(self, x, words, condition):
        (*of_image, gates), (*of_text, text_gates) = self.image.ask(x, condition), self.text.ask(words, condition)
        h = attend(*(torch.cat(pair, dim=2) for pair in zip(of_text, of_image, strict=True)))
        h = h.transpose(1, 2).flatten(2)
        split = words.shape[1]
        return self.image.take(x, h[:, split:], gates), self.text.take(words, h[:, :split], text_gates)


class Stream(nn.Module):
    """One stream's weights in a block: adaLN, q, k and v, the way out of attention, and the MLP. A `silent` one has
    only what it takes to be looked at."""

    def __init__(self, width, heads, qk_norm, silent=False):
        super().__init__()
        self.heads, self.silent = heads, silent
        self.norm1 = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, (2 if silent else 6) * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q, self.norm_k = (HeadNorm(width // heads) if qk_norm else nn.Identity() for _ in range(2))
        if not silent:
            self.out, self.mlp = nn.Linear(width, width), mlp(width)
            self.norm2 = nn.LayerNorm(width, 1e-6, elementwise_affine=False)

    def ask(self, x, condition):
        """q, k, v [B, heads, N, d] of the tokens, and what `take` needs of the condition."""
        shift, scale, *rest = self.modulation(F.silu(condition))[:, None].chunk(2 if self.silent else 6, dim=-1)
        q, k, v = split_heads(self.qkv(modulate(self.norm1(x), shift, scale)), 3, self.heads)
        return self.norm_q(q), self.norm_k(k), v, rest

    def take(self, x, h, rest):
        """The tokens with what attention found, h [B, N, width], and the MLP's answer added."""
        if self.silent:
            return x
        gate, shift, scale, gate_mlp = rest
        x = add(x, self.out(h), gate)
        return add(x, self.mlp(modulate(self.norm2(x), shift, scale)), gate_mlp)


class HeadNorm(nn.Module):
    """x / sqrt(mean x^2) times a learned scale, over a head's channels [..., d]: it keeps attention's logits bounded
    (SD3, sec. 5.3.2)."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * self.weight.to(x.dtype)


class CaptionMMDiT(nn.Module):
    """x [B, 3, 32, 32], time [B] (0..999), text [B, 20], ids of captions -> [B, 3, 32, 32]: an `MMDiT` that learns a
    vector for each word and for each of the first `length` places, and has no vector of the whole.

    14 ids hold every caption of two digits. A vector of the whole, such as a bag of words, would say which colours
    there are, and spare the network to learn which digit has which.
    """

    def __init__(self, length=14, width=96, depth=4, heads=4):
        super().__init__()
        checks.whole(length=length, width=width)
        self.token = nn.Embedding(len(VOCABULARY), width)
        self.place = nn.Parameter(0.5 * torch.randn(length, width))
        nn.init.normal_(self.token.weight, std=0.2)
        self.net = MMDiT(width=width, depth=depth, heads=heads, words_width=width)

    def forward(self, x, time, text):
        checks.network_input(x, time, 3, self.net.patch, self.place)
        checks.require_indices("Text", text, (len(x), LENGTH), self.token.num_embeddings)
        return self.net(x, time, self.token(text[:, : len(self.place)]) + self.place)

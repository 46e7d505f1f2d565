"""A text encoder, CLIP's text transformer at any size: the ids of a caption become a vector for each word and one for
the whole."""

import torch
from torch import nn

from litrev import checks
from litrev.checks import require_indices
from litrev.data.captions import LENGTH, PAD
from litrev.nets.blocks import split_heads


class TextEncoder(nn.Module):
    """ids [B, length] as `captions.tokenize` gives them -> vectors of the tokens [B, length, width], and the one at
    <eot> [B, width], which stands for the whole text.

    h = token + position; in each block h <- h + attention(LN(h)), h <- h + MLP(LN(h)); LN at the end. Attention is
    causal, a token sees itself and what precedes it, so that only <eot> has seen the whole text, and <pad>, which comes
    after it, changes nothing. <eot> is where the id is highest; of a text that is all <pad>, the first position stands
    for the whole. `ids != PAD` says which tokens count. Raises ValueError for ids of another shape, type or range.
    Source: CLIP (Radford et al. 2021, sec. 2.4), GPT-2's transformer.
    """

    def __init__(self, vocabulary=38, width=64, depth=2, heads=4, length=LENGTH):
        super().__init__()
        checks.whole(vocabulary=vocabulary, width=width, heads=heads, length=length)
        checks.whole(0, depth=depth)
        self.width, self.length = width, length
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.01 * torch.randn(length, width))
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, ids):
        n = len(ids) if isinstance(ids, torch.Tensor) and ids.ndim else 1
        require_indices("Text", ids, (n, self.length), self.token.num_embeddings)
        h = self.token(ids) + self.position
        place = torch.arange(self.length, device=ids.device)
        for block in self.blocks:
            h = block(h, seen=place <= place[:, None])
        h = self.norm(h)
        last = torch.where((ids != PAD).any(1), ids.argmax(1), 0)
        return h, h[torch.arange(len(ids), device=ids.device), last]


class BagTextEncoder(TextEncoder):
    """A `TextEncoder` whose vector of the whole is that at <eot> plus the sum of the words' own vectors.

    The sum is a bag of words: it says at once which words are there, though not in which order, and a network for
    captions of one thing learns the rare word in it sooner. The words' vectors start ten times as large.
    """

    def __init__(self, vocabulary=38, width=64, depth=2, heads=4, length=LENGTH):
        super().__init__(vocabulary, width, depth, heads, length)
        nn.init.normal_(self.token.weight, std=0.2)

    def forward(self, ids):
        h, whole = super().forward(ids)
        words = self.token(ids) * (ids != PAD)[..., None]
        return h, whole + words.sum(1)


class TextBlock(nn.Module):
    """A pre-norm transformer block on tokens x [B, L, width], each of which sees where `seen` [L, L] is True."""

    def __init__(self, width, heads):
        super().__init__()
        checks.divisible(heads=heads, width=width)
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width))

    def forward(self, x, seen):
        q, k, v = split_heads(self.qkv(self.norm1(x)), 3, self.heads)
        x = x + self.out(attend_where(q, k, v, seen).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the GELU of CLIP's code."""

    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def attend_where(q, k, v, seen):
    """softmax(q k^T / sqrt(d)) v over the keys where `seen` (bool, expands to [B, heads, M, N]) is True; q [B, heads,
    M, d], k and v [B, heads, N, d]. Every query must see a key."""
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    return torch.softmax(logits.masked_fill(~seen, -torch.inf), dim=-1) @ v

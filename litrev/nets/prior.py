"""unCLIP's diffusion prior: a causal transformer that reads a caption and a noised image embedding, and answers the
clean one."""

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks
from litrev.nets.blocks import sinusoidal
from litrev.nets.text import TextBlock


class DiffusionPrior(nn.Module):
    """x [B, e], a noised image embedding, time [B] (0..999), words [B, length, e], text [B, e] and mask [B, length]
    (bool: which words are no padding) -> [B, e], the prediction of x_0.

    Its tokens are [words, text, time, x, query], all with learned places; each sees itself and what precedes it, but no
    padding. The answer is read off the query, which is last and has seen all. Raises ValueError for other shapes and
    types. Source: unCLIP (Ramesh et al. 2022, sec. 2.2); a released one is `karlo()`.
    """

    def __init__(self, embedding=64, length=20, width=64, depth=2, heads=4):
        super().__init__()
        checks.whole(embedding=embedding, length=length, depth=depth)
        checks.divisible(heads=heads, width=width)
        checks.divisible(**{"2 (for the time)": 2, "width": width})
        self.word, self.text, self.noised = (nn.Linear(embedding, width) for _ in range(3))
        self.time_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.query = nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(0.01 * torch.randn(length + 4, width))
        self.blocks = nn.ModuleList(PriorBlock(width, heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, embedding)

    def forward(self, x, time, words, text, mask):
        e, length = self.out.out_features, len(self.place) - 4
        checks.floats(f"B {e}", x=x)
        B = len(x)
        checks.network_input(x[:, :, None, None], time, e, 1, self.place)  # as an image of one pixel
        checks.floats(f"{B} {length} {e}", words=words)
        checks.floats(f"{B} {e}", text=text)
        checks.same_type(words, self.place)
        checks.same_type(text, self.place)
        if not torch.is_tensor(mask) or mask.dtype != torch.bool or mask.shape != (B, length):
            raise ValueError(f"mask must be a bool tensor [{B}, {length}], False at padding, not {checks.shown(mask)}.")
        time = self.time_mlp(sinusoidal(time, len(self.query), sin_first=False, last_frequency=False))
        one = torch.stack([self.text(text), time, self.noised(x), self.query.expand(B, -1)], 1)
        h = torch.cat([self.word(words), one], 1) + self.place
        order = torch.arange(len(self.place), device=x.device)
        # Padding sees itself, which nothing else does: a softmax over no token would be NaN.
        seen = F.pad(mask, (0, 4), value=True)[:, None, None] | (order == order[:, None])
        for block in self.blocks:
            h = block(h, seen & (order <= order[:, None]))
        return self.out(self.norm(h[:, -1]))


class PriorBlock(TextBlock):
    """CLIP's text block with the exact GELU instead of the quick one."""

    def __init__(self, width, heads):
        super().__init__(width, heads)
        self.mlp[1] = nn.GELU()


def karlo():
    """Karlo's prior (Lee et al. 2022), a released unCLIP: vectors of 768, 77 words, 20 blocks 2,048 wide."""
    return DiffusionPrior(768, 77, 2048, 20, 32)

"""Attention with a caption's words as further keys and values, against diffusers: GLIDE's conditioning (sec. 4.1)."""

import torch
from diffusers.models.attention_processor import Attention as TheirAttention
from diffusers.models.attention_processor import AttnAddedKVProcessor
from torch import nn

from litrev.nets.laptop_unet import Attention, channel_norm

CHANNELS, HEADS, WORDS = 16, 4, 8


class ChannelNorm(nn.Module):
    """Ours, in the place of theirs: h [B, C, N]."""

    def forward(self, h):
        return channel_norm(h[..., None])[..., 0]


def pair():
    """Our attention and theirs, with the same weights."""
    torch.manual_seed(0)
    ours = Attention(CHANNELS, HEADS, WORDS)
    nn.init.normal_(ours.out.weight, std=0.3)
    theirs = TheirAttention(
        CHANNELS,
        heads=HEADS,
        dim_head=CHANNELS // HEADS,
        added_kv_proj_dim=WORDS,
        norm_num_groups=1,
        residual_connection=True,
        processor=AttnAddedKVProcessor(),
    )
    theirs.group_norm = ChannelNorm()
    for layer in (theirs.to_q, theirs.to_k, theirs.to_v, theirs.add_k_proj, theirs.add_v_proj, theirs.to_out[0]):
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer, weight in zip((theirs.to_q, theirs.to_k, theirs.to_v), ours.qkv.weight.chunk(3), strict=True):
            layer.weight.copy_(weight)
        for layer, weight in zip((theirs.add_k_proj, theirs.add_v_proj), ours.text_kv.weight.chunk(2), strict=True):
            layer.weight.copy_(weight)
        theirs.to_out[0].weight.copy_(ours.out.weight)
    return ours, theirs


@torch.no_grad()
def test_attention_with_words_is_diffusers_added_keys_and_values():
    ours, theirs = pair()
    x, words = torch.randn(2, CHANNELS, 4, 4), torch.randn(2, 5, WORDS)
    found = ours(x, words, torch.ones(2, 5, dtype=torch.bool))
    expected = theirs(x, encoder_hidden_states=words)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - ours(x, words.flip(0), torch.ones(2, 5, dtype=torch.bool))).abs().max() > 1e-2

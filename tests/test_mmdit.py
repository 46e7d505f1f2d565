"""MM-DiT against the paper's parameter counts, diffusers' class weight by weight, and its start."""

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from litrev.data import captions
from litrev.nets.mmdit import CaptionMMDiT, MMDiT, mmdit

COUNTS = {  # without and with the norm of q and k
    15: (496_066_624, 496_070_464),
    18: (856_159_552, 856_164_160),
    24: (2_028_328_000, 2_028_334_144),
    30: (3_962_392_384, 3_962_400_064),
    38: (8_056_617_792, 8_056_627_520),
}


@pytest.mark.parametrize("depth", COUNTS)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_official_parameter_counts(depth, qk_norm):
    with torch.device("meta"):
        net = mmdit(depth, qk_norm)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[depth][qk_norm]


def copy(ours: MMDiT, theirs: SD3Transformer2DModel) -> None:
    """Give our weights to diffusers' network; where it wants (scale, shift), our (shift, scale) are exchanged."""

    def give(module, layer, swap=False):
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if swap:
            weight, bias = (torch.cat(t.chunk(2)[::-1]) for t in (weight, bias))
        module.weight.data.copy_(weight.reshape(module.weight.shape))
        module.bias.data.copy_(bias)

    times = theirs.time_text_embed
    pairs = [
        (theirs.pos_embed.proj, ours.embed),
        (theirs.context_embedder, ours.words),
        (times.timestep_embedder.linear_1, ours.time_mlp[0]),
        (times.timestep_embedder.linear_2, ours.time_mlp[2]),
        (times.text_embedder.linear_1, ours.whole_mlp[0]),
        (times.text_embedder.linear_2, ours.whole_mlp[2]),
    ]
    for block, mine in zip(theirs.transformer_blocks, ours.blocks, strict=True):
        attention, image, text = block.attn, mine.image, mine.text
        qkv = [nn.Linear(1, 1) for _ in range(6)]
        for stream, parts in ((image, qkv[:3]), (text, qkv[3:])):
            for part, weight, bias in zip(parts, stream.qkv.weight.chunk(3), stream.qkv.bias.chunk(3), strict=True):
                part.weight, part.bias = nn.Parameter(weight), nn.Parameter(bias)
        pairs += [(block.norm1.linear, image.modulation), (attention.to_out[0], image.out)]
        pairs += [(block.ff.net[0].proj, image.mlp[0]), (block.ff.net[2], image.mlp[2])]
        pairs += zip((attention.to_q, attention.to_k, attention.to_v), qkv[:3], strict=True)
        pairs += zip((attention.add_q_proj, attention.add_k_proj, attention.add_v_proj), qkv[3:], strict=True)
        if not text.silent:
            pairs += [(block.norm1_context.linear, text.modulation), (attention.to_add_out, text.out)]
            pairs += [(block.ff_context.net[0].proj, text.mlp[0]), (block.ff_context.net[2], text.mlp[2])]
        for norm, own in (("norm_q", image.norm_q), ("norm_k", image.norm_k)):
            getattr(attention, norm).weight.data.copy_(own.weight)
        for norm, own in (("norm_added_q", text.norm_q), ("norm_added_k", text.norm_k)):
            getattr(attention, norm).weight.data.copy_(own.weight)
    for pair in pairs:
        give(*pair)
    give(theirs.transformer_blocks[-1].norm1_context.linear, ours.blocks[-1].text.modulation, swap=True)
    give(theirs.norm_out.linear, ours.head.modulation, swap=True)
    # Their last linear map has a patch's pixels before its channels.
    p, c = ours.patch, theirs.config.out_channels
    for ours_part, part in ((ours.head.out.weight, "weight"), (ours.head.out.bias, "bias")):
        moved = ours_part.detach().unflatten(0, (c, p, p)).movedim(0, 2).flatten(0, 2)
        getattr(theirs.proj_out, part).data.copy_(moved)
    theirs.pos_embed.pos_embed.zero_()
    ours.positions.zero_()


def test_parity_with_diffusers():
    torch.manual_seed(0)
    ours = MMDiT(4, 8, 2, 32, 2, 4, words_width=12, whole_width=10, bfloat16=False)
    theirs = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=12,
        caption_projection_dim=32,
        pooled_projection_dim=10,
        pos_embed_max_size=4,
        qk_norm="rms_norm",
    ).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    copy(ours, theirs)
    x, words, whole = torch.randn(3, 4, 8, 8), torch.randn(3, 5, 12), torch.randn(3, 10)
    time = torch.tensor([3.0, 500.0, 999.0])
    with torch.no_grad():
        theirs_answer = theirs(x, encoder_hidden_states=words, pooled_projections=whole, timestep=time).sample
        assert theirs_answer.std() > 0.1
        torch.testing.assert_close(ours(x, time, words, whole), theirs_answer, rtol=1e-5, atol=1e-5)


def test_it_starts_as_zero_and_with_closed_gates_as_the_identity():
    torch.manual_seed(0)
    x, words, condition = torch.randn(2, 4, 16), torch.randn(2, 3, 16), torch.randn(2, 16)
    for open_gates in (False, True):
        net = MMDiT(1, 4, 2, 16, 2, 2, words_width=8, open_gates=open_gates, bfloat16=False)
        assert not net(torch.randn(2, 1, 4, 4), torch.zeros(2), torch.randn(2, 3, 8)).any()
        same = [torch.equal(a, b) for a, b in zip(net.blocks[0](x, words, condition), (x, words), strict=True)]
        assert same == [not open_gates] * 2


def test_words_have_places():
    """Without a bag of words, the order of a caption's words is all that says which digit is red."""
    torch.manual_seed(0)
    net = CaptionMMDiT(width=16, depth=1, heads=2)
    nn.init.normal_(net.net.head.out.weight)
    texts = ["a red three left of a blue seven", "a blue three left of a red seven"]
    x, ids = torch.randn(1, 3, 32, 32).expand(2, -1, -1, -1).contiguous(), captions.tokenize(texts)
    one, other = net(x, torch.full((2,), 500.0), ids)
    assert not torch.allclose(one, other, atol=1e-3)
    longest = "a purple three right of a yellow seven on a maroon background"
    assert len(longest.split()) + 2 == len(net.place)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda net: net(torch.zeros(1, 3, 28, 28), torch.zeros(1), torch.zeros(1, 2, 96)), "32 x 32 pixels"),
        (lambda net: net(torch.zeros(1, 3, 32, 32), torch.zeros(1), torch.zeros(1, 2, 95)), "words must be"),
        (lambda net: net(torch.zeros(1, 3, 32, 32), torch.zeros(1), torch.zeros(1, 2, 96), torch.zeros(1)), "without"),
    ],
)
def test_wrong_input_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call(MMDiT())

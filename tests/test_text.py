"""The text encoder against transformers' CLIP weight by weight, and what its order, its mask and its pooling mean."""

import pytest
import torch
import torch.nn.functional as F
from mps_rehearsal import MpsRehearsal
from transformers import CLIPTextConfig, CLIPTextModel

from litrev import device
from litrev.data import captions
from litrev.data.captions import EOT, PAD, VOCABULARY, null_tokens, tokenize
from litrev.nets.laptop_unet import Attention, channel_norm
from litrev.nets.text import TextEncoder, attend_where, require_indices

CAPTIONS = [
    "a large red seven at the top left on a navy background",
    "a red two left of a blue six",
    "a blue two left of a red six",
    "a one",
    "",
]


def random_encoder(**options):
    torch.manual_seed(0)
    encoder = TextEncoder(**options).eval()
    for parameter in encoder.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape))
    return encoder


def test_the_defaults_fit_the_captions():
    ids = tokenize(CAPTIONS)
    tokens, pooled = TextEncoder()(ids)
    assert TextEncoder().token.num_embeddings == len(VOCABULARY)
    assert tokens.shape == (5, captions.LENGTH, 64) and pooled.shape == (5, 64)
    assert tokens.dtype == pooled.dtype == torch.float32


def load(module, **values):
    module.load_state_dict(values)


def copy_clip(ours, theirs):
    """Their q, k and v are three layers, and the last norm is the model's own."""
    load(theirs.embeddings.token_embedding, weight=ours.token.weight)
    load(theirs.embeddings.position_embedding, weight=ours.position)
    load(theirs.final_layer_norm, **ours.norm.state_dict())
    for block, layer in zip(ours.blocks, theirs.encoder.layers, strict=True):
        attention = layer.self_attn
        weights, biases = block.qkv.weight.chunk(3), block.qkv.bias.chunk(3)
        for linear, weight, bias in zip(
            (attention.q_proj, attention.k_proj, attention.v_proj), weights, biases, strict=True
        ):
            load(linear, weight=weight, bias=bias)
        pairs = [(attention.out_proj, block.out), (layer.layer_norm1, block.norm1), (layer.layer_norm2, block.norm2)]
        for peer, own in [*pairs, (layer.mlp.fc1, block.mlp[0]), (layer.mlp.fc2, block.mlp[2])]:
            load(peer, **own.state_dict())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_same_output_as_clip_with_the_same_weights(implementation):
    ours = random_encoder(width=32, depth=3, heads=4)
    config = CLIPTextConfig(
        vocab_size=38,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=20,
        pad_token_id=PAD,
        eos_token_id=EOT,
        attn_implementation=implementation,
    )
    theirs = CLIPTextModel(config).eval()
    copy_clip(ours, theirs)
    ids = tokenize(CAPTIONS)
    with torch.no_grad():
        (tokens, pooled), answer = ours(ids), theirs(input_ids=ids)
        masked = theirs(input_ids=ids, attention_mask=(ids != PAD).long())
    assert tokens.std() > 0.1
    torch.testing.assert_close(tokens, answer.last_hidden_state, rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, answer.pooler_output, rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, masked.pooler_output, rtol=0, atol=1e-5)  # a mask for <pad> adds nothing


def test_the_blocks_of_clip_vit_b_32_have_the_official_number_of_parameters():
    with torch.device("meta"):
        blocks = TextEncoder(49_408, 512, 12, 8, 77).blocks
    assert sum(p.numel() for p in blocks.parameters()) == 37_828_608


def test_what_comes_later_changes_nothing_before_it_and_padding_changes_nothing():
    encoder, ids = random_encoder(), tokenize(CAPTIONS)
    tokens, pooled = encoder(ids)
    garbage = torch.where(ids == PAD, torch.randint(2, EOT, ids.shape), ids)
    other, other_pooled = encoder(garbage)
    kept = ids != PAD
    torch.testing.assert_close(other[kept], tokens[kept], rtol=0, atol=1e-5)
    torch.testing.assert_close(other_pooled, pooled, rtol=0, atol=1e-5)
    assert (other[~kept] - tokens[~kept]).abs().max() > 0.1
    changed = (encoder(tokenize(["a large blue" + CAPTIONS[0][11:]]))[0] - tokens[:1])[0].abs().amax(1) > 1e-4
    assert changed.tolist() == [place >= 3 for place in range(20)]


def test_the_pooled_vector_is_that_of_eot_and_knows_the_order_of_the_words():
    encoder, ids = random_encoder(), tokenize(CAPTIONS)
    tokens, pooled = encoder(ids)
    for row, words, vector in zip(tokens, CAPTIONS, pooled, strict=True):
        assert torch.equal(row[len(words.split()) + 1], vector)
    assert ids[1].sort().values.equal(ids[2].sort().values) and (pooled[1] - pooled[2]).abs().max() > 0.1


def test_no_caption_is_the_first_position_and_finite():
    encoder = random_encoder()
    tokens, pooled = encoder(null_tokens().expand(3, -1))
    assert torch.equal(pooled, tokens[:, 0]) and tokens.isfinite().all()
    assert not torch.allclose(pooled[0], encoder(null_tokens("empty")[None])[1][0])


def test_masked_attention_is_the_textbook_formula():
    torch.manual_seed(0)
    q, k, v, seen = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8), torch.rand(2, 1, 5, 7)
    seen = (seen < 0.5) | (torch.arange(7) == 0)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    torch.testing.assert_close(attend_where(q, k, v, seen), expected, rtol=0, atol=1e-5)


def test_padding_is_not_looked_at():
    torch.manual_seed(0)
    attention, x, tokens = Attention(16, 2, text_width=8), torch.randn(1, 16, 3, 3), torch.randn(1, 5, 8)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    mask = torch.tensor([[True, True, False, True, False]])
    answer = attention(x, tokens, mask)
    torch.testing.assert_close(attention(x, tokens[mask][None], torch.ones(1, 3, dtype=torch.bool)), answer)
    torch.testing.assert_close(attention(x, tokens, mask & False), attention(x))
    assert (answer - attention(x)).abs().max() > 0.1


def test_attention_to_text_is_the_textbook_formula():
    torch.manual_seed(0)
    attention, x, tokens = Attention(16, 2, text_width=8), torch.randn(2, 16, 3, 3), torch.randn(2, 5, 8)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    q, k, v = attention.qkv(channel_norm(x).flatten(2).transpose(1, 2)).chunk(3, dim=-1)
    more_k, more_v = attention.text_kv(tokens).chunk(2, dim=-1)
    k, v = torch.cat([k, more_k], 1), torch.cat([v, more_v], 1)
    heads = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q, k, v))
    mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    expected = x + attention.out(mixed).transpose(1, 2).unflatten(-1, (3, 3))
    torch.testing.assert_close(attention(x, tokens, torch.ones(2, 5, dtype=torch.bool)), expected, rtol=0, atol=1e-5)


def test_gradient_reaches_every_parameter():
    encoder = TextEncoder(width=16)
    tokens, pooled = encoder(tokenize(CAPTIONS))
    (tokens.square() * torch.randn(16)).sum().add((pooled * torch.randn(16)).sum()).backward()
    assert not [name for name, p in encoder.named_parameters() if not p.grad.any()]


def test_a_learned_text_stands_where_it_was_put():
    """A linear map of the pooled vector learns which of two digits comes first: word order, not just words."""
    torch.manual_seed(0)
    pairs = [(a, b) for a in captions.DIGITS[:5] for b in captions.DIGITS[:5] if a != b]
    ids = tokenize([f"a {a} left of a {b}" for a, b in pairs])
    first = torch.tensor([captions.DIGITS.index(a) for a, _ in pairs])
    encoder, head = TextEncoder(width=32, depth=2), torch.nn.Linear(32, 5)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 3e-3)
    for _ in range(60):
        loss = F.cross_entropy(head(encoder(ids)[1]), first)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_it_computes_on_an_apple_gpu():
    with MpsRehearsal():
        encoder = TextEncoder(width=16).to(device.device())
        tokens, pooled = encoder(tokenize(CAPTIONS).to(device.device()))
        (tokens.sum() + pooled.square().sum()).backward()
        assert encoder.token.weight.grad.device.type == "mps"


@pytest.mark.parametrize(
    "ids",
    [
        tokenize(CAPTIONS)[:, :19],
        tokenize(CAPTIONS)[0],
        tokenize(CAPTIONS).float(),
        tokenize(CAPTIONS) + 1,
        tokenize(CAPTIONS) - 1,
    ],
    ids=["too short", "one caption", "float", "too high", "negative"],
)
def test_bad_ids_get_one_clear_sentence(ids):
    with pytest.raises(ValueError, match=r"Text must be whole numbers 0..37 \(int64\) of shape \[\d+, 20\]; this is"):
        TextEncoder()(ids)


def test_nothing_is_wrong_with_an_empty_batch_of_indices():
    require_indices("Label", torch.zeros(0, dtype=torch.long), (0,), 10)

"""DiT against the paper's parameter counts, diffusers' class weight by weight, and its identity at the start."""

import pytest
import torch
from diffusers import DiTTransformer2DModel

from litrev.diffusion.schedules import LinearChain
from litrev.nets.dit import AdaptiveBlock, DiT, dit, positions

COUNTS = {  # total with the fixed positions, trainable
    ("S", 8): (33_148_160, 33_142_016),
    ("S", 4): (32_945_024, 32_920_448),
    ("S", 2): (32_963_360, 32_865_056),
    ("B", 8): (130_881_536, 130_869_248),
    ("B", 4): (130_475_648, 130_426_496),
    ("B", 2): (130_512_416, 130_315_808),
    ("L", 8): (458_594_816, 458_578_432),
    ("L", 4): (458_053_760, 457_988_224),
    ("L", 2): (458_102_816, 457_840_672),
    ("XL", 8): (675_683_072, 675_664_640),
    ("XL", 4): (675_074_432, 675_000_704),
    ("XL", 2): (675_129_632, 674_834_720),
}


def counts(*arguments, **options):
    with torch.device("meta"):
        net = dit(*arguments, **options)
    trainable = sum(p.numel() for p in net.parameters())
    return trainable + net.positions.numel(), trainable


@pytest.mark.parametrize("size, patch", COUNTS)
def test_official_parameter_counts(size, patch):
    assert counts(size, patch) == COUNTS[size, patch]


def test_parameter_counts_of_the_ablation_and_of_512_pixels():
    assert counts("XL", 2, pixels=64) == (676_014_368, 674_834_720)
    found = [counts("XL", 2, conditioning=c)[0] for c in ("adaln", "in_context", "cross")]
    assert found == [600_747_296, 449_457_440, 598_286_624]


def copy_dit(ours, theirs):
    """Their blocks each hold a copy of the time and label embeddings, and their patches are unfolded channel last."""
    state = ours.state_dict()
    p, c = ours.patch, theirs.config.out_channels
    for i, block in enumerate(theirs.transformer_blocks):
        norm, attention = block.norm1, block.attn1
        norm.emb.time_proj.downscale_freq_shift = 0  # the official frequencies; diffusers' default stretches them
        mapped = {
            norm.emb.timestep_embedder.linear_1: "time_mlp.0",
            norm.emb.timestep_embedder.linear_2: "time_mlp.2",
            norm.emb.class_embedder.embedding_table: "label",
            norm.linear: f"blocks.{i}.modulation",
            attention.to_out[0]: f"blocks.{i}.attention.out",
            block.ff.net[0].proj: f"blocks.{i}.mlp.0",
            block.ff.net[2]: f"blocks.{i}.mlp.2",
        }
        load(mapped, state)
        for k, linear in enumerate([attention.to_q, attention.to_k, attention.to_v]):
            linear.weight.data = state[f"blocks.{i}.attention.qkv.weight"].chunk(3)[k]
            linear.bias.data = state[f"blocks.{i}.attention.qkv.bias"].chunk(3)[k]
    load({theirs.proj_out_1: "head.modulation"}, state)
    theirs.pos_embed.proj.weight.data = state["embed.weight"].reshape(theirs.pos_embed.proj.weight.shape)
    theirs.pos_embed.proj.bias.data = state["embed.bias"]
    order = torch.arange(c * p * p).reshape(c, p, p).permute(1, 2, 0).flatten()
    theirs.proj_out_2.weight.data, theirs.proj_out_2.bias.data = (
        state["head.out.weight"][order],
        state["head.out.bias"][order],
    )


def load(mapped, state):
    for module, name in mapped.items():
        module.load_state_dict({key: state[f"{name}.{key}"] for key in module.state_dict()})


@pytest.mark.parametrize("channels, patch, size", [(4, 2, 16), (1, 4, 28)])
def test_same_output_as_diffusers_with_the_same_weights(channels, patch, size):
    torch.manual_seed(0)
    ours = DiT(channels, 2 * channels, size, patch, width=64, depth=3, heads=4, classes=10, bfloat16=False).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    theirs = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=2 * channels,
        num_layers=3,
        sample_size=size,
        patch_size=patch,
        num_embeds_ada_norm=10,
    ).eval()
    copy_dit(ours, theirs)
    x, time, label = torch.randn(3, channels, size, size), torch.tensor([0.0, 400.0, 999.0]), torch.tensor([0, 9, 10])
    with torch.no_grad():
        a, b = ours(x, time, label), theirs(x, time, class_labels=label).sample
    assert b.abs().max() > 0.1
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.positions, theirs.pos_embed.pos_embed[0], rtol=0, atol=1e-6)


def test_bfloat16_inside_changes_little_and_the_papers_network_has_none(monkeypatch):
    torch.manual_seed(0)
    net = DiT(width=32, depth=2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, time, label = torch.randn(3, 1, 28, 28), torch.tensor([0.0, 400.0, 999.0]), torch.tensor([0, 9, 10])
    answers = []
    for used in (False, True):
        monkeypatch.setattr("litrev.nets.blocks.bfloat16_pays", lambda device, used=used: used)
        with torch.no_grad():
            answers.append(net(x, time, label))
    assert answers[1].dtype == torch.float32 and not torch.equal(*answers)
    assert (answers[0] - answers[1]).abs().max() < 0.05 * answers[0].abs().max()
    with torch.device("meta"):
        assert not dit("S", 8).bfloat16


def test_a_new_network_answers_zero_and_its_blocks_are_the_identity():
    x, time, label = torch.randn(2, 1, 28, 28), torch.tensor([3.0, 900.0]), torch.tensor([1, 10])
    for conditioning in ("adaln_zero", "adaln", "cross", "in_context"):
        assert (DiT(conditioning=conditioning)(x, time, label) == 0).all()
    block, tokens, condition = DiT().blocks[0], torch.randn(2, 5, 96), torch.randn(2, 96)
    assert torch.equal(block(tokens, condition), tokens)
    assert not torch.equal(AdaptiveBlock(96, 4, False)(tokens, condition), tokens)


def test_the_gradient_enters_from_the_head_backward_by_backward():
    """First only the last linear map learns; then the patches and the modulations; then everything (sheet's wave)."""
    torch.manual_seed(0)
    net = DiT(width=32, depth=2)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    x, eps = torch.randn(8, 1, 28, 28), torch.randn(8, 1, 28, 28)
    reached = []
    for _ in range(3):
        optimiser.zero_grad()
        (net(x, torch.arange(8.0) * 100, torch.arange(8)) - eps).square().mean().backward()
        reached.append({name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0})
        optimiser.step()
    everything = {name for name, _ in net.named_parameters()}
    second = {n for n in everything if n.startswith(("head", "embed")) or "modulation" in n}
    assert reached == [{"head.out.weight", "head.out.bias"}, second, everything]


@pytest.mark.parametrize("conditioning", ["adaln_zero", "adaln", "cross", "in_context"])
def test_every_variant_sees_pixels_places_time_and_label(conditioning):
    torch.manual_seed(0)
    net = DiT(width=32, depth=2, conditioning=conditioning)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, time, label = torch.randn(2, 1, 28, 28), torch.tensor([100.0, 100.0]), torch.tensor([1, 1])
    answer = net(x, time, label)
    for other in [(x, time + 50, label), (x, time, label + 1), (x + torch.eye(28), time, label)]:
        assert (net(*other) - answer).abs().max() > 1e-3
    moved = net(x.roll(4, dims=3), time, label).roll(-4, dims=3)
    assert (moved - answer).abs().max() > 1e-3  # it knows where patches are


def test_positions_encode_the_column_first():
    table = positions(3, 8)
    assert table.shape == (9, 8)
    torch.testing.assert_close(table[1, :4], _features(1.0))
    torch.testing.assert_close(table[1, 4:], _features(0.0))
    torch.testing.assert_close(table[3, :4], _features(0.0))
    torch.testing.assert_close(table[3, 4:], _features(1.0))


def _features(place):
    angles = place * torch.tensor([1.0, 0.01])
    return torch.cat([angles.sin(), angles.cos()])


def test_a_dit_learns_the_optimal_denoiser_of_a_gaussian():
    """For N(0, s^2) data the least loss at t is alpha^2 s^2 / (alpha^2 s^2 + sigma^2)."""
    torch.manual_seed(0)
    net, chain, s2, t = DiT(size=8, patch=4, width=64, depth=1, classes=1), LinearChain(), 0.25, 250
    optimiser, generator = torch.optim.Adam(net.parameters(), 3e-3), torch.Generator().manual_seed(0)
    alpha2, sigma2 = float(chain.alpha(t)) ** 2, float(chain.sigma(t)) ** 2
    label, losses = torch.zeros(128, dtype=torch.long), []
    for _ in range(150):
        x0, eps = (torch.randn(128, 1, 8, 8, generator=generator) for _ in range(2))
        loss = (net(chain.add_noise(s2**0.5 * x0, t, eps), torch.full((128,), t - 1.0), label) - eps).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    least = alpha2 * s2 / (alpha2 * s2 + sigma2)
    assert losses[0] == pytest.approx(1, abs=0.05) and sum(losses[-20:]) / 20 == pytest.approx(least, rel=0.08)


def test_bad_input_gets_one_clear_sentence():
    with pytest.raises(ValueError, match="no whole number of patches"):
        DiT(size=30)
    with pytest.raises(ValueError, match="adaln_zero, adaln, cross or in_context"):
        DiT(conditioning="film")

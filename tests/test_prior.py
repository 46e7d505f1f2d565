"""unCLIP's prior against the released parameter count, diffusers' class weight by weight, and one step of sampling."""

import pytest
import torch
from diffusers import DDPMScheduler, PriorTransformer, UnCLIPScheduler
from torch import nn

from litrev import device
from litrev.diffusion.denoiser import clip_x0, from_network, given
from litrev.diffusion.samplers import ancestral, final
from litrev.diffusion.schedules import CosineChain
from litrev.nets.prior import DiffusionPrior, PriorBlock, karlo


def test_released_parameter_count():
    with torch.device("meta"):
        ours, theirs = karlo(), PriorTransformer()
    count, stored = (sum(p.numel() for p in net.parameters()) for net in (ours, theirs))
    assert count == 1_022_028_544
    assert stored == 1_022_030_080 == count + theirs.clip_mean.numel() + theirs.clip_std.numel()


def copy(ours: DiffusionPrior, theirs: PriorTransformer) -> None:
    """Give our weights to diffusers' network."""
    times = theirs.time_embedding
    pairs = [
        (theirs.encoder_hidden_states_proj, ours.word),
        (theirs.embedding_proj, ours.text),
        (theirs.proj_in, ours.noised),
        (times.linear_1, ours.time_mlp[0]),
        (times.linear_2, ours.time_mlp[2]),
        (theirs.norm_out, ours.norm),
        (theirs.proj_to_clip_embeddings, ours.out),
    ]
    for block, mine in zip(theirs.transformer_blocks, ours.blocks, strict=True):
        attention = block.attn1
        pairs += [(block.norm1, mine.norm1), (block.norm3, mine.norm2), (attention.to_out[0], mine.out)]
        pairs += [(block.ff.net[0].proj, mine.mlp[0]), (block.ff.net[2], mine.mlp[2])]
        for name in ("weight", "bias"):
            parts = getattr(mine.qkv, name).data.chunk(3)
            for part, values in zip((attention.to_q, attention.to_k, attention.to_v), parts, strict=True):
                getattr(part, name).data.copy_(values)
    for module, layer in pairs:
        module.load_state_dict(layer.state_dict())
    theirs.positional_embedding.data.copy_(ours.place)
    theirs.prd_embedding.data.copy_(ours.query)


@pytest.fixture
def asked():
    """Our network, diffusers' with the same weights, and what both are asked."""
    torch.manual_seed(0)
    ours = DiffusionPrior(embedding=12, length=6, width=32, depth=2, heads=4)
    theirs = PriorTransformer(4, 8, num_layers=2, embedding_dim=12, num_embeddings=6).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    copy(ours, theirs)
    x, words, text = torch.randn(3, 12), torch.randn(3, 6, 12), torch.randn(3, 12)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    return ours, theirs, x, torch.tensor([3.0, 500.0, 999.0]), {"words": words, "text": text, "mask": mask}


@torch.no_grad()
def test_parity_with_diffusers(asked):
    ours, theirs, x, time, read = asked
    answer = theirs(x, time, read["text"], read["words"], read["mask"]).predicted_image_embedding
    unmasked = theirs(x, time, read["text"], read["words"], torch.ones(3, 6).bool()).predicted_image_embedding
    assert answer.std() > 0.1
    assert [(a - b).abs().max() > 0.01 for a, b in zip(answer, unmasked, strict=True)] == [False, True, True]
    assert (ours(x, time, **read) - answer).abs().max() < 1e-5


@torch.no_grad()
def test_padding_changes_nothing_and_each_word_that_is_read_does(asked):
    ours, _, x, time, read = asked
    answer, words, mask = ours(x, time, **read), read["words"], read["mask"]
    for place in range(6):
        changed = words.clone()
        changed[:, place] = 9.0
        same = [torch.equal(a, b) for a, b in zip(ours(x, time, **read | {"words": changed}), answer, strict=True)]
        assert same == (~mask[:, place]).tolist()
    assert ours(x, time, **read | {"mask": torch.zeros_like(mask)}).isfinite().all()


def test_a_token_sees_only_what_precedes_it():
    torch.manual_seed(0)
    net, seen = DiffusionPrior(embedding=12, length=6, width=32, depth=2, heads=4), []
    net.blocks[-1].register_forward_hook(lambda _, inputs, out: seen.append(out))
    read = {"words": torch.randn(1, 6, 12), "text": torch.randn(1, 12), "mask": torch.ones(1, 6).bool()}
    for x in (torch.zeros(1, 12), torch.ones(1, 12)):
        net(x, torch.zeros(1), **read)
    apart = (seen[0] - seen[1]).abs().amax((0, 2))
    assert (apart > 1e-3).tolist() == [False] * 8 + [True, True]  # x itself, and the query
    assert isinstance(net.blocks[0], PriorBlock)


STEPS = [(999, 958), (500, 458), (41, 0)]


@pytest.mark.parametrize("scheduler", [UnCLIPScheduler, DDPMScheduler])
@pytest.mark.parametrize("there, then", STEPS)
def test_a_step_of_sampling_is_theirs(asked, scheduler, there, then):
    """x_0 clipped to [-10, 10], and the smaller of DDPM's variances; diffusers count times from 0, we from 1."""
    ours, theirs, x, _, read = asked
    ours.out.weight.data *= 30  # beyond 10, so that the clipping acts
    copy(ours, theirs)
    if scheduler is UnCLIPScheduler:
        steps = UnCLIPScheduler(prediction_type="sample", clip_sample_range=10)
    else:
        options = {"clip_sample_range": 10, "variance_type": "fixed_small", "prediction_type": "sample"}
        steps = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", **options)
        steps.set_timesteps(timesteps=[there, then])
    with torch.no_grad():
        time = torch.full((3,), float(there))
        answer = theirs(x, time, read["text"], read["words"], read["mask"]).predicted_image_embedding
    assert answer.abs().max() > 10
    earlier = {"prev_timestep": then} if scheduler is UnCLIPScheduler else {}
    wanted = steps.step(answer, there, x, generator=device.generator(1), **earlier).prev_sample
    denoiser = given(clip_x0(from_network(ours, CosineChain(), "x0"), -10, 10), **read)
    found = final(ancestral(denoiser, x, [there + 1, then + 1], device.generator(1), "small"))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"mask": torch.ones(3, 6)}, "mask must be a bool tensor"),
        ({"mask": torch.ones(3, 5).bool()}, "mask must be a bool tensor"),
        ({"words": torch.zeros(3, 5, 12)}, "words must be"),
        ({"text": torch.zeros(12)}, "text must be"),
    ],
)
def test_wrong_input_is_said(asked, wrong, said):
    ours, _, x, time, read = asked
    with pytest.raises(ValueError, match=said):
        ours(x, time, **read | wrong)

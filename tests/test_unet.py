"""The U-Net is DDPM's: same parameter counts as the paper's networks, same outputs as diffusers' class with the same
weights."""

import pytest
import torch
from diffusers import UNet2DModel

from litrev.nn import ResBlock, sinusoidal
from litrev.unet import Downsample, Stage, UNet, Upsample


def count(**configuration):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(**configuration).parameters())


def test_official_parameter_counts():
    assert count() == 35_746_307  # CIFAR-10; "35.7M" in DDPM, app. B
    assert count(size=256, multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0) == 113_673_219  # 256 x 256; "114M"


def test_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="halved"):
        UNet(size=30)


def copy(ours, theirs):
    ours.load_state_dict(theirs.state_dict())


def copy_block(ours, theirs):
    for mine, peers in [
        ("norm1", "norm1"),
        ("conv1", "conv1"),
        ("time", "time_emb_proj"),
        ("norm2", "norm2"),
        ("conv2", "conv2"),
    ]:
        copy(getattr(ours, mine), getattr(theirs, peers))
    if theirs.conv_shortcut is not None:
        copy(ours.skip, theirs.conv_shortcut)


def copy_attention(ours, theirs):
    copy(ours.norm, theirs.group_norm)
    qkv = [theirs.to_q, theirs.to_k, theirs.to_v]
    ours.qkv.weight.data = torch.cat([m.weight for m in qkv])[..., None, None].detach().clone()
    ours.qkv.bias.data = torch.cat([m.bias for m in qkv]).detach().clone()
    ours.out.weight.data = theirs.to_out[0].weight[..., None, None].detach().clone()
    ours.out.bias.data = theirs.to_out[0].bias.detach().clone()


def copy_path(ours, their_blocks, sampler):
    """Walk our flat list of layers beside diffusers' nested one."""
    layers = iter(ours)
    for theirs in their_blocks:
        for j, resnet in enumerate(theirs.resnets):
            stage = next(layers)
            copy_block(stage.block, resnet)
            if getattr(theirs, "attentions", None):
                copy_attention(stage.attention, theirs.attentions[j])
        if getattr(theirs, sampler, None):
            copy(next(layers).conv, getattr(theirs, sampler)[0].conv)
    assert next(layers, None) is None


def copy_unet(ours, theirs):
    copy(ours.time_mlp[0], theirs.time_embedding.linear_1)
    copy(ours.time_mlp[2], theirs.time_embedding.linear_2)
    copy(ours.conv_in, theirs.conv_in)
    copy_path(ours.down, theirs.down_blocks, "downsamplers")
    copy_block(ours.middle[0].block, theirs.mid_block.resnets[0])
    copy_attention(ours.middle[0].attention, theirs.mid_block.attentions[0])
    copy_block(ours.middle[1].block, theirs.mid_block.resnets[1])
    copy_path(ours.up, theirs.up_blocks, "upsamplers")
    copy(ours.norm_out, theirs.conv_norm_out)
    copy(ours.conv_out, theirs.conv_out)


@pytest.mark.parametrize("size, multipliers, attention", [(32, (1, 2, 2, 2), (16,)), (28, (1, 2, 2), (7,))])
def test_same_output_as_diffusers_with_the_same_weights(size, multipliers, attention):
    torch.manual_seed(0)
    width, levels = 64, len(multipliers)
    attends = [size // 2**i in attention for i in range(levels)]
    theirs = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=tuple(width * m for m in multipliers),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=32,
    ).eval()
    ours = UNet(size=size, width=width, multipliers=multipliers, attention=attention).eval()
    copy_unet(ours, theirs)
    x, time = torch.randn(4, 3, size, size), torch.tensor([0.0, 1.0, 500.0, 999.0])
    with torch.no_grad():
        a, b = ours(x, time), theirs(x, time).sample
    assert b.abs().max() > 0.1  # the peer's random weights make a real output, not zeros
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_a_new_network_predicts_zero_and_its_blocks_are_the_identity():
    torch.manual_seed(0)
    net, x = (
        UNet(channels=1, out_channels=1, size=8, width=32, multipliers=(1, 2), attention=(4,)),
        torch.randn(2, 1, 8, 8),
    )
    assert (net(x, torch.tensor([3.0, 900.0])) == 0).all()
    block, h = ResBlock(32, 32, 128), torch.randn(2, 32, 8, 8)
    torch.testing.assert_close(block(h, torch.randn(2, 128)), h)


def test_sinusoidal_features():
    features = sinusoidal(torch.tensor([7.0]), 128)[0]
    i = 10
    frequency = 10_000 ** (-i / 63)
    torch.testing.assert_close(features[i], torch.tensor(7 * frequency).sin())
    torch.testing.assert_close(features[64 + i], torch.tensor(7 * frequency).cos())
    with pytest.raises(ValueError, match="even width"):
        sinusoidal(torch.tensor([1.0]), 5)


def test_resampling_layers_change_only_the_size():
    x = torch.randn(2, 32, 8, 8)
    assert Downsample(32)(x, None).shape == (2, 32, 4, 4)
    assert Upsample(32)(x, None).shape == (2, 32, 16, 16)
    assert Stage(32, 64, True, time_width=16, groups=32)(x, torch.randn(2, 16)).shape == (2, 64, 8, 8)

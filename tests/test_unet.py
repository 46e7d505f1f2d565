"""The U-Net is DDPM's: same parameter counts as the paper's networks, same outputs as diffusers' class with the same
weights."""

import pytest
import torch
from diffusers import UNet2DModel

from litrev.nets.blocks import AttentionPool, ResBlock, sinusoidal
from litrev.nets.unet import Downsample, NoisyClassifier, Stage, UNet, Upsample, adm


def count(network=UNet, **configuration):
    with torch.device("meta"):
        return sum(p.numel() for p in network(**configuration).parameters())


def test_official_parameter_counts():
    assert count() == 35_746_307  # CIFAR-10; "35.7M" in DDPM, app. B
    assert count(size=256, multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0) == 113_673_219  # 256 x 256; "114M"


HEADS = {"head_width": None, "heads": 4}
IMPROVED = {"resample_blocks": False, "attention": (16, 8), **HEADS}


@pytest.mark.parametrize(
    "options, parameters",
    [
        ({"size": 64}, 295_904_454),
        ({"size": 128}, 421_529_606),
        ({"size": 256}, 553_838_086),
        ({"size": 256, "classes": None}, 552_814_086),
        ({"size": 512}, 558_997_638),
        ({"size": 256, "width": 192, "channels": 6, **HEADS}, 311_795_910),  # upsampler from 64
        (
            {"size": 512, "width": 192, "multipliers": (1, 1, 2, 2, 4, 4), "channels": 6, "attention": (32, 16)},
            308_835_270,
        ),
        ({"size": 64, "classes": None, "width": 128, **IMPROVED}, 121_063_942),  # improved DDPM, ImageNet
        ({"size": 64, **IMPROVED}, 273_049_350),
    ],
)
def test_official_parameter_counts_of_adm_and_improved_ddpm(options, parameters):
    assert count(adm, **options) == parameters


def test_official_parameter_counts_of_improved_ddpm_on_cifar():
    style = {"openai": True, "adaptive": True, "heads": 4}
    for out_channels, parameters in [(6, 52_546_438), (3, 52_542_979)]:
        assert count(blocks=3, attention=(16, 8), out_channels=out_channels, **style) == parameters


@pytest.mark.parametrize(
    "change, parameters",
    [
        ({}, 89_742_982),
        ({"adaptive": False}, 85_606_150),
        ({"attention": (32, 16, 8)}, 96_319_622),
        ({"resample_blocks": True}, 98_621_958),
        ({"heads": 4}, 89_742_982),
    ],
)
def test_parameter_counts_of_adm_s_ablation(change, parameters):
    base = {"size": 128, "classes": None, "width": 128, "attention": (16,), "heads": 1, "resample_blocks": False}
    assert count(adm, **base | change) == parameters


@pytest.mark.parametrize(
    "options, parameters",
    [
        ({}, 65_438_568),
        ({"size": 128, "multipliers": (1, 1, 2, 3, 4), "blocks": 2}, 42_568_040),
        ({"size": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2}, 54_096_360),
        ({"size": 512, "multipliers": (0.5, 1, 1, 2, 2, 4, 4), "blocks": 2}, 54_448_360),
    ],
)
def test_official_parameter_counts_of_adm_s_classifiers(options, parameters):
    assert count(NoisyClassifier, **options) == parameters


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
            layer, peer = next(layers), getattr(theirs, sampler)[0]
            copy_block(layer, peer) if isinstance(layer, ResBlock) else copy(layer.conv, peer.conv)
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


@pytest.mark.parametrize("resample_blocks", [True, False])
def test_same_output_as_diffusers_in_adm_s_configuration(resample_blocks):
    torch.manual_seed(0)
    kinds = ("Resnet{}sampleBlock2D", "Attn{}Block2D") if resample_blocks else ("{}Block2D", "Attn{}Block2D")
    theirs = UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        layers_per_block=2,
        block_out_channels=(32, 64, 64),
        down_block_types=[kinds[attends].format("Down") for attends in (False, True, True)],
        up_block_types=[kinds[attends].format("Up") for attends in (True, True, False)],
        attention_head_dim=16,
        attn_norm_num_groups=32,
        norm_num_groups=32,
        norm_eps=1e-5,
        resnet_time_scale_shift="scale_shift",
        downsample_type="resnet" if resample_blocks else "conv",
        upsample_type="resnet" if resample_blocks else "conv",
        num_class_embeds=10,
    ).eval()
    ours = UNet(
        out_channels=6,
        size=16,
        width=32,
        multipliers=(1, 2, 2),
        attention=(8, 4),
        classes=10,
        openai=True,
        adaptive=True,
        resample_blocks=resample_blocks,
        head_width=16,
    ).eval()
    copy_unet(ours, theirs)
    copy(ours.label, theirs.class_embedding)
    x, time, label = torch.randn(4, 3, 16, 16), torch.tensor([0.0, 1.0, 500.0, 999.0]), torch.tensor([0, 3, 3, 9])
    with torch.no_grad():
        a, b = ours(x, time, label), theirs(x, time, class_labels=label).sample
    assert b.abs().max() > 0.1
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_attention_pool_is_the_first_output_of_a_transformer_s_attention():
    torch.manual_seed(0)
    ours, theirs = AttentionPool(32, 4, 10, heads=4), torch.nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict({"weight": torch.eye(32), "bias": torch.zeros(32)})
    x = torch.randn(3, 32, 4, 4)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + ours.positions
    torch.testing.assert_close(ours(x), ours.out(theirs(tokens, tokens, tokens)[0][:, 0]), rtol=1e-5, atol=1e-5)


def test_a_noisy_classifier_sees_image_and_time():
    torch.manual_seed(0)
    net = NoisyClassifier(10, 1, size=28, width=32, multipliers=(1, 2), blocks=1, attention=(14,), head_width=16)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, time = torch.randn(2, 1, 28, 28), torch.tensor([3.0, 900.0])
    logits = net(x, time)
    assert logits.shape == (2, 10)
    assert (net(x + 1, time) - logits).abs().max() > 1e-3 and (net(x, time / 2) - logits).abs().max() > 1e-3


def test_an_upsampler_sees_the_small_image_enlarged():
    torch.manual_seed(0)
    net = UNet(channels=6, size=8, width=32, multipliers=(1, 2), attention=())
    torch.nn.init.normal_(net.conv_out.weight)
    net.eval()
    x, low_res, time = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4), torch.tensor([3.0, 900.0])
    both = torch.cat([x, torch.nn.functional.interpolate(low_res, scale_factor=2, mode="bilinear")], 1)
    assert torch.equal(net(x, time, low_res=low_res), net(both, time))
    assert not torch.equal(net(x, time, low_res=low_res), net(x, time, low_res=low_res + 1))


def test_a_label_goes_with_classes():
    x, time, label = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0]), torch.tensor([0, 1])
    tiny = {"size": 8, "width": 32, "multipliers": (1,), "blocks": 1, "attention": ()}
    with pytest.raises(ValueError, match="Give a label"):
        UNet(classes=10, **tiny)(x, time)
    with pytest.raises(ValueError, match="Give a label"):
        UNet(**tiny)(x, time, label)


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

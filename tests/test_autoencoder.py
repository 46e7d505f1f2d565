"""The autoencoders against the paper's parameter counts, diffusers' class weight by weight, and closed forms."""

import pytest
import torch
from diffusers import AutoencoderKL as TheirAutoencoder
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from litrev.nets.autoencoder import AutoencoderKL, LaptopAutoencoder, autoencoder_kl, draw, kl_to_standard

COUNTS = {4: 55_312_063, 8: 83_653_863, 16: 69_610_963, 32: 103_880_131}


@pytest.mark.parametrize("factor", COUNTS)
def test_official_parameter_counts(factor):
    with torch.device("meta"):
        net = autoencoder_kl(factor)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[factor] and net.factor == factor


def residual(theirs, ours):
    pairs = [(getattr(theirs, name), getattr(ours, name)) for name in ("norm1", "conv1", "norm2", "conv2")]
    return pairs + ([] if isinstance(ours.skip, nn.Identity) else [(theirs.conv_shortcut, ours.skip)])


def middle(theirs, block, attention, other):
    """The pairs of layers in the middle; our attention has q, k and v in one convolution."""
    inside = theirs.attentions[0]
    qkv = [nn.Linear(1, 1) for _ in range(3)]
    parts = zip(qkv, attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True)
    for part, weight, bias in parts:
        part.weight, part.bias = nn.Parameter(weight), nn.Parameter(bias)
    pairs = [(inside.group_norm, attention.norm), (inside.to_out[0], attention.out)]
    pairs += zip((inside.to_q, inside.to_k, inside.to_v), qkv, strict=True)
    return pairs + residual(theirs.resnets[0], block) + residual(theirs.resnets[1], other)


def copy(ours, theirs):
    encoder, decoder = theirs.encoder, theirs.decoder
    pairs = [(theirs.quant_conv, ours.to_moments), (theirs.post_quant_conv, ours.from_latent)]
    for end, mine in ((encoder, ours.encoder), (decoder, ours.decoder)):
        pairs += [(end.conv_norm_out, mine.out[0]), (end.conv_out, mine.out[2])]
    layers = list(ours.encoder.layers)
    pairs += [(encoder.conv_in, layers.pop(0)), *middle(encoder.mid_block, *layers[-3:])]
    for block in encoder.down_blocks:
        pairs += [pair for r in block.resnets for pair in residual(r, layers.pop(0))]
        pairs += [(d.conv, layers.pop(0).conv) for d in block.downsamplers or ()]
    layers = list(ours.decoder.layers)
    pairs += [(decoder.conv_in, layers.pop(0)), *middle(decoder.mid_block, *layers[:3])]
    layers = layers[3:]
    for block in decoder.up_blocks:
        pairs += [pair for r in block.resnets for pair in residual(r, layers.pop(0))]
        pairs += [(u.conv, layers.pop(0).conv) for u in block.upsamplers or ()]
    for module, layer in pairs:
        module.weight.data.copy_(layer.weight.reshape(module.weight.shape))
        module.bias.data.copy_(layer.bias)


def test_parity_with_diffusers():
    torch.manual_seed(0)
    ours = AutoencoderKL(3, 4, 32, (1, 2, 2), blocks=1)
    theirs = TheirAutoencoder(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
    ).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.05)
    copy(ours, theirs)
    x = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        mean, log_variance = ours.encode(x)
        posterior = theirs.encode(x).latent_dist
        z = torch.randn(2, 4, 4, 6)
        assert posterior.mean.std() > 0.01 and mean.shape == z.shape
        torch.testing.assert_close(mean, posterior.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_variance, posterior.logvar, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample, rtol=1e-5, atol=1e-5)


def test_divergence_and_draws_are_those_of_a_gaussian():
    torch.manual_seed(0)
    mean, log_variance, eps = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    theirs = DiagonalGaussianDistribution(torch.cat([mean, log_variance], 1))
    torch.testing.assert_close(kl_to_standard(mean, log_variance), theirs.kl())
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0, 1)
    )
    torch.testing.assert_close(kl_to_standard(mean, log_variance), exact.flatten(1).sum(1))
    torch.testing.assert_close(draw(mean, log_variance, eps), mean + theirs.std * eps)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_small_one_has_latents_of_its_factor(factor):
    net = LaptopAutoencoder(factor=factor, latent=5, width=8, depth=1)
    mean, log_variance = net.encode(torch.randn(2, 3, 32, 16))
    assert mean.shape == log_variance.shape == (2, 5, 32 // factor, 16 // factor)
    assert net.decode(mean).shape == (2, 3, 32, 16)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_latent_is_about_its_place(factor):
    """What changes in one corner of the picture changes the latents there most."""
    torch.manual_seed(0)
    net = LaptopAutoencoder(factor=factor, width=8, depth=1)
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net.encode(x)[0][0, :, 0, 0].sum(), x)
    assert gradient[..., : 2 * factor, : 2 * factor].abs().sum() > 0.5 * gradient.abs().sum() > 0


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda net: net.encode(torch.zeros(1, 3, 30, 32)), "multiples of 4"),
        (lambda net: net.encode(torch.zeros(1, 1, 32, 32)), "x must be"),
        (lambda net: net.decode(torch.zeros(1, 3, 8, 8)), "z must be"),
        (lambda net: net.decode(torch.zeros(1, 4, 8, 8, dtype=torch.float64)), "float32"),
    ],
)
@pytest.mark.parametrize("net", [LaptopAutoencoder(), AutoencoderKL(3, 4, 32, (1, 1, 1), blocks=1)])
def test_wrong_input_is_said(net, call, said):
    with pytest.raises(ValueError, match=said):
        call(net)

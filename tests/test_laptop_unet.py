"""The lean U-Net: shapes, the identity it starts as, its memory layouts, and that it can learn."""

import pytest
import torch

from litrev.laptop_unet import Attention, Block, LaptopUNet, channel_norm
from litrev.nn import bfloat16_pays


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_parameters_and_shapes():
    assert parameters(LaptopUNet()) == 963_188
    for channels, size in [(1, 28), (3, 32)]:
        x = torch.randn(2, channels, size, size)
        assert LaptopUNet(channels, width=16, depth=1, middle=1)(x, torch.tensor([0.0, 999.0])).shape == x.shape


def test_a_new_network_answers_zero_and_its_blocks_are_the_identity():
    x = torch.randn(2, 1, 28, 28)
    assert (LaptopUNet(width=16)(x, torch.tensor([0.0, 999.0])) == 0).all()
    h = torch.randn(2, 16, 7, 7)
    assert torch.equal(Block(16, 8, heads=2)(h, torch.randn(2, 8)), h)


def trained_a_little(seed=0):
    torch.manual_seed(seed)
    net = LaptopUNet(width=16, depth=1, middle=1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    x = torch.randn(8, 1, 28, 28)
    losses = []
    for _ in range(40):
        loss = (net(x, torch.arange(8.0)) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return net, losses


def test_it_learns_and_every_parameter_has_a_part_in_it():
    net, losses = trained_a_little()
    assert losses[-1] < 0.3 * losses[0]
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_the_layout_of_memory_changes_nothing_but_speed(monkeypatch):
    monkeypatch.setattr("litrev.nn.bfloat16_pays", lambda device: False)
    net, _ = trained_a_little()
    x, time = torch.randn(4, 1, 28, 28), torch.tensor([0.0, 10.0, 500.0, 999.0])
    with torch.no_grad():
        plain = net(x, time)
        last = net.to(memory_format=torch.channels_last)(x, time)
        monkeypatch.setattr("litrev.laptop_unet.channels_last", lambda x: x.contiguous())
        contiguous = net.to(memory_format=torch.contiguous_format)(x, time)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(contiguous, plain, rtol=0, atol=1e-5)


def test_bfloat16_inside_is_close_to_float32(monkeypatch):
    net, _ = trained_a_little()
    x, time = torch.randn(4, 1, 28, 28), torch.tensor([0.0, 10.0, 500.0, 999.0])
    with torch.no_grad():
        answers = []
        for used in (False, True):
            monkeypatch.setattr("litrev.nn.bfloat16_pays", lambda device, used=used: used)
            answers.append(net(x, time))
    assert answers[1].dtype == torch.float32
    assert (answers[0] - answers[1]).abs().max() < 0.05 * answers[0].abs().max()
    assert isinstance(bfloat16_pays(torch.device("cpu")), bool) and not bfloat16_pays(torch.device("mps"))


def test_attention_is_the_textbook_formula():
    torch.manual_seed(0)
    attention, x = Attention(16, heads=2), torch.randn(2, 16, 3, 3)
    torch.nn.init.normal_(attention.out.weight)
    tokens = channel_norm(x).flatten(2).transpose(1, 2)
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in attention.qkv(tokens).chunk(3, dim=-1))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    expected = x + attention.out(mixed).transpose(1, 2).unflatten(-1, (3, 3))
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-5)


def test_channel_norm_gives_each_pixel_mean_zero_and_variance_one():
    h = channel_norm(torch.randn(2, 64, 3, 3) * 5 + 2)
    assert h.mean(1).abs().max() < 1e-5
    assert h.var(1, correction=0) == pytest.approx(torch.ones(2, 3, 3), abs=1e-4)

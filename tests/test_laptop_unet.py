"""The lean U-Net: shapes, the identity it starts as, memory layouts, labels and texts, and that it can learn."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mps_rehearsal import MpsRehearsal

from lab import base
from litrev import device
from litrev.data import captions, scenes
from litrev.diffusion import guidance
from litrev.diffusion.denoiser import clip_x0, from_network, given
from litrev.diffusion.samplers import ddim, final
from litrev.diffusion.schedules import CosineVP
from litrev.nets.blocks import bfloat16_inside, bfloat16_pays, float32_inside, zeroed
from litrev.nets.laptop_unet import Attention, Block, LaptopUNet, channel_norm, enlarged
from litrev.nets.text import TextEncoder


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_parameters_and_shapes():
    assert parameters(LaptopUNet()) == 963_188
    for channels, size in [(1, 28), (3, 32)]:
        x = torch.randn(2, channels, size, size)
        assert LaptopUNet(channels, width=16, depth=1, middle=1)(x, torch.tensor([0.0, 999.0])).shape == x.shape


def test_without_heads_there_is_no_attention():
    net, with_it = (LaptopUNet(width=16, middle=3, heads=heads) for heads in (0, 4))
    assert not any(isinstance(module, Attention) for module in net.modules())
    assert parameters(with_it) - parameters(net) == 3 * 4 * 32**2  # q, k, v and out of 32 channels in three blocks
    assert net(torch.randn(2, 1, 8, 8), torch.tensor([0.0, 999.0])).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="reads its text by attention"):
        LaptopUNet(width=16, heads=0, text=TextEncoder(width=16))


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
    monkeypatch.setattr("litrev.nets.blocks.bfloat16_pays", lambda device: False)
    net, _ = trained_a_little()
    x, time = torch.randn(4, 1, 28, 28), torch.tensor([0.0, 10.0, 500.0, 999.0])
    with torch.no_grad():
        plain = net(x, time)
        last = net.to(memory_format=torch.channels_last)(x, time)
        monkeypatch.setattr("litrev.nets.laptop_unet.channels_last", lambda x: x.contiguous())
        contiguous = net.to(memory_format=torch.contiguous_format)(x, time)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(contiguous, plain, rtol=0, atol=1e-5)


def test_bfloat16_inside_is_close_to_float32(monkeypatch):
    net, _ = trained_a_little()
    x, time = torch.randn(4, 1, 28, 28), torch.tensor([0.0, 10.0, 500.0, 999.0])
    with torch.no_grad():
        answers = []
        for used in (False, True):
            monkeypatch.setattr("litrev.nets.blocks.bfloat16_pays", lambda device, used=used: used)
            answers.append(net(x, time))
    assert answers[1].dtype == torch.float32
    assert (answers[0] - answers[1]).abs().max() < 0.05 * answers[0].abs().max()
    assert isinstance(bfloat16_pays(torch.device("cpu")), bool) and not bfloat16_pays(torch.device("mps"))


def test_float32_inside_keeps_bfloat16_off_until_the_last_context_ends(monkeypatch):
    monkeypatch.setattr("litrev.nets.blocks.bfloat16_pays", lambda device: True)
    net, _ = trained_a_little()
    x, time = torch.randn(2, 1, 28, 28), torch.tensor([10.0, 999.0])
    cpu = torch.device("cpu")

    def on():
        with bfloat16_inside(cpu):
            return torch.is_autocast_enabled("cpu")

    assert on()
    rounded = net(x, time)
    with float32_inside():
        with pytest.raises(KeyError), float32_inside():
            assert not on()
            raise KeyError
        assert not on()
        exact = net(x, time)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(on).result()
    assert on() and torch.equal(net(x, time), rounded) and torch.equal(float32_inside()(net)(x, time), exact)
    monkeypatch.setattr("litrev.nets.blocks.bfloat16_pays", lambda device: False)
    assert torch.equal(net(x, time), exact) and not torch.equal(exact, rounded)


def test_attention_is_the_textbook_formula():
    torch.manual_seed(0)
    attention, x = Attention(16, heads=2), torch.randn(2, 16, 3, 3)
    torch.nn.init.normal_(attention.out.weight)
    tokens = channel_norm(x).flatten(2).transpose(1, 2)
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in attention.qkv(tokens).chunk(3, dim=-1))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    expected = x + attention.out(mixed).transpose(1, 2).unflatten(-1, (3, 3))
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-5)


def test_enlarged_is_a_convolution_and_a_pixel_shuffle():
    x, weight = torch.randn(2, 6, 3, 5), torch.randn(12, 6, 1, 1)
    expected = torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(x, weight), 2)
    torch.testing.assert_close(enlarged(x, weight), expected, rtol=0, atol=1e-5)


def test_channel_norm_gives_each_pixel_mean_zero_and_variance_one():
    h = channel_norm(torch.randn(2, 64, 3, 3) * 5 + 2)
    assert h.mean(1).abs().max() < 1e-5
    assert h.var(1, correction=0) == pytest.approx(torch.ones(2, 3, 3), abs=1e-4)


def test_the_shipped_run_is_of_the_plain_network(monkeypatch):
    """What labels and texts need must not show in a network without them, or its runs would not be found again."""
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    net = LaptopUNet()
    architecture = base.ddpm_mnist_brief().about["description"]["architecture"]
    assert architecture["modules"] == repr(net)
    assert architecture["shapes"] == {name: list(value.shape) for name, value in net.state_dict().items()}


CLASSES = len(captions.COLOURS)
KINDS = ("label", "text")
NULL = {"label": CLASSES, "text": captions.null_tokens()}


def conditional(kind, seed=0, used=False):
    """A small network that takes a label or a text; if `used`, with random weights where it starts at zero."""
    torch.manual_seed(seed)
    options = {"classes": CLASSES} if kind == "label" else {"text": TextEncoder(width=16, depth=1, heads=2)}
    net = LaptopUNet(3, width=16, depth=1, middle=1, heads=2, time_width=32, **options)
    for parameter in net.parameters() if used else ():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return net


def coloured(n, generator):
    """Images [n, 3, 8, 8] all of one colour, and what says which one: a label, or one word of a random caption."""
    d, c, s, p, b = (torch.randint(len(words), (n,), generator=generator) for words in captions.ATTRIBUTES.values())
    texts = captions.tokenize(
        [captions.sentence(*(int(i) for i in scene)) for scene in zip(d, c, s, p, b, strict=True)]
    )
    return (2 * scenes.INKS[c] - 1)[..., None, None].expand(n, 3, 8, 8), {"label": c, "text": texts}


def some(kind, n=4):
    generator = device.generator(1)
    x, condition = coloured(n, generator)
    return torch.randn(x.shape, generator=generator), torch.linspace(0, 999, n), {kind: condition[kind]}


def plain_part(net):
    """The network without its labels and texts, with the same weights."""
    plain = LaptopUNet(3, width=16, depth=1, middle=1, heads=2, time_width=32)
    plain.load_state_dict({name: net.state_dict()[name] for name in plain.state_dict()})
    return plain


@pytest.fixture
def float32(monkeypatch):
    monkeypatch.setattr("litrev.nets.blocks.bfloat16_pays", lambda device: False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_steers_every_image_by_itself(float32, kind):
    net, (x, time, condition) = conditional(kind, used=True), some(kind)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        answer = net(x, time, **condition)
        permuted = net(x[order], time[order], **{kind: condition[kind][order]})
        other = net(x, time, **{kind: torch.cat([condition[kind][:3], condition[kind][:1]])})
    assert condition[kind][0].ne(condition[kind][3]).any()
    torch.testing.assert_close(permuted, answer[order], rtol=0, atol=1e-5)
    torch.testing.assert_close(other[:3], answer[:3], rtol=0, atol=1e-5)
    assert (other[3] - answer[3]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_network_answers_zero_whatever_the_condition(kind):
    x, time, condition = some(kind)
    assert (conditional(kind)(x, time, **condition) == 0).all()


def test_no_caption_is_the_unconditional_network(float32):
    """<pad> is not looked at, so that a text of nothing else acts through the time features alone."""
    net, (x, time, text) = conditional("text", used=True), some("text")
    nothing = NULL["text"].expand_as(text["text"])
    with torch.no_grad():
        pooled = net(x, time, text=nothing)
        zeroed(net.pooled)
        expected = plain_part(net)(x, time)
        torch.testing.assert_close(net(x, time, text=nothing), expected, rtol=0, atol=1e-5)
        assert (net(x, time, **text) - expected).abs().max() > 1e-2 and (pooled - expected).abs().max() > 1e-2


def test_the_last_row_of_labels_is_the_unconditional_network(float32):
    net, (x, time, _) = conditional("label", used=True), some("label")
    nothing = torch.full((4,), CLASSES)
    with torch.no_grad():
        answer = net(x, time, nothing)
        net.label.weight[:CLASSES] = torch.randn(CLASSES, 32)
        assert torch.equal(net(x, time, nothing), answer)
        net.label.weight[CLASSES] = 0
        assert torch.equal(net(x, time, nothing), plain_part(net)(x, time))


SCHEDULE = CosineVP()


def train(net, kind, steps, batch=32):
    """v-prediction of images of one colour, with 15 % of the conditions dropped; the network after its last step."""
    optimiser, generator = torch.optim.AdamW(net.parameters(), lr=5e-3), device.generator(0)
    where = next(net.parameters()).device
    for _ in range(steps):
        x0, condition = coloured(batch, generator)
        x0, given = x0.to(where), guidance.drop(condition[kind], NULL[kind], 0.15, generator).to(where)
        t, eps = torch.rand(batch, generator=generator), device.randn(x0.shape, generator, where)
        alpha, sigma = SCHEDULE.levels(t, x0)
        time = SCHEDULE.network_time(t).float().to(where)
        loss = (net(alpha * x0 + sigma * eps, time, **{kind: given}) - (alpha * eps - sigma * x0)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind):
    net = train(conditional(kind), kind, steps=4)
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_labels_and_words_mean(kind):
    """From pure noise, images of the colour that was asked for, guided or not."""
    denoiser = clip_x0(from_network(train(conditional(kind), kind, steps=220).eval(), SCHEDULE, "v"))
    x0, condition = coloured(60, device.generator(2))
    xT = device.randn(x0.shape, device.generator(3))

    def right(scale):
        guided = guidance.classifier_free(denoiser, scale, {kind: NULL[kind]})
        with torch.no_grad():
            made = final(ddim(given(guided, **{kind: condition[kind]}), xT, SCHEDULE.grid(8, 0.999)))
        colour = torch.cdist((made.mean((2, 3)) + 1) / 2, scenes.INKS).argmin(1)
        return (colour == condition["label"]).float().mean()

    assert right(0) < 0.5 and right(1) > 0.85 and right(2) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_at_its_neutral_scales_is_the_network_bit_for_bit(kind):
    denoiser = from_network(conditional(kind, used=True), SCHEDULE, "v")
    xt, _, condition = some(kind)
    nothing = {kind: torch.as_tensor(NULL[kind]).expand_as(condition[kind])}
    with torch.no_grad():
        conditioned, unconditioned = denoiser(xt, 0.5, **condition), denoiser(xt, 0.5, **nothing)
        free = [guidance.classifier_free(denoiser, s, {kind: NULL[kind]})(xt, 0.5, **condition) for s in (0, 1, 3)]
    assert torch.equal(free[0].eps, unconditioned.eps) and torch.equal(free[1].eps, conditioned.eps)
    expected = unconditioned.eps + 3 * (conditioned.eps - unconditioned.eps)
    assert not torch.equal(free[0].eps, free[1].eps)
    torch.testing.assert_close(free[2].eps, expected, rtol=0, atol=0.05)  # a batch of two rounds bfloat16 otherwise


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_work_on_an_apple_gpu(kind):
    with MpsRehearsal():
        net = train(conditional(kind).to(device.device()), kind, steps=2, batch=4)
        x, _, condition = some(kind)
        free = guidance.classifier_free(from_network(net, SCHEDULE, "v"), 2.0, {kind: NULL[kind]})
        with torch.no_grad():
            made = free(x.to(device.device()), 0.5, **{kind: condition[kind].to(device.device())})
        assert made.x0.device.type == "mps" and made.x0.isfinite().all()


def test_a_label_and_a_text_together():
    torch.manual_seed(0)
    net = LaptopUNet(3, 16, 1, 1, 2, classes=CLASSES, text=TextEncoder(width=16))
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    x, time, text = some("text")
    with torch.no_grad():
        a, b = (net(x, time, torch.full((4,), label), **text) for label in (0, CLASSES))
        c = net(x, time, torch.zeros(4, dtype=torch.long), NULL["text"].expand(4, -1))
    assert (a - b).abs().max() > 1e-2 and (a - c).abs().max() > 1e-2


WRONG = {
    "no label": ("label", {}, "built with label: call it with label=..., one for each image"),
    "no text": ("text", {}, "built with text: call it with text=..., one for each image"),
    "a text nobody reads": ("label", {"label": torch.zeros(4).long(), "text": NULL["text"]}, "without text"),
    "a label nobody reads": ("text", {"label": torch.zeros(4).long()}, "without label"),
    "too few labels": ("label", {"label": torch.zeros(3).long()}, "one for each image"),
    "one text for all": ("text", {"text": NULL["text"][None]}, "one for each image"),
    "label too high": ("label", {"label": torch.full((4,), 7)}, r"whole numbers 0..6 \(int64\) of shape \[4\]"),
    "label negative": ("label", {"label": torch.full((4,), -1)}, "whole numbers 0..6"),
    "one-hot labels": ("label", {"label": torch.eye(4).long()}, r"this is a tensor of int64 \[4, 4\]"),
    "labels that are no whole numbers": ("label", {"label": torch.zeros(4)}, "this is a tensor of float32"),
    "text too short": ("text", {"text": torch.zeros(4, 5).long()}, r"of shape \[4, 20\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_condition_gets_one_clear_sentence(name):
    kind, condition, sentence = WRONG[name]
    x, time, _ = some(kind)
    with pytest.raises(ValueError, match=sentence):
        conditional(kind)(x, time, **condition)

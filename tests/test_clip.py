"""CLIP against the official parameter counts, transformers' model weight by weight, and closed forms of its loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from mps_rehearsal import MpsRehearsal
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from lab import captioned_clip
from lab.optim import optimisers
from litrev import device
from litrev.data import captions, scenes
from litrev.data.captions import EOT, PAD, tokenize
from litrev.device import generator
from litrev.nets.clip import CLIP, Bottleneck, ResNet, SceneTower, ViT, contrastive_loss, official, scene_clip
from litrev.nets.text import TextEncoder

COUNTS = {
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
}
TEXTS = ["a large red seven at the top left on a navy background", "a red two left of a blue six", "a one"]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_official_parameter_counts(name):
    with torch.device("meta"):
        net = official(name)
    assert count(net) == COUNTS[name]


def test_official_counts_of_the_towers():
    with torch.device("meta"):
        base, large = official("ViT-B/32"), official("ViT-L/14")
    assert count(base.images) == 87_849_216 and count(base.texts.blocks) == 37_828_608
    assert count(large.images) == 303_966_208


def shaken(net):
    torch.manual_seed(1)
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return net.eval()


def load(module, **values):
    module.load_state_dict(values)


def copy_blocks(blocks, layers):
    """Their q, k and v are three layers."""
    for block, layer in zip(blocks, layers, strict=True):
        attention = layer.self_attn
        parts = zip(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True)
        for linear, (weight, bias) in zip((attention.q_proj, attention.k_proj, attention.v_proj), parts, strict=True):
            load(linear, weight=weight, bias=bias)
        pairs = [(attention.out_proj, block.out), (layer.layer_norm1, block.norm1), (layer.layer_norm2, block.norm2)]
        for peer, own in [*pairs, (layer.mlp.fc1, block.mlp[0]), (layer.mlp.fc2, block.mlp[2])]:
            load(peer, **own.state_dict())


def copy_clip(ours, theirs):
    text, vision = theirs.text_model, theirs.vision_model
    load(text.embeddings.token_embedding, weight=ours.texts.token.weight)
    load(text.embeddings.position_embedding, weight=ours.texts.position)
    load(vision.embeddings.patch_embedding, weight=ours.images.patches.weight)
    load(vision.embeddings.position_embedding, weight=ours.images.places)
    vision.embeddings.class_embedding.data.copy_(ours.images.first)
    norms = [(text.final_layer_norm, ours.texts.norm), (vision.pre_layrnorm, ours.images.norm_in)]
    for peer, own in [*norms, (vision.post_layernorm, ours.images.norm_out)]:
        load(peer, **own.state_dict())
    copy_blocks(ours.texts.blocks, text.encoder.layers)
    copy_blocks(ours.images.blocks, vision.encoder.layers)
    load(theirs.visual_projection, weight=ours.images.projection.weight)
    load(theirs.text_projection, weight=ours.projection.weight)
    theirs.logit_scale.data.copy_(ours.log_scale)


def test_same_answer_as_transformers_with_the_same_weights():
    torch.manual_seed(0)
    ours = shaken(CLIP(ViT(32, 8, 64, 2, 2, 48), TextEncoder(38, 64, 2, 4), 48))
    shared = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "hidden_act": "quick_gelu"}
    text = {"vocab_size": 38, "num_attention_heads": 4, "max_position_embeddings": 20}
    text |= {"pad_token_id": PAD, "eos_token_id": EOT}
    vision = {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=shared | text, vision_config=shared | vision, projection_dim=48)
    theirs = CLIPModel(config).eval()
    with torch.no_grad():
        copy_clip(ours, theirs)
        x, ids = torch.randn(3, 3, 32, 32), tokenize(TEXTS)
        logits, answer = ours(x, ids), theirs(input_ids=ids, pixel_values=x)
        vectors = ours.image_vectors(x), ours.text_vectors(ids)
    for own, peer in zip(vectors, (answer.image_embeds, answer.text_embeds), strict=True):
        torch.testing.assert_close(own, peer, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, answer.logits_per_image, rtol=0, atol=2e-5)  # s = 15 times a cosine
    assert logits.std() > 0.5


def test_same_loss_as_transformers():
    logits = 3 * torch.randn(7, 7, generator=generator(0))
    torch.testing.assert_close(contrastive_loss(logits), image_text_contrastive_loss(logits), rtol=0, atol=1e-6)


def test_the_loss_in_closed_form():
    assert contrastive_loss(torch.zeros(8, 8)).item() == pytest.approx(math.log(8), abs=1e-6)
    a, b = 2.0, 0.5  # log n - L for a diagonal of a and b elsewhere
    logits = torch.full((5, 5), b) + (a - b) * torch.eye(5)
    assert contrastive_loss(logits).item() == pytest.approx(math.log(math.exp(a) + 4 * math.exp(b)) - a, abs=1e-6)
    shifted = logits + torch.arange(5.0)  # a number for each column changes the rows' half alone
    rows = F.cross_entropy(shifted, torch.arange(5))
    assert contrastive_loss(shifted).item() == pytest.approx((rows + contrastive_loss(logits)).item() / 2, abs=1e-6)


def test_the_gradient_of_a_row_is_softmax_minus_one_hot():
    logits = torch.randn(6, 6, generator=generator(1)).requires_grad_()
    (gradient,) = torch.autograd.grad(contrastive_loss(logits), logits)
    eye = torch.eye(6)
    expected = ((logits.softmax(1) - eye) + (logits.softmax(0) - eye)) / 12
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


def test_the_bound_of_a_gaussian_pair_lies_below_its_mutual_information_and_below_log_n():
    """The optimal critic is the pointwise mutual information; with it log n - L rises towards -log(1 - rho^2) / 2."""
    rho, stream, bounds = 0.99, generator(2), []
    x, noise = torch.randn(2, 400, 64, generator=stream, dtype=torch.float64)
    y = rho * x + (1 - rho**2) ** 0.5 * noise
    for n in (4, 16, 64):
        a, b = x[:, :n, None], y[:, None, :n]
        pmi = (2 * rho * a * b - rho**2 * (a**2 + b**2)) / (2 * (1 - rho**2)) - 0.5 * math.log(1 - rho**2)
        bounds.append(math.log(n) - torch.stack([contrastive_loss(critic) for critic in pmi]).mean().item())
    information = -0.5 * math.log(1 - rho**2)
    assert bounds[0] < bounds[1] < bounds[2] < information and bounds[0] < math.log(4)
    assert bounds[2] > information - 0.2


def test_vectors_are_unit_and_logits_their_product():
    net, ids = shaken(scene_clip(8, 16, 1, 2)), tokenize(TEXTS)
    x = scenes.evaluation("seen").x[:4]
    images, texts = net.image_vectors(x), net.text_vectors(ids)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(net(x, ids), net.scale() * images @ texts.T)
    assert net(x, ids).shape == (4, 3) and net.scale().item() == pytest.approx(net.log_scale.exp().item())


def test_the_scale_is_cut_at_100_and_can_come_down_again():
    net = scene_clip(8, 16, 1, 2)
    assert net.scale().item() == pytest.approx(1 / 0.07)
    net.log_scale.data.fill_(9.0)
    scale = net.scale()
    scale.backward()
    assert scale.item() == pytest.approx(100, rel=1e-5) and net.log_scale.grad > 0


def test_a_class_is_the_unit_mean_of_its_captions_unit_vectors():
    net = shaken(scene_clip(8, 16, 1, 2))
    prompts = [[f"a {colour} {digit}" for colour in captions.COLOURS] for digit in captions.DIGITS]
    found = net.class_vectors(torch.stack([tokenize(row) for row in prompts]))
    means = torch.stack([net.text_vectors(tokenize(row)).mean(0) for row in prompts])
    torch.testing.assert_close(found, means / means.norm(dim=1, keepdim=True))
    assert means.norm(dim=1).max() < 0.999
    with pytest.raises(ValueError, match=r"ids must be \[classes, captions, length\]"):
        net.class_vectors(tokenize(TEXTS))


def test_the_start_is_openais():
    torch.manual_seed(0)
    net = CLIP(ViT(32, 8, 64, 1, 1, 48), TextEncoder(1000, 256, 6, 4), 48)
    block = net.texts.blocks[3]
    stds = {block.qkv: 256**-0.5, block.out: 3072**-0.5, block.mlp[0]: 512**-0.5, block.mlp[2]: 3072**-0.5}
    stds |= {net.texts.token: 0.02, net.projection: 256**-0.5}
    for layer, std in stds.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)


def test_a_resnet_halves_five_times_and_its_blocks_start_as_the_identity():
    net = ResNet(64, 8, (1, 2, 1, 1), 10)
    x = torch.randn(2, 3, 64, 64)
    assert net.stages(net.stem(x)).shape == (2, 256, 2, 2) and net(x).shape == (2, 10)
    block, inside = Bottleneck(32, 8, 1), torch.rand(2, 32, 4, 4)
    assert torch.equal(block(inside), inside)


def test_pairs_are_learned_and_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    net, batch = scene_clip(16, 32, 1, 2), scenes.Scenes(drop=0.0).batch(32, generator(0))
    moved, losses = optimisers(net, "muon", 1e-2, 0.0), []
    for _ in range(60):
        loss = contrastive_loss(net(batch.x, batch.tokens))
        net.zero_grad()
        loss.backward()
        assert losses or not [name for name, p in net.named_parameters() if not p.grad.any()]
        for optimiser in moved:
            optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < math.log(16) < losses[0]


def test_the_shipped_base_names_what_is_in_scenes(monkeypatch, tmp_path):
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    run, batch = captioned_clip.clip_of_scenes(), scenes.evaluation("seen")
    assert run.source == "shipped"
    for key, least in {"d": 0.95, "c": 0.99, "s": 0.99, "p": 0.99, "b": 0.99}.items():
        found = captioned_clip.zero_shot(run.net, batch.x[:256], key)
        assert (found == batch.attrs[key][:256]).double().mean() >= least


def test_it_computes_on_an_apple_gpu():
    with MpsRehearsal():
        net = scene_clip(8, 16, 1, 2).to(device.device())
        x, ids = scenes.evaluation("seen").x[:3].to(device.device()), tokenize(TEXTS).to(device.device())
        contrastive_loss(net(x, ids)).backward()
        assert net.log_scale.grad.device.type == "mps"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda: scene_clip()(torch.zeros(2, 3, 28, 28), tokenize(TEXTS)),
            r"x must be a float tensor \[B, 3, 32, 32\]",
        ),
        (lambda: scene_clip()(torch.zeros(2, 3, 32, 32), tokenize(TEXTS)[:, :9]), "Text must be whole numbers"),
        (lambda: contrastive_loss(torch.zeros(3, 4)), r"logits must be \[n, n\]"),
        (lambda: official("ViT-B/64"), "name must be 'ViT-B/32', "),
        (lambda: ViT(30, 8, 64, 1, 1, 8), "size must be a multiple of patch"),
        (lambda: ResNet(40, 8, (1, 1, 1, 1), 8), "size must be a multiple of 32"),
        (lambda: ResNet(64, 8, (1, 1, 1), 8), "depth must be the blocks of four stages"),
        (lambda: CLIP(SceneTower(), None, 64), "texts must be a TextEncoder"),
    ],
)
def test_what_cannot_be_gets_one_clear_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()

"""CLIP: an image tower and a text tower that put pictures and captions into one space, and the loss that trains both.

`official` builds the nine configurations of OpenAI's release, `scene_clip` a small one for captioned scenes. The text
tower is `text.TextEncoder`; a tower for images is any module from images [B, 3, size, size] to vectors [B, width].
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from litrev import checks
from litrev.data.captions import VOCABULARY
from litrev.nets.blocks import AttentionPool, bfloat16_inside
from litrev.nets.laptop_unet import channel_norm, channels_last
from litrev.nets.text import TextBlock, TextEncoder

FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0
SIZES = {  # width of the common space; of the images: size, depth, width, patch (None: a ResNet); width of the text
    "ViT-B/32": (512, 224, 12, 768, 32, 512),
    "ViT-B/16": (512, 224, 12, 768, 16, 512),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024),
}


class CLIP(nn.Module):
    """Images x [B, 3, size, size], captions' ids [M, length] -> logits [B, M] = s <image_i, text_j>, unit vectors.

    Each vector is a linear map of what its tower answers, divided by its length; s = exp(log_scale) is learned from
    1/0.07 on, and at most 100. `images` is a tower that answers vectors [B, width], `texts` a `TextEncoder`. Raises
    ValueError for images and ids that the towers refuse. Source: CLIP (Radford et al. 2021, sec. 2.3-2.5, fig. 3).
    """

    def __init__(self, images, texts, width):
        super().__init__()
        checks.kind(nn.Module, "a network from images to vectors", images=images)
        checks.kind(TextEncoder, "a TextEncoder", texts=texts)
        checks.whole(width=width)
        self.images, self.texts = images, texts
        self.projection = nn.Linear(texts.width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        _initialise(texts, self.projection)

    def forward(self, x, ids):
        return self.scale() * self.image_vectors(x) @ self.text_vectors(ids).T

    def scale(self):
        """s = exp(log_scale), a tensor []; log_scale is cut at log 100 itself, so that it can come down again."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))
        return self.log_scale.exp()

    def image_vectors(self, x):
        """Unit vectors [B, width] of images."""
        return F.normalize(self.images(x), dim=1)

    def text_vectors(self, ids):
        """Unit vectors [M, width] of captions, from what the text tower says at <eot>."""
        with bfloat16_inside(self.projection.weight.device, isinstance(self.images, SceneTower)):
            vectors = self.projection(self.texts(ids)[1])
        return F.normalize(vectors.float(), dim=1)

    def class_vectors(self, ids):
        """Unit vectors [classes, width], the rows of a zero-shot classifier, from several captions of each class, ids
        [classes, captions, length]: their unit vectors' mean, made a unit vector again (sec. 3.1.4)."""
        if not isinstance(ids, torch.Tensor) or ids.ndim != 3 or 0 in ids.shape:
            raise ValueError(f"ids must be [classes, captions, length], not {checks.shown(ids)}.")
        each = self.text_vectors(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
        return F.normalize(each.mean(1), dim=1)


def contrastive_loss(logits):
    """The symmetric loss of n pairs, logits [n, n] with the true pairs on the diagonal: a number in nats.

    L = (CE(rows) + CE(columns)) / 2, CE(rows) = -mean_i log softmax(logits[i])[i]; log n - CE(rows) is at most the
    mutual information of image and text. CLIP, fig. 3; InfoNCE (van den Oord et al. 2018, eq. 4). Raises ValueError
    for another shape.
    """
    checks.floats("n n", logits=logits)
    if logits.shape[0] != logits.shape[1]:
        raise ValueError(
            f"logits must be [n, n], a row for each image and a column for its text, not {list(logits.shape)}."
        )
    pairs = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def official(name):
    """The CLIP of OpenAI's release by its name, untrained: "ViT-B/32", "RN50x4", ... (the keys of `SIZES`)."""
    checks.choice(SIZES, name=name)
    width, size, depth, channels, patch, text = SIZES[name]
    tower = ViT(size, patch, channels, depth, channels // 64, width) if patch else ResNet(size, channels, depth, width)
    return CLIP(tower, TextEncoder(49_408, text, 12, text // 64, 77), width)


def scene_clip(channels=48, width=64, depth=2, heads=4):
    """A CLIP for scenes of 32 x 32 pixels and their captions, whose common space has 64 dimensions: 1.27M parameters.

    `channels` are those of the image tower; `width`, `depth` and `heads` belong to the text tower.
    """
    return CLIP(SceneTower(channels, 64), TextEncoder(len(VOCABULARY), width, depth, heads), 64)


class SceneTower(nn.Module):
    """x [B, 3, 32, 32] in [-1, 1] -> vectors [B, width]: a small convolutional network.

    2 x 2 pixels are folded into channels; then a residual block at 16, 8 and 4 pixels each, with twice the channels as
    before, and one linear map of all that is left, which keeps what is where. bfloat16 inside where the CPU has it.
    """

    def __init__(self, channels=48, width=64):
        super().__init__()
        checks.whole(channels=channels, width=width)
        self.conv_in = nn.Conv2d(12, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(channels * 2**level) for level in range(3))
        self.shrink = nn.ModuleList(nn.Conv2d(channels * 2**i, channels * 2 ** (i + 1), 2, stride=2) for i in range(2))
        self.out = nn.Linear(64 * channels, width)

    def forward(self, x):
        _require_images(x, 32, self.out.weight)
        with bfloat16_inside(x.device):
            x = self.blocks[0](self.conv_in(channels_last(F.pixel_unshuffle(x, 2))))
            for shrink, block in zip(self.shrink, self.blocks[1:], strict=True):
                x = block(shrink(x))
            x = self.out(F.silu(channel_norm(x)).flatten(1))
        return x.float()


class Block(nn.Module):
    """x + conv(SiLU(conv(norm(x)))) for x [B, channels, H, W]."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(channel_norm(x))))


class ViT(nn.Module):
    """x [B, 3, size, size] -> vectors [B, out]: CLIP's vision transformer (Radford et al. 2021, sec. 2.4).

    Patches become tokens, a learned token stands in front of them, places are added, a layer norm precedes the blocks;
    the first token's answer, normalised again, is mapped to the common space. Raises ValueError where the patch does
    not divide the size.
    """

    def __init__(self, size, patch, width, depth, heads, out):
        super().__init__()
        checks.divisible(patch=patch, size=size)
        checks.divisible(heads=heads, width=width)
        checks.whole(out=out)
        checks.whole(0, depth=depth)
        self.size = size
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.first = nn.Parameter(torch.randn(width) / width**0.5)
        self.places = nn.Parameter(torch.randn((size // patch) ** 2 + 1, width) / width**0.5)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.projection = nn.Linear(width, out, bias=False)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, x):
        _require_images(x, self.size, self.first)
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        h = self.norm_in(torch.cat([self.first.expand(len(x), 1, -1), tokens], 1) + self.places)
        everything = torch.ones(1, 1, dtype=torch.bool, device=x.device)
        for block in self.blocks:
            h = block(h, seen=everything)
        return self.projection(self.norm_out(h[:, 0]))


class ResNet(nn.Module):
    """x [B, 3, size, size] -> vectors [B, out]: CLIP's ResNet (Radford et al. 2021, sec. 2.4).

    It has a stem of three convolutions, shrinks by averaging before it convolves, and one query, the mean of all
    places, looks at every place in the end. `depth` are the blocks of each of the four stages. Raises ValueError for a
    size that is no multiple of 32.
    """

    def __init__(self, size, width, depth, out):
        super().__init__()
        checks.divisible(**{"32 (for five halvings)": 32, "size": size})
        checks.divisible(**{"2 (for the stem)": 2, "width": width})
        if not isinstance(depth, tuple) or len(depth) != 4:
            raise ValueError(f"depth must be the blocks of four stages, such as (3, 4, 6, 3), not {depth!r}.")
        checks.whole(out=out, **{f"depth[{i}]": blocks for i, blocks in enumerate(depth)})
        self.size, half = size, width // 2
        plan = [(3, half, 2), (half, half, 1), (half, width, 1)]
        stem = [_convolved(*channels, 3, stride) for *channels, stride in plan]
        self.stem = nn.Sequential(*(nn.Sequential(layer, nn.ReLU()) for layer in stem), nn.AvgPool2d(2))
        stages, before = [], width
        for stage, blocks in enumerate(depth):
            for i in range(blocks):
                stages.append(Bottleneck(before, width * 2**stage, 2 if stage and not i else 1))
                before = 4 * width * 2**stage
        self.stages = nn.Sequential(*stages)
        self.pool = AttentionPool(before, size // 32, out, before // 64)

    def forward(self, x):
        _require_images(x, self.size, self.pool.positions)
        return self.pool(self.stages(self.stem(x)))


class Bottleneck(nn.Module):
    """x + expand(conv3x3(squeeze(x))), [B, c_in, H, W] -> [B, 4 channels, H/s, W/s]; with s = 2 both ways are halved by
    averaging, before the last convolution of each."""

    def __init__(self, c_in, channels, s):
        super().__init__()
        shrink = [nn.AvgPool2d(s)] * (s > 1)
        first, second = _convolved(c_in, channels, 1), _convolved(channels, channels, 3)
        self.body = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *shrink, _convolved(channels, 4 * channels, 1))
        short = s > 1 or c_in != 4 * channels
        self.skip = nn.Sequential(*shrink, _convolved(c_in, 4 * channels, 1)) if short else nn.Identity()
        nn.init.zeros_(self.body[-1][1].weight)  # it starts as the identity

    def forward(self, x):
        return F.relu(self.skip(x) + self.body(x))


def _convolved(c_in, c_out, kernel, stride=1):
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


def _require_images(x, size, weight) -> None:
    checks.floats(f"B 3 {size} {size}", x=x)
    if x.device != weight.device:
        raise ValueError(f"x is on {x.device}, the network on {weight.device}: move x there.")
    checks.same_type(x, weight)


def _initialise(texts, projection) -> None:
    """OpenAI's start of the text tower: what adds to the residual stream is small, the more so the more blocks add."""
    width, added = texts.width, (2 * max(1, len(texts.blocks)) * texts.width) ** -0.5
    for block in texts.blocks:
        stds = {block.qkv: width**-0.5, block.out: added, block.mlp[0]: (2 * width) ** -0.5, block.mlp[2]: added}
        for layer, std in stds.items():
            nn.init.normal_(layer.weight, std=std)
    nn.init.normal_(projection.weight, std=width**-0.5)

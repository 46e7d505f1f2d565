"""Captioned digits: 32x32 scenes of MNIST digits, drawn on the fly, whose attributes and captions are known exactly.

The attributes of n scenes are a dictionary of int64 tensors [n], indices into the words of `captions`: digit d, colour
c, size s, position p and background b. A scene of two digits has d2 and c2 as well, and r, the relation of the first to
the second; its s is small and its p -1. In a scene of one digit, r, d2 and c2 are -1. The generator that the caller
gives is the stream: its state alone determines the scenes, and they are drawn on the CPU, the same for every device.
"""

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from litrev import checks, data, device
from litrev.data import captions
from litrev.data.captions import ATTRIBUTES

KEYS = (*ATTRIBUTES, "r", "d2", "c2")
_INKS = [(220, 40, 40), (40, 170, 60), (50, 80, 230), (240, 205, 40), (170, 50, 210), (40, 200, 215)]
_PAPERS = [(10, 10, 10), (16, 24, 96), (96, 20, 28)]  # all darker than all inks: a scene's contrast has one sign
INKS, PAPERS = torch.tensor(_INKS) / 255, torch.tensor(_PAPERS) / 255  # RGB in [0, 1]
SIDES = torch.tensor([12.0, 19.0])  # longer side of the ink's box, small and large, in pixels of 32 as all lengths here
OFFSETS = torch.tensor([8.0, 5.0])  # from the middle (16, 16) to the centre, small and large
TOWARDS = torch.tensor([(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 0.0)])  # positions, (y, x)
BESIDE = torch.tensor([(0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0)])  # where a relation has the first digit
CENTRE_JITTER, SIZE_JITTER, COLOUR_JITTER = 1.0, 0.05, 0.03
MEAN, SIGMA_DATA = -0.684, 0.325  # of the pixels of one-digit scenes, split 'seen'

RANGE = ((-1 - MEAN) / SIGMA_DATA, (1 - MEAN) / SIGMA_DATA)  # of `standardized` pixels


def standardized(x: Tensor) -> Tensor:
    """Return pixels in [-1, 1] [n, 3, h, w] as (x - MEAN) / SIGMA_DATA, of mean 0 and variance 1: what networks see of
    scenes. Raises ValueError for another shape or type."""
    checks.floats("n 3 h w", x=x)
    return (x - MEAN) / SIGMA_DATA


def pixels(x0: Tensor) -> Tensor:
    """Return the pixels in [-1, 1] [n, 3, h, w] of `standardized` ones, which it undoes; what lies outside is clipped.
    Raises ValueError for another shape."""
    checks.floats("n 3 h w", x0=x0)
    return (x0 * SIGMA_DATA + MEAN).clamp(-1, 1)


@functools.cache
def one_digit(split: str | None = None) -> Tensor:
    """Return the attributes of all one-digit scenes of a split, int64 [m, 8] in the order of KEYS; None: all 1,800.

    Rule A holds out digit and colour if (d + c) % 5 = 0, rule B small at the top right and large at the bottom left.
    'seen' is what neither holds out, 'A' what only A does, 'B' what only B does. Raises ValueError for another split.
    """
    every = torch.cartesian_prod(*(torch.arange(len(words)) for words in ATTRIBUTES.values()))
    d, c, s, p, _ = every.T
    a, b = (d + c) % 5 == 0, p == s + 1
    splits = {None: a | ~a, "seen": ~a & ~b, "A": a & ~b, "B": b & ~a}
    if split not in splits:
        raise ValueError(f"There is no split {split!r}: ask for 'seen', 'A' or 'B'.")
    return F.pad(every[splits[split]], (0, 3), value=-1)


@functools.cache
def two_digits(split: str) -> Tensor:
    """Return the attributes of all two-digit scenes of a split, int64 [m, 8]: both digits follow rule A, and differ in
    digit and colour. Raises ValueError for 'B', as these scenes have no size and position to hold out."""
    if split == "B":
        raise ValueError("Two-digit scenes have no size and position to hold out: ask for split 'seen' or 'A'.")
    kinds = one_digit(split)[:, :2].unique(dim=0)
    sizes = len(kinds), len(kinds), len(PAPERS), len(BESIDE)
    first, second, b, r = torch.cartesian_prod(*map(torch.arange, sizes)).T
    (d, c), (d2, c2) = kinds[first].T, kinds[second].T
    return torch.stack([d, c, 0 * d, 0 * d - 1, b, r, d2, c2], 1)[(d != d2) & (c != c2)]


def allowed(attribute: str, given: dict[str, int], split: str = "seen") -> Tensor:
    """Return the exact law of an attribute in the one-digit scenes of a split, given others: probabilities [k].

    All scenes of a split are equally likely, so this counts them. It is uniform on what the rules leave, but for digits
    without their colour and positions without their size: some exist in fewer. Raises ValueError if no scene fits.
    """
    checks.kind(dict, 'a dictionary of attributes, such as {"d": 3}', given=given)
    checks.whole(0, **given)
    if not isinstance(attribute, str) or not {attribute, *given} <= set(ATTRIBUTES):
        raise ValueError(f"The attributes are {', '.join(ATTRIBUTES)}, not {', '.join([str(attribute), *given])}.")
    table = one_digit(split)
    for key, value in given.items():
        table = table[table[:, KEYS.index(key)] == value]
    if not len(table):
        raise ValueError(f"No scene of split {split!r} has {given}: it is held out, or an index is too high.")
    counts = table[:, KEYS.index(attribute)].bincount(minlength=len(ATTRIBUTES[attribute]))
    return counts / counts.sum()


def boxes(ink: Tensor) -> tuple[Tensor, Tensor]:
    """Return corners (y, x) low and high [n, 2] of the boxes around ink, bool [n, h, w]; no ink: the whole image."""
    if not isinstance(ink, Tensor) or ink.dtype != torch.bool or ink.ndim != 3 or 0 in ink.shape[1:]:
        raise ValueError(f"ink must be a tensor of True and False [n, h, w], not {checks.shown(ink)}.")
    lines = [ink.any(2).int(), ink.any(1).int()]
    low = torch.stack([line.argmax(1) for line in lines], 1)
    high = torch.stack([line.shape[1] - line.flip(1).argmax(1) for line in lines], 1)
    return low.float(), high.float()


def resample(image: Tensor, y: Tensor, x: Tensor, average: int = 1) -> Tensor:
    """Return image [n, h, w] at rows y and columns x [n, k], where pixel i covers [i, i + 1] and 0 surrounds all.

    Bilinear interpolation, W_y image W_x^T with W = max(0, 1 - |distance to a pixel's centre|), then means of
    `average` x `average` points. Raises ValueError for other shapes.
    """
    checks.floats("n h w", image=image)
    checks.floats(f"{len(image)} k", y=y, x=x)
    checks.same_type(image, y)
    checks.same_type(image, x)
    checks.divisible(average=average, **{"The number of rows": y.shape[1]})
    checks.divisible(average=average, **{"The number of columns": x.shape[1]})
    return _resample(image, y, x, average)


def _resample(image: Tensor, y: Tensor, x: Tensor, average: int) -> Tensor:
    def weights(at, size):
        hats = (1 - (at[..., None] - 0.5 - torch.arange(size, device=at.device)).abs()).clamp(min=0)
        return hats.unflatten(1, (-1, average)).mean(2)

    return weights(y, image.shape[1]) @ image @ weights(x, image.shape[2]).mT


@functools.cache
def _glyphs(source: str) -> tuple[Tensor, ...]:
    """Return MNIST's indices sorted by digit, each digit's start and count, and each ink's centre and longer side."""
    images, labels = data.mnist(source)
    low, high = boxes(data.to_pixels(images[:, 0]) > 51)  # ink is what is above 0.2
    count = labels.bincount(minlength=10)
    return labels.argsort(stable=True), count.cumsum(0) - count, count, (low + high) / 2, (high - low).amax(1)


def _opacity(source: str, digit: Tensor, draw: Tensor, centre: Tensor, side: Tensor, res: int) -> Tensor:
    """Return random glyphs of digits [n], `side` [n] long, centred at (y, x) [n, 2]: opacity [n, 1, res, res]."""
    order, start, count, middle, length = _glyphs(source)
    which = order[start[digit] + draw % count[digit]]
    canvas = (torch.arange(2 * res) + 0.5) * (16 / res)  # twice as fine as the pixels
    y, x = ((canvas - centre[..., None]) * (length[which] / side)[:, None, None] + middle[which, :, None]).unbind(1)
    return _resample((data.mnist(source)[0][which, 0] + 1) / 2, y, x, average=2)[:, None]


def render(
    attrs: dict[str, Tensor], generator: torch.Generator, glyphs: str = "train", res: int = 32
) -> tuple[Tensor, Tensor]:
    """Return scenes x [n, 3, res, res] in [-1, 1] with given attributes, and their opacity alpha [n, 1, res, res].

    x = 2 (paper (1 - alpha) + ink alpha) - 1, with random glyphs of MNIST's 'train' or 'test'. Jitter is uniform:
    centres by 1 pixel of 32, sizes by 5 %, RGB by 0.03. One generator state is one scene at every `res`: 16, 32, 64.
    Without r, d2 and c2 in `attrs` all scenes have one digit. Raises ValueError for other values of glyphs and res.
    """
    captions.require_attributes(attrs)
    checks.generator(generator)
    checks.choice(("train", "test"), glyphs=glyphs)
    checks.choice((16, 32, 64), res=res)
    n = len(attrs["d"])
    d, c, s, p, b, r, d2, c2 = (attrs.get(key, torch.full((n,), -1)) for key in KEYS)
    draws = torch.randint(1 << 31, (2, n), generator=generator)  # for a second digit in any case: r changes no draw
    jitter = 2 * torch.rand(2, n, 3, generator=generator) - 1
    shade = COLOUR_JITTER * (2 * torch.rand(3, n, 3, generator=generator) - 1)
    shift = torch.where(r[:, None] < 0, TOWARDS[p] * OFFSETS[s, None], BESIDE[r] * OFFSETS[0])
    centres = 16 + torch.stack([shift, -shift]) + CENTRE_JITTER * jitter[..., :2]
    sides = SIDES[s] * (1 + SIZE_JITTER * jitter[..., 2])
    two = r >= 0
    alpha = _opacity(glyphs, d, draws[0], centres[0], sides[0], res)
    x = torch.lerp((PAPERS[b] + shade[2])[..., None, None], (INKS[c] + shade[0])[..., None, None], alpha)
    over = _opacity(glyphs, d2[two], draws[1, two], centres[1, two], sides[1, two], res)
    x[two] = torch.lerp(x[two], (INKS[c2] + shade[1])[two, :, None, None], over)
    alpha[two] = alpha[two].maximum(over)
    return 2 * x - 1, alpha


class Batch(NamedTuple):
    """Scenes [n, 3, res, res] in [-1, 1], caption ids [n, 20], captions, attributes, opacity [n, 1, res, res]."""

    x: Tensor
    tokens: Tensor
    captions: list[str]
    attrs: dict[str, Tensor]
    alpha: Tensor


@dataclass(frozen=True)
class Scenes:
    """A distribution of captioned scenes: all scenes of a split alike, a share `two` of them with two digits.

    `glyphs` and `res` are as in `render`, `drop` and `style` as in `captions.write`. Raises ValueError for values that
    make no sense.
    """

    split: str = "seen"
    glyphs: str = "train"
    two: float = 0.0
    drop: float = 0.3
    style: str = "plain"
    res: int = 32
    vocabulary: str = field(default=captions.VOCABULARY_HASH, init=False, repr=False)  # belongs to a run's key

    def __post_init__(self):
        checks.number(0, 1, **{"The share of two-digit scenes, two,": self.two})
        self.batch(1, device.generator(0))  # whatever else is wrong is said here, not in the middle of training

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the attributes of n independent scenes."""
        checks.whole(n=n)
        checks.generator(generator)

        def rows(table):
            return table[torch.randint(len(table), (n,), generator=generator)]

        chosen = rows(one_digit(self.split))
        if self.two:
            chosen = torch.where(torch.rand(n, 1, generator=generator) < self.two, rows(two_digits(self.split)), chosen)
        return dict(zip(KEYS, chosen.T.contiguous(), strict=True))

    def batch(self, n: int, generator: torch.Generator) -> Batch:
        """Return n independent scenes with captions."""
        attrs = self.draw(n, generator)
        x, alpha = render(attrs, generator, self.glyphs, self.res)
        texts = captions.write(attrs, generator, self.drop, self.style)
        return Batch(x, captions.tokenize(texts), texts, attrs, alpha)


@functools.cache
def evaluation(split: str, two: bool = False, res: int = 32) -> Batch:
    """Return the 512 scenes of a split, of one digit or two, that scores are reported on: test glyphs, exact captions.

    Shared by all callers: do not change them in place. Raises ValueError as `one_digit` and `two_digits` do.
    """
    checks.flag(two=two)
    stream = device.generator(device.derived_seed(0, "evaluation", split, two))  # no training seed gives this one
    return Scenes(split, "test", float(two), drop=0.0, res=res).batch(512, stream)


def control(alpha: Tensor, kind: str) -> Tensor:
    """Return control maps [n, 1, h, w] in [0, 1] of opacities [n, 1, h, w], which show shape and place but no colour.

    'edges': largest minus smallest alpha of 3x3 pixels; 'mask': alpha > 0.5; 'box': the filled box around all of the
    mask. Raises ValueError for another kind or shape.
    """
    checks.floats("n 1 h w", alpha=alpha)
    checks.finite(alpha=alpha)
    checks.choice(("edges", "mask", "box"), kind=kind)
    if kind == "edges":
        return F.max_pool2d(alpha, 3, 1, 1) + F.max_pool2d(-alpha, 3, 1, 1)
    mask = alpha > 0.5
    if kind == "box":
        below, right = (mask.any(dim, keepdim=True).int() for dim in (3, 2))
        spans = [(s.cummax(dim)[0] & s.flip(dim).cummax(dim)[0].flip(dim)) for s, dim in ((below, 2), (right, 3))]
        return (spans[0] & spans[1]).float()
    return mask.float()

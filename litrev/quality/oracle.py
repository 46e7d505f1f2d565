"""The oracle of captioned digits reads attributes back from pixels, in closed form but for the digit, and scores them.

The digit is named by a network that `tools/train_oracle.py` trained and that is shipped: nothing is trained here. All
runs on the CPU. Score final images: the oracle bears noise of standard deviation 0.1, and above 0.2 it is lost.
"""

import functools
import hashlib
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from litrev import checks, device, paths
from litrev.data import captions, scenes
from litrev.data.captions import ATTRIBUTES
from litrev.quality import metrics
from litrev.quality.classifier import in_batches

FILE = "scenes_oracle.safetensors"
VALID = 0.03  # rms below which an image is made of one ink on one paper


def network() -> nn.Sequential:
    """Return the untrained network from a digit's crop [n, 1, 28, 28] by way of 128 features to 10 logits."""
    blocks = [(nn.Conv2d(*channels, 3, padding=1), nn.ReLU()) for channels in ((1, 32), (32, 32), (32, 64))]
    body = *blocks[0], *blocks[1], nn.MaxPool2d(2), *blocks[2], nn.MaxPool2d(2), nn.Flatten()
    net = nn.Sequential(*body, nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))
    net.register_buffer("mean", torch.zeros(128))  # moments of the features of scenes of test glyphs
    net.register_buffer("cov", torch.eye(128))
    return net


@functools.cache
def load() -> nn.Sequential:
    """Return the shipped network; FileNotFoundError or RuntimeError if it is missing or damaged, with the remedy."""
    file = paths.data_dir() / FILE
    facts = file.with_suffix(".json")
    remedy = f"restore it with: git checkout -- data/{FILE} data/{facts.name}"
    if not (file.is_file() and facts.is_file()):
        raise FileNotFoundError(f"{file} or the JSON file beside it is missing; {remedy}")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() not in facts.read_text():
        raise RuntimeError(f"{file} is damaged (its sha256 is not the one in the JSON file beside it); {remedy}")
    net = network()
    net.load_state_dict({name: tensor.float() for name, tensor in safetensors.torch.load(content).items()})
    return net.eval().requires_grad_(False)


class Reading(NamedTuple):
    """What is on n images: attributes (-1 where there is no ink), opacity [n, 1, 32, 32], residual [n], crops."""

    attrs: dict[str, Tensor]
    alpha: Tensor
    rms: Tensor
    crops: Tensor


def _pixels_and_paper(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return images in [0, 1] on the CPU and their background [n, 3], the lower median of a border of 2 pixels."""
    checks.images("n 3 32 32", **{"The images": x})
    pixels = (x.detach().cpu().float().clamp(-1, 1) + 1) / 2
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    return pixels, pixels[:, :, border].median(-1).values


def read(x: Tensor) -> Reading:
    """Return all but the digit of one-digit images [n, 3, 32, 32] in [-1, 1], and the crop [n, 1, 28, 28] of the digit.

    With u = pixel - paper and v = ink - paper, alpha = clip(<u, v> / |v|^2, 0, 1), and the colour is that of the ink
    with the least mean of |u - alpha v|^2 = 3 rms^2. Size and position are those of the box where alpha > 0.4. Raises
    ValueError for another shape and values that are not finite.
    """
    pixels, paper = _pixels_and_paper(x)
    over, ink = (pixels - paper[..., None, None]).flatten(2), scenes.INKS - paper[:, None]  # [n, 3, 1024], [n, 6, 3]
    inner, square = ink @ over, ink.square().sum(2, keepdim=True).clamp(min=1e-6)
    alphas = (inner / square).clamp(0, 1)
    error, c = (over.square().sum(1, keepdim=True) - alphas * (2 * inner - alphas * square)).mean(2).min(1)
    alpha = alphas[torch.arange(len(x)), c].unflatten(1, (32, 32))
    low, high = scenes.boxes(alpha > 0.4)
    centre, side = (low + high) / 2, (high - low).amax(1)
    s = (side > scenes.SIDES.mean()).long()
    anchors = 16 + scenes.TOWARDS * scenes.OFFSETS[s, None, None]
    p = (centre[:, None] - anchors).square().sum(2).argmin(1)
    attrs = {"c": c, "s": s, "p": p, "b": torch.cdist(paper, scenes.PAPERS).argmin(1)}
    found = (alpha > 0.4).flatten(1).any(1)
    rows, columns = (centre[..., None] + (torch.arange(28) - 13.5) * (side / 20)[:, None, None]).unbind(1)
    crops = scenes.resample(alpha, rows, columns)[:, None]  # 20 pixels of the 28 are ink
    rms = (error / 3).clamp(min=0).sqrt()
    return Reading({key: value.where(found, -1) for key, value in attrs.items()}, alpha[:, None], rms, crops)


@dataclass(frozen=True)
class Oracle:
    """What reads and scores scenes, by default with the shipped network, which is loaded and not trained."""

    net: nn.Sequential = field(default_factory=load)

    def __post_init__(self):
        checks.kind(nn.Module, "a network, such as oracle.load()", net=self.net)

    def decode(self, x: Tensor) -> Reading:
        """Return what is on one-digit images [n, 3, 32, 32] in [-1, 1], with the digit; errors are those of `read`."""
        checks.images("n 3 32 32", **{"The images": x})
        attrs, *others = zip(*map(read, x.split(250)), strict=True)
        attrs = {key: torch.cat([part[key] for part in attrs]) for key in attrs[0]}
        alpha, rms, crops = map(torch.cat, others)
        d = in_batches(self.net, crops).argmax(1).where(attrs["c"] >= 0, -1)
        return Reading({"d": d} | attrs, alpha, rms, crops)

    def score(
        self, x: Tensor, attrs: dict[str, Tensor], mentioned: dict[str, Tensor] | None = None
    ) -> dict[str, float]:
        """Return how well one-digit images [n, 3, 32, 32] show their attributes.

        Shares of images with the right d, c, s, p and b, each among the images whose caption names it (`mentioned`, as
        from `captions.mentioned`, else all; NaN for none), with `all` that is named right, and `valid` (rms < 0.03);
        and the median `rms`. Raises ValueError for two-digit scenes.
        """
        self._same_n(x, attrs)
        if "r" in attrs and (attrs["r"] >= 0).any():
            raise ValueError("Oracle.score reads scenes of one digit: use score_two for those of two.")
        if mentioned is not None and (not isinstance(mentioned, dict) or set(mentioned) != set(ATTRIBUTES)):
            raise ValueError(f"mentioned must be what captions.mentioned returns, not {checks.shown(mentioned)}.")
        for key, fact in (mentioned or {}).items():
            if not isinstance(fact, Tensor) or fact.dtype != torch.bool or fact.shape != (len(x),):
                raise ValueError(f"mentioned[{key!r}] must be True and False for each of {len(x)} images.")
        found = self.decode(x)
        right = {key: found.attrs[key] == attrs[key] for key in ATTRIBUTES}
        named = mentioned or {key: torch.ones_like(right[key]) for key in right}
        facts = {key: right[key][named[key]] for key in right}
        facts |= {"all": torch.stack([right[key] | ~named[key] for key in right]).all(0), "valid": found.rms < VALID}
        return {key: fact.float().mean().item() for key, fact in facts.items()} | {"rms": found.rms.median().item()}

    def _same_n(self, x: Tensor, attrs: dict[str, Tensor]) -> None:
        checks.images("n 3 32 32", **{"The images": x})
        captions.require_attributes(attrs, len(x))

    def score_two(self, x: Tensor, attrs: dict[str, Tensor]) -> dict[str, float]:
        """Return how well two-digit images [n, 3, 32, 32] show their attributes, each digit in the half that r says.

        Shares of digits with the right d and c, of images with the right b, with `all` digits and colours right, and
        with both colours right but `swapped`. Raises ValueError for one-digit scenes.
        """
        self._same_n(x, attrs)
        if "r" not in attrs or (attrs["r"] < 0).any():
            raise ValueError("Oracle.score_two reads scenes of two digits: use score for those of one.")
        pixels, paper = _pixels_and_paper(x)
        r, late = attrs["r"][:, None, None, None], torch.arange(32) >= 16
        first = torch.where(r < 2, late, late[:, None]) == (
            r % 2 == 1
        )  # 'right of' and 'below': it is in the late half
        halves = (2 * pixels.where(half, paper[..., None, None]) - 1 for half in (first, ~first))
        one, two = (self.decode(half).attrs for half in halves)
        d = torch.stack([one["d"] == attrs["d"], two["d"] == attrs["d2"]])
        c = torch.stack([one["c"] == attrs["c"], two["c"] == attrs["c2"]])
        swapped = (one["c"] == attrs["c2"]) & (two["c"] == attrs["c"])
        facts = {"d": d, "c": c, "b": one["b"] == attrs["b"], "all": (d & c).all(0), "swapped": swapped}
        return {key: fact.float().mean().item() for key, fact in facts.items()}

    def features(self, x: Tensor) -> Tensor:
        """Return features [n, 128] of the glyphs on images [n, 3, 32, 32]: blind to colour, size and position."""
        return in_batches(self.net[:-1], self.decode(x).crops)

    def glyph_distance(self, x: Tensor) -> metrics.Distance:
        """Return the Frechet distance of the glyphs on images [n, 3, 32, 32] to those of 10,000 scenes of test glyphs.

        Its floor is what n scenes of training glyphs score. Raises ValueError as `read` does, and for n below 2.
        """
        checks.images("n 3 32 32", **{"The images": x})
        if len(x) < 2:
            raise ValueError("The Frechet distance needs at least 2 images.")
        return metrics.Distance(_distance(self, x), len(x), _floor(self, len(x)))


def _distance(oracle: Oracle, x: Tensor) -> float:
    features = oracle.features(x).double()
    return metrics.gaussian_frechet(features.mean(0), features.T.cov(), oracle.net.mean, oracle.net.cov)


@functools.cache
def _floor(oracle: Oracle, n: int) -> float:
    streams = [device.generator(device.derived_seed(seed, "floor")) for seed in range(3)]
    return sum(_distance(oracle, scenes.Scenes().batch(n, stream).x) for stream in streams) / len(streams)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union [n] of the ink (alpha > 0.5) of opacities [n, 1, h, w]; 0 if there is none."""
    checks.floats("n 1 h w", a=a, b=b)
    checks.alike(a=a, b=b)
    checks.finite(a=a, b=b)
    a, b = a.flatten(1) > 0.5, b.flatten(1) > 0.5
    return (a & b).sum(1) / (a | b).sum(1).clamp(min=1)


def diversity(values: Tensor, law: Tensor) -> dict[str, float]:
    """Return how far decoded values [n] of an unmentioned attribute are from its exact law [k] (`scenes.allowed`).

    With the shares q of the values that the law allows: `kl` = sum q log(q / law) in nats; `bias` = (k' - 1) / 2n, its
    mean for n samples of the law itself with k' possible values; `coverage` = exp(H(q) - H(law)), 1 if q is the law.
    `outside` is the share of values that the law forbids or that could not be read. Raises ValueError if all are.
    """
    checks.floats("k", law=law)
    if not (law >= 0).all() or not abs(float(law.sum()) - 1) < 1e-3:
        raise ValueError("law must be probabilities [k] that sum to 1, as scenes.allowed gives them.")
    if not isinstance(values, Tensor) or values.dtype != torch.int64 or values.ndim != 1 or not len(values):
        raise ValueError(f"values must be whole numbers (int64) [n], not {checks.shown(values)}.")
    if values.max() >= len(law):
        raise ValueError(f"values must lie below {len(law)}, the length of the law; the largest is {values.max()}.")
    counts = values[values >= 0].bincount(minlength=len(law)).double() * (law > 0)
    n, k = counts.sum().item(), (law > 0).sum().item()
    if not n:
        raise ValueError("The law allows none of the values: there is no spread to measure.")
    q, law = (counts / n)[law > 0], law[law > 0].double()
    entropy = -torch.special.xlogy(q, q).sum().item()
    cross = -(q * law.log()).sum().item()
    coverage = math.exp(entropy + (law * law.log()).sum().item())
    return {"kl": cross - entropy, "bias": (k - 1) / (2 * n), "coverage": coverage, "outside": 1 - n / len(values)}

"""The CLIP of captioned scenes that the notebooks on text and images share, trained once, properly, for all of them."""

import torch

from lab import runs
from lab.training import fit
from litrev.data import captions, scenes
from litrev.nets.clip import CLIP, contrastive_loss, scene_clip
from litrev.presets import preset

TWO, DROPPED = 0.3, 0.3  # the share of scenes with two digits, and of the attributes that a caption leaves out
PROMPTS = {"d": "a {0}", "c": "a {0} {1}", "s": "a {0} {1}", "p": "a {1} at the {0}", "b": "a {1} on a {0} background"}


def clip_of_scenes() -> runs.Run:
    """The base "CLIP of scenes", 0.67M parameters, whose common space has 64 dimensions; `run.net` is a `clip.CLIP`.

    The shipped run or this machine's; where there is neither, it is trained by `pair_loss`, 1,500 steps of 256.
    """
    return fit(
        clip_network,
        pair_loss,
        pairs,
        name="base_clip_of_scenes",
        steps=preset(laptop=1500, smoke=4),
        batch=preset(laptop=256, smoke=8),
        lr=6e-3,
        optimiser="muon",
        expect="loss about 0.41 after about seven minutes of a fast CPU core",
    )


def clip_network() -> CLIP:
    """The network of the base "CLIP of scenes"."""
    return scene_clip(channels=32)


def pairs(n: int, generator: torch.Generator):
    """(x [n, 3, 32, 32], ids [n, 20]) of scenes of the split 'seen', of one digit and of two, with partial captions."""
    batch = scenes.Scenes(two=TWO, drop=DROPPED).batch(n, generator)
    return batch.x, batch.tokens


def pair_loss(net, batch, generator):
    """The contrastive loss of a batch (x [B, 3, 32, 32], ids [B, 20]). CLIP, fig. 3."""
    return contrastive_loss(net(*batch))


def attribute_prompts(attribute: str) -> torch.Tensor:
    """ids [k, captions, 20] that name each of the k values of an attribute, for `CLIP.class_vectors`: "a seven" for a
    digit, and for what has no noun of its own one caption with each of the ten digits."""
    texts = [
        list(dict.fromkeys(PROMPTS[attribute].format(value, digit) for digit in captions.DIGITS))
        for value in captions.ATTRIBUTES[attribute]
    ]
    return torch.stack([captions.tokenize(row) for row in texts])


@torch.no_grad()
def zero_shot(net: CLIP, x: torch.Tensor, attribute: str) -> torch.Tensor:
    """The value [n] of an attribute that a CLIP reads in scenes x [n, 3, 32, 32]: the nearest of its prompts."""
    where = net.log_scale.device
    rows = net.class_vectors(attribute_prompts(attribute).to(where))
    return torch.cat([(net.image_vectors(part) @ rows.T).argmax(1) for part in x.to(where).split(256)]).cpu()

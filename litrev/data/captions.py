"""The language of captioned digits: the words for a scene's attributes, its captions, and a tokenizer of 38 ids."""

import hashlib

import torch
from torch import Tensor

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES = ("small", "large")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "middle")
BACKGROUNDS = ("black", "navy", "maroon")
RELATIONS = ("left of", "right of", "above", "below")
ATTRIBUTES = {"d": DIGITS, "c": COLOURS, "s": SIZES, "p": POSITIONS, "b": BACKGROUNDS}

_PLAIN = "a picture of the at on background left right above below top bottom middle"
# <eot> has the highest id: CLIP's code finds the end of a text by argmax over its ids.
VOCABULARY = ("<pad>", "<sot>", *_PLAIN.split(), *SIZES, *COLOURS, *BACKGROUNDS, *DIGITS, "<eot>")
VOCABULARY_HASH = hashlib.sha256(" ".join(VOCABULARY).encode()).hexdigest()[:16]  # for the key of a trained model
LENGTH = 20
_ID = {word: index for index, word in enumerate(VOCABULARY)}
PAD, SOT, EOT = _ID["<pad>"], _ID["<sot>"], _ID["<eot>"]


def sentence(d, c, s, p, b, r=-1, d2=-1, c2=-1, keep: str = "cspb", prefix: bool = False) -> str:
    """Return the caption of one scene, from the indices of its attributes; what is not in `keep` stays unsaid.

    One digit (r < 0): "a large red seven at the top left on a navy background"; two: "a red two left of a blue six".
    """

    def thing(digit, colour, size=""):
        return "a", size, COLOURS[colour] * ("c" in keep), DIGITS[digit]

    one = *thing(d, c, SIZES[s] * ("s" in keep)), f"at the {POSITIONS[p]}" * ("p" in keep)
    scene = one if r < 0 else (*thing(d, c), RELATIONS[r], *thing(d2, c2))
    words = "a picture of" * prefix, *scene, f"on a {BACKGROUNDS[b]} background" * ("b" in keep)
    return " ".join(filter(None, words))


def write(attrs: dict[str, Tensor], generator: torch.Generator, drop: float = 0.3, style: str = "plain") -> list[str]:
    """Return a caption for each scene of `attrs` (index tensors [n]), every optional attribute dropped at random.

    Colour, size, position and background are left out independently with probability `drop`, whatever the image; the
    digit is always named, and two digits have both colours or none. style "varied" begins half of the captions with
    "a picture of". Raises ValueError for a drop outside [0, 1] or another style.
    """
    if not 0 <= drop <= 1 or style not in ("plain", "varied"):
        raise ValueError(f"Captions need drop in [0, 1] and style 'plain' or 'varied', not {drop} and {style!r}.")
    chances = torch.rand(len(attrs["d"]), 5, generator=generator)
    kept, begins = (chances[:, :4] >= drop).tolist(), ((chances[:, 4] < 0.5) & (style == "varied")).tolist()
    keeps = ("".join(key for key, keep in zip("cspb", row, strict=True) if keep) for row in kept)
    scenes = zip(*(value.tolist() for value in attrs.values()), strict=True)
    texts = zip(scenes, keeps, begins, strict=True)
    return [sentence(**dict(zip(attrs, scene, strict=True)), keep=k, prefix=begin) for scene, k, begin in texts]


def tokenize(captions: list[str]) -> Tensor:
    """Return the ids of captions, int64 [n, 20]: <sot>, the words, <eot>, then <pad>; `tokens != PAD` is the mask.

    Raises ValueError for a word that is not in the vocabulary and for more than 18 words.
    """
    rows = [caption.split() for caption in captions]
    if unknown := {word for words in rows for word in words} - set(_ID):
        raise ValueError(f"The vocabulary has no {min(unknown)!r}: use the words {', '.join(VOCABULARY)}.")
    if long := [words for words in rows if len(words) > LENGTH - 2]:
        raise ValueError(f"A caption has at most {LENGTH - 2} words: shorten {' '.join(long[0])!r}.")
    ids = [[SOT, *(_ID[word] for word in words), EOT] for words in rows]
    return torch.tensor([row + [PAD] * (LENGTH - len(row)) for row in ids], dtype=torch.int64).reshape(-1, LENGTH)


def detokenize(tokens: Tensor) -> list[str]:
    """Return the captions of ids [n, 20], without <pad>, <sot> and <eot>; it undoes `tokenize`."""
    return [" ".join(VOCABULARY[i] for i in row if i not in (PAD, SOT, EOT)) for row in tokens.tolist()]


def null_tokens(kind: str = "pad") -> Tensor:
    """Return the ids [20] of "no caption": kind 'pad' is nothing but <pad>, 'empty' the empty text <sot><eot>.

    Sample with the one that you trained with. Raises ValueError for another kind. Source: GLIDE (Nichol et al. 2021,
    section 2.3) has the empty sequence, Stable Diffusion the empty text.
    """
    if kind not in ("pad", "empty"):
        raise ValueError(f"There is no null caption {kind!r}: ask for 'pad' or 'empty'.")
    return tokenize([""])[0] if kind == "empty" else torch.full((LENGTH,), PAD)


def mentioned(tokens: Tensor) -> dict[str, Tensor]:
    """Return for each of the five attributes which one-digit captions, ids [n, 20], name it: bool [n]."""
    marks = ATTRIBUTES | {"p": ("at",)}  # a position's own words are more than one
    return {
        key: torch.isin(tokens.cpu(), torch.tensor([_ID[word] for word in words])).any(1)
        for key, words in marks.items()
    }

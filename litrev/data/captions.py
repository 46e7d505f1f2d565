"""The language of captioned digits: the words for a scene's attributes, its captions, and a tokenizer of 38 ids."""

import hashlib

import torch
from torch import Tensor

from litrev import checks
from litrev.checks import require_indices

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES = ("small", "large")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "middle")
BACKGROUNDS = ("black", "navy", "maroon")
RELATIONS = ("left of", "right of", "above", "below")
ATTRIBUTES = {"d": DIGITS, "c": COLOURS, "s": SIZES, "p": POSITIONS, "b": BACKGROUNDS}
_SECOND = {"r": RELATIONS, "d2": DIGITS, "c2": COLOURS}  # of a scene of two digits; -1 in one of one

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
    Raises ValueError for an index that names nothing.
    """
    said = (("d", d, DIGITS), ("c", c, COLOURS), ("s", s, SIZES), ("p", p, POSITIONS), ("b", b, BACKGROUNDS))
    more = (("r", r, RELATIONS), ("d2", d2, DIGITS), ("c2", c2, COLOURS)) if r != -1 else ()
    for key, index, words in (*said, *more):
        kind_fits = isinstance(index, int) and not isinstance(index, bool)
        if not kind_fits or index not in range(len(words)) and not (key == "p" and more):
            raise ValueError(f"{key} must be an index 0..{len(words) - 1}, not {checks.shown(index)}.")

    checks.flag(prefix=prefix)
    for letter in keep if isinstance(keep, str) else (keep,):
        checks.choice(tuple("cspb"), **{"What is in keep": letter})

    def thing(digit, colour, size=""):
        return "a", size, COLOURS[colour] * ("c" in keep), DIGITS[digit]

    one = *thing(d, c, SIZES[s] * ("s" in keep)), f"at the {POSITIONS[p]}" * ("p" in keep)
    scene = one if r < 0 else (*thing(d, c), RELATIONS[r], *thing(d2, c2))
    words = "a picture of" * prefix, *scene, f"on a {BACKGROUNDS[b]} background" * ("b" in keep)
    return " ".join(filter(None, words))


def require_attributes(attrs: dict[str, Tensor], n: int | None = None) -> None:
    """Raise ValueError unless `attrs` are the attributes of n scenes: index tensors [n], of one digit or of two."""
    keys = set(attrs) if isinstance(attrs, dict) else set()
    if not set(ATTRIBUTES) <= keys <= {*ATTRIBUTES, *_SECOND}:
        raise ValueError(f"attrs must be attributes as Scenes().draw returns them, not {checks.shown(attrs)}.")
    n = len(attrs["d"]) if n is None and isinstance(attrs["d"], Tensor) and attrs["d"].ndim else n or 1
    for key, value in attrs.items():
        shifted = value + 1 if key in ("p", *_SECOND) and isinstance(value, Tensor) else value  # -1: there is none
        require_indices(
            f"Attribute {key}", shifted, (n,), len(ATTRIBUTES.get(key) or _SECOND[key]) + (shifted is not value)
        )


def write(attrs: dict[str, Tensor], generator: torch.Generator, drop: float = 0.3, style: str = "plain") -> list[str]:
    """Return a caption for each scene of `attrs` (index tensors [n]), every optional attribute dropped at random.

    Colour, size, position and background are left out independently with probability `drop`, whatever the image; the
    digit is always named, and two digits have both colours or none. style "varied" begins half of the captions with
    "a picture of". Raises ValueError for a drop outside [0, 1] or another style.
    """
    require_attributes(attrs)
    checks.generator(generator)
    checks.number(0, 1, drop=drop)
    checks.choice(("plain", "varied"), style=style)
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
    if not isinstance(captions, list | tuple) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"captions must be a list of texts, such as ['a red two'], not {checks.shown(captions)}.")
    rows = [caption.split() for caption in captions]
    if unknown := {word for words in rows for word in words} - set(_ID):
        raise ValueError(f"The vocabulary has no {min(unknown)!r}: use the words {', '.join(VOCABULARY)}.")
    if long := [words for words in rows if len(words) > LENGTH - 2]:
        raise ValueError(f"A caption has at most {LENGTH - 2} words: shorten {' '.join(long[0])!r}.")
    ids = [[SOT, *(_ID[word] for word in words), EOT] for words in rows]
    return torch.tensor([row + [PAD] * (LENGTH - len(row)) for row in ids], dtype=torch.int64).reshape(-1, LENGTH)


def detokenize(tokens: Tensor) -> list[str]:
    """Return the captions of ids [n, 20], without <pad>, <sot> and <eot>; it undoes `tokenize`."""
    _require_tokens(tokens)
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
    _require_tokens(tokens)
    marks = ATTRIBUTES | {"p": ("at",)}  # a position's own words are more than one
    return {
        key: torch.isin(tokens.cpu(), torch.tensor([_ID[word] for word in words])).any(1)
        for key, words in marks.items()
    }


def _require_tokens(tokens: Tensor) -> None:
    n = len(tokens) if isinstance(tokens, Tensor) and tokens.ndim else 1
    require_indices("Text", tokens, (n, LENGTH), len(VOCABULARY))

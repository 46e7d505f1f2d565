"""Captions follow their grammar, are dropped at the stated rates, and survive the tokenizer."""

import re

import pytest
import torch

from litrev.data import captions, scenes
from litrev.data.captions import (
    BACKGROUNDS,
    COLOURS,
    DIGITS,
    EOT,
    LENGTH,
    PAD,
    POSITIONS,
    RELATIONS,
    SIZES,
    SOT,
    VOCABULARY,
)
from litrev.device import generator

THING = rf"a (({'|'.join(COLOURS)}) )?({'|'.join(DIGITS)})"
ONE = rf"a (({'|'.join(SIZES)}) )?{THING[2:]}( at the ({'|'.join(POSITIONS)}))?"
GRAMMAR = re.compile(
    rf"(a picture of )?({ONE}|{THING} ({'|'.join(RELATIONS)}) {THING})( on a ({'|'.join(BACKGROUNDS)}) background)?"
)


def drawn(n, two=0.5, seed=0):
    return scenes.Scenes(two=two).draw(n, generator(seed))


@pytest.mark.parametrize(
    "expected, scene, how",
    [
        ("a large red seven at the top left on a navy background", (7, 0, 1, 0, 1), {}),
        ("a picture of a small cyan zero at the middle on a black background", (0, 5, 0, 4, 0), {"prefix": True}),
        ("a purple one", (1, 4, 0, 1, 2), {"keep": "c"}),
        ("a four at the bottom right", (4, 1, 0, 3, 2), {"keep": "p"}),
        ("a eight", (8, 1, 0, 3, 2), {"keep": ""}),
        ("a red three left of a blue seven", (3, 0, 0, -1, 1, 0, 7, 2), {"keep": "csp"}),
        ("a three above a seven on a maroon background", (3, 0, 0, -1, 2, 2, 7, 2), {"keep": "spb"}),
    ],
)
def test_examples(expected, scene, how):
    assert captions.sentence(*scene, **how) == expected


def test_every_caption_follows_the_grammar():
    written = captions.write(drawn(3000), generator(1), style="varied")
    assert all(map(GRAMMAR.fullmatch, written))
    assert 1400 < sum(text.startswith("a picture of") for text in written) < 1600
    assert 1400 < sum(any(f" {relation} " in text for relation in RELATIONS) for text in written) < 1600
    assert not GRAMMAR.fullmatch("a red small seven") and not GRAMMAR.fullmatch("a red seven left of a")


def test_vocabulary_is_the_one_that_models_are_trained_with():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 38
    assert (PAD, SOT, EOT) == (0, 1, 37) and max(captions.tokenize(["a seven"])[0]) == EOT
    places = {"a": 2, "the": 5, "left": 9, "middle": 15, "small": 16, "red": 18, "cyan": 23, "black": 24, "zero": 27}
    assert {word: VOCABULARY.index(word) for word in places} == places
    assert captions.VOCABULARY_HASH == "725d1b046ce68e55"


def test_ids():
    (row,) = captions.tokenize(["a large red seven at the top left on a navy background"])
    assert row.tolist() == [1, 2, 17, 18, 34, 6, 5, 13, 9, 7, 2, 25, 8, 37] + [0] * 6
    assert row.dtype == torch.int64 and captions.tokenize([]).shape == (0, LENGTH)


def test_longest_captions_fit():
    one, two = (captions.sentence(7, 0, 1, 0, 1, *more, prefix=True) for more in ((), (0, 6, 2)))
    assert [(captions.tokenize([text]) != PAD).sum().item() for text in (one, two)] == [17, 17]
    written = captions.write(drawn(2000), generator(0), drop=0, style="varied")
    assert (captions.tokenize(written) != PAD).sum(1).max() == 17


def test_tokens_and_captions_are_inverses_and_all_poolings_agree():
    written = captions.write(drawn(2000), generator(2), style="varied")
    tokens = captions.tokenize(written)
    assert captions.detokenize(tokens) == written
    assert torch.equal(tokens.argmax(1), (tokens == EOT).int().argmax(1))  # CLIP's pooling finds the first <eot>
    assert torch.equal((tokens != PAD).sum(1) - 1, tokens.argmax(1))
    assert (tokens[:, 0] == SOT).all()


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
def test_optional_attributes_are_dropped_independently(drop):
    n, attrs = 8000, drawn(8000, two=0)
    named = captions.mentioned(captions.tokenize(captions.write(attrs, generator(3), drop)))
    assert named["d"].all()
    kept = torch.stack([named[key] for key in "cspb"]).double()
    spread = 4 * (drop * (1 - drop) / n) ** 0.5
    assert ((kept.mean(1) - (1 - drop)).abs() <= spread).all()
    if spread:  # no correlation between attributes, nor with what is on the image
        held = torch.cat([kept, torch.stack([attrs[key] for key in "dcspb"]).double()])
        correlation = held.corrcoef()[:4].fill_diagonal_(0)
        assert correlation.abs().max() < 4 / n**0.5


def test_mentioned_is_what_was_said():
    scene = (3, 0, 1, 0, 1)
    for keep in ("", "c", "sp", "cspb", "b"):
        tokens = captions.tokenize([captions.sentence(*scene, keep=keep)])
        assert {key for key, said in captions.mentioned(tokens).items() if said} == {"d", *keep}


def test_two_digits_have_both_colours_or_none():
    written = captions.write(drawn(2000, two=1), generator(4))
    colours = [sum(word in COLOURS for word in text.split()) for text in written]
    assert set(colours) == {0, 2} and 0.6 < sum(colours) / 4000 < 0.8


def test_style_changes_the_prefix_alone():
    attrs = drawn(500)
    plain, varied = (captions.write(attrs, generator(5), style=style) for style in ("plain", "varied"))
    assert [text.removeprefix("a picture of ") for text in varied] == plain and varied != plain


def test_null_captions():
    assert captions.null_tokens().tolist() == captions.null_tokens("pad").tolist() == [PAD] * LENGTH
    assert captions.null_tokens("empty").tolist() == [SOT, EOT] + [PAD] * 18
    assert captions.detokenize(torch.stack([captions.null_tokens(), captions.null_tokens("empty")])) == ["", ""]


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda: captions.tokenize(["a red seven", "a pink seven"]), "no 'pink': use the words"),
        (lambda: captions.tokenize(["a " * 19]), "at most 18 words"),
        (lambda: captions.null_tokens("none"), "'pad' or 'empty'"),
        (lambda: captions.write(drawn(2), generator(0), drop=1.5), "drop must be a number at least 0 and at most 1"),
        (lambda: captions.write(drawn(2), generator(0), style="poem"), "'plain' or 'varied'"),
    ],
)
def test_wrong_input_is_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()

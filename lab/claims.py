"""The ledger of claims: what a paper says, what its notebook measured, and an honest verdict.

A notebook opens with `scoreboard`, records each claim where it is measured and ends with `table`. At the laptop preset
the ledger is kept in notebooks/claims/NAME.json, from which tools/pages.py makes the pages that show it; a smoke
run leaves it alone. A rule is one-sided, in the claim's own quantity, and written before its result is seen.
"""

from __future__ import annotations  # the pages are made by any Python from 3.9 on

import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from litrev import paths, presets

VERDICTS = {
    "reproduced": "what is claimed, or better, was measured by the rule",
    "partly": "it holds in part of the settings that the claim names",
    "contradicted": "the opposite was measured, beyond the spread",
    "inconclusive": "the spread or the sample size hides it; the note says what n would settle it",
    "out of reach": "it needs a scale that a laptop lacks; the note says why",
}
NEED_NOTE = ("inconclusive", "out of reach")
MARK = "\u2020"  # stands at a rule that was changed after its result was seen
HEADLINE, TEXT = 70, 240  # the most characters in a headline, and in any other text: tables must stay readable

_recorded: dict[str, dict[str, Claim]] = {}  # notebook -> id -> claim, for this process


@dataclass(frozen=True)
class Claim:
    """One claim of a paper beside what a notebook measured; the fields are the arguments of `record`."""

    id: str
    statement: str
    paper: str
    ours: dict[str, float]
    verdict: str
    headline: str
    rule: str
    changed: str = ""
    n: int | None = None
    seeds: int | None = None
    spread: dict[str, float] | None = None
    floor: float | None = None
    note: str = ""

    def __post_init__(self):
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"The verdict {self.verdict!r} is none of {list(VERDICTS)}: let claims.verdict(...) choose."
            )
        for field in ("id", "statement", "paper", "headline", "rule", "changed", "note"):
            text, limit = getattr(self, field), HEADLINE if field == "headline" else TEXT
            if not isinstance(text, str) or len(text) > limit or "\n" in text:
                raise ValueError(f"{self.id}: the {field} is one line of at most {limit} characters, not {text!r}.")
            if not text.strip() and field not in ("changed", "note"):
                raise ValueError(f"{self.id} has no {field}: give it in words (see help(claims.record)).")

    @property
    def sample(self) -> str:
        """On what it was measured, in words: 'n = 1,000, 3 seeds, real data 0.22', or nothing."""
        terms = [] if self.n is None else [f"n = {self.n:,}"]
        terms += [] if self.seeds is None else [f"{self.seeds} seeds"]
        return ", ".join(terms + ([] if self.floor is None else [f"real data {self.floor:.2g}"]))

    @property
    def measured(self) -> str:
        """All that was measured, in words: 'FD 1.23 +- 0.10 (n = 1,000, 3 seeds, real data 0.22)'."""
        spread = self.spread or {}
        figures = [
            f"{name} {_printed(value)}".strip() + (f" \u00b1 {_printed(spread[name], 2)}" if name in spread else "")
            for name, value in self.ours.items()
        ]
        return ", ".join(figures) + (f" ({self.sample})" if self.sample else "")

    @property
    def judged(self) -> str:
        """The verdict and its note: 'inconclusive: the spread is larger than the effect'."""
        return f"{self.verdict}: {self.note}" if self.note else self.verdict

    @property
    def marked_rule(self) -> str:
        """The rule, with a mark in front where it was changed after its result was seen."""
        return f"{MARK} {self.rule}" if self.changed else self.rule


def _printed(value: float, digits: int = 4) -> str:
    """A count exactly, another number to so many digits; both without a power of ten below ten million."""
    text = f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e+" in text and abs(value) < 1e7 else text


def verdict(
    *,
    reproduced: bool = False,
    partly: bool = False,
    contradicted: bool = False,
    inconclusive: bool = False,
    out_of_reach: bool = False,
) -> str:
    """Return the verdict of rules on measured numbers: the first that holds, in the order of the arguments.

    Better than claimed is `reproduced`; `contradicted` is a rule of its own (the opposite, beyond the spread), not what
    is left over. Raises ValueError when no rule holds: whatever can be measured must have a verdict.
    """
    rules = (reproduced, partly, contradicted, inconclusive, out_of_reach)
    for word, holds in zip(VERDICTS, rules):  # noqa: B905 - strict= is not in Python 3.9
        if holds:
            return word
    raise ValueError("No rule holds for what was measured: add the rule of the case that is left, or mend a NaN.")


def _figures(values: float | Mapping[str, float], what: str) -> dict[str, float]:
    """Return numbers by name: counts exactly, others to 4 digits, as the last ones would change a committed file."""
    named = dict(values) if isinstance(values, Mapping) else {"": values}
    if not named or not all(math.isfinite(value) for value in named.values()):
        raise ValueError(f"A claim records finite numbers, but {what} is {named}: look at the run that measured it.")
    return {name: value if isinstance(value, int) else float(f"{value:.4g}") for name, value in named.items()}


def _ledger(notebook: str) -> Path:
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", notebook):
        raise ValueError(f"{notebook!r} is no notebook's name: give it as in '03_ddpm'.")
    return paths.root() / "notebooks" / "claims" / f"{notebook}.json"


def _explained(claim: Claim) -> Claim:
    """Return the claim; raises ValueError where its verdict needs a note and has none."""
    if claim.verdict in NEED_NOTE and not claim.note:
        raise ValueError(f"{claim.id} is {claim.verdict!r} and has no note: {VERDICTS[claim.verdict].split('; ')[1]}.")
    return claim


def read(file: Path) -> list[Claim]:
    """Return the claims of a ledger file, in order; raises RuntimeError with the remedy when it is damaged."""
    try:
        return [_explained(Claim(**entry)) for entry in json.loads(file.read_text("utf-8"))["claims"]]
    except (ValueError, TypeError, KeyError) as problem:
        raise RuntimeError(
            f"{file} is damaged: restore it with git checkout, or delete it and run the notebook ({problem})."
        ) from None


def _stored(notebook: str) -> list[Claim]:
    file = _ledger(notebook)
    return read(file) if file.is_file() else []


def _claims(notebook: str) -> dict[str, Claim]:
    """Return the claims that this process knows of, beginning with those on disk (laptop preset only)."""
    if notebook not in _recorded:
        on_disk = _stored(notebook) if presets.name() == "laptop" else []
        _recorded[notebook] = {claim.id: claim for claim in on_disk}
    return _recorded[notebook]


def _natural(claim: Claim) -> list:
    """Sort key under which E2 comes before E10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", claim.id) if part]


def record(
    notebook: str,
    id: str,
    statement: str,
    paper: str,
    ours: float | Mapping[str, float],
    verdict: str,
    *,
    headline: str,
    rule: str,
    changed: str = "",
    n: int | None = None,
    seeds: int | None = None,
    spread: float | Mapping[str, float] | None = None,
    floor: float | None = None,
    note: str = "",
) -> None:
    """Record the claim `id` of `notebook` ('03_ddpm'): its statement, the paper's figure, ours, and the verdict.

    `headline` is one pair of figures ("FD 27.6 against 41.1", at most 70 characters), `rule` the one-sided rule as it
    was written before the result; where it was changed afterwards, `changed` says how and why. Take `verdict` from the
    function of that name. `ours` is a number or several by name, with a `spread` (standard deviation over `seeds`) of
    the same form; `n` samples and the `floor` of real data go with distances. A `note` belongs to the verdict:
    "inconclusive" and "out of reach" need one (at the laptop preset, where the ledger is kept). A claim of the same id
    is replaced. Raises ValueError for a name, text, verdict or number that cannot stand.
    """
    figures = _figures(ours, "ours")
    spreads = None if spread is None else _figures(spread, "the spread")
    if spreads and not spreads.keys() <= figures.keys():
        raise ValueError(f"The spread names {sorted(spreads)}, but ours names {sorted(figures)}: use the same names.")
    floor = None if floor is None else _figures(floor, "the floor")[""]
    texts = {"headline": headline, "rule": rule, "changed": changed, "note": note}
    claim = Claim(id, statement, paper, figures, verdict, n=n, seeds=seeds, spread=spreads, floor=floor, **texts)
    kept = presets.name() == "laptop"
    claims = _claims(notebook)
    claims[id] = _explained(claim) if kept else claim
    if kept:
        _write(notebook, sorted(claims.values(), key=_natural))


def _write(notebook: str, claims: list[Claim]) -> None:
    entries = [{k: v for k, v in asdict(claim).items() if v not in (None, "")} for claim in claims]
    text = json.dumps({"notebook": notebook, "claims": entries}, indent=2, ensure_ascii=False) + "\n"
    try:
        paths.write_atomically(_ledger(notebook), text.encode())
    except OSError as error:  # a checkout that cannot be written: the reader's tables show the claims all the same
        print(f"{notebook}: its ledger of claims is not kept ({error.strerror or error}); this session has them.")


class Table:
    """Rows of text between a sentence above and notes below; Jupyter shows a table, everything else Markdown."""

    def __init__(self, rows: list[tuple[str, ...]], above: str = "", below: tuple[str, ...] = ()):
        self.rows, self.above, self.below = rows, above, below

    def __repr__(self) -> str:
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        lines[1:1] = ["|---" * len(self.rows[0]) + "|"] if lines else []
        return "\n\n".join(part for part in (self.above, "\n".join(lines), *self.below) if part)

    def _repr_html_(self) -> str:
        def line(row: tuple[str, ...], kind: str) -> str:
            style = f'<{kind} style="text-align: left">'
            return "<tr>" + "".join(f"{style}{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"

        lines = [line(row, "td" if i else "th") for i, row in enumerate(self.rows)]
        grid = "<table>\n" + "\n".join(lines) + "\n</table>\n" if lines else ""
        above, *below = [f"<p>{html.escape(text)}</p>\n" if text else "" for text in (self.above, *self.below)]
        return above + grid + "".join(below)


def changes(claims: list[Claim]) -> tuple[str, ...]:
    """Return one sentence for each rule that was changed after its result was seen: what stands below a table."""
    return tuple(f"{MARK} {c.id}, rule changed after the result was seen: {c.changed}" for c in claims if c.changed)


def table(notebook: str) -> Table:
    """Return the claims of `notebook` as a table to end a cell with; raises ValueError when none is recorded."""
    claims = sorted(_claims(notebook).values(), key=_natural)
    if not claims:
        raise ValueError(f"{notebook} has recorded no claim yet: run the cells above first.")
    head = ("", "the paper claims", "figure in the paper", "measured here", "rule", "verdict")
    rows = [(c.id, c.statement, c.paper, c.measured, c.marked_rule, c.judged) for c in claims]
    return Table([head, *rows], below=changes(claims))


def counts(claims: list[Claim]) -> str:
    """Return the score of some claims in one line: '5 reproduced, 3 partly, 1 inconclusive'."""
    given = [claim.verdict for claim in claims]
    return ", ".join(f"{given.count(word)} {word}" for word in VERDICTS if word in given) or "not measured yet"


def scoreboard(notebook: str) -> Table:
    """Return score and verdicts of `notebook` as its ledger holds them, for its first cells, at any preset."""
    claims = _stored(notebook)
    rows = [(c.id, c.statement, c.verdict) for c in claims]
    head = [("", "the paper claims", "verdict")] if claims else []
    return Table(head + rows, above=f"{counts(claims)}.".capitalize())

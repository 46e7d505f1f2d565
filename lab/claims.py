"""The ledger of claims: what a paper says, what its notebook measured, and an honest verdict.

A notebook records each claim where it is measured and ends with `table`. At the laptop preset the ledger is kept in
notebooks/claims/NAME.json, from which tools/results_table.py makes the README's table; a smoke run leaves it alone.
"""

import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from litrev import paths, presets

VERDICTS = ("reproduced", "partly", "not at this scale")

_recorded: dict[str, dict[str, "Claim"]] = {}  # notebook -> id -> claim, for this process


@dataclass(frozen=True)
class Claim:
    """One claim of a paper beside what a notebook measured; the fields are the arguments of `record`."""

    id: str
    statement: str
    paper: str
    ours: dict[str, float]
    verdict: str
    n: int | None = None
    seeds: int | None = None
    spread: dict[str, float] | None = None
    floor: float | None = None
    note: str = ""

    @property
    def measured(self) -> str:
        """What was measured, in words: 'FD 1.23 +- 0.10 (n = 1,000, 3 seeds, real data 0.22)'."""
        spread = self.spread or {}
        figures = [
            f"{name} {_printed(value)}".strip() + (f" \u00b1 {spread[name]:.2g}" if name in spread else "")
            for name, value in self.ours.items()
        ]
        terms = []
        if self.n is not None:
            terms.append(f"n = {self.n:,}")
        if self.seeds is not None:
            terms.append(f"{self.seeds} seeds")
        if self.floor is not None:
            terms.append(f"real data {self.floor:.2g}")
        return ", ".join(figures) + (f" ({', '.join(terms)})" if terms else "")


def _printed(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def verdict(*, reproduced: bool, partly: bool = False) -> str:
    """Return the verdict that a rule on measured numbers gives: the first of VERDICTS that holds."""
    return VERDICTS[0] if reproduced else VERDICTS[1] if partly else VERDICTS[2]


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


def read(file: Path) -> list[Claim]:
    """Return the claims of a ledger file, in order; raises RuntimeError with the remedy when it is damaged."""
    try:
        return [Claim(**entry) for entry in json.loads(file.read_text("utf-8"))["claims"]]
    except (ValueError, TypeError, KeyError):
        raise RuntimeError(
            f"{file} is damaged: restore it with git checkout, or delete it and run the notebook."
        ) from None


def _claims(notebook: str) -> dict[str, Claim]:
    """Return the claims that this process knows of, beginning with those on disk (laptop preset only)."""
    file = _ledger(notebook)
    if notebook not in _recorded:
        on_disk = read(file) if presets.name() == "laptop" and file.is_file() else []
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
    n: int | None = None,
    seeds: int | None = None,
    spread: float | Mapping[str, float] | None = None,
    floor: float | None = None,
    note: str = "",
) -> None:
    """Record the claim `id` of `notebook` ('03_ddpm'): its statement, the paper's figure, ours, and the verdict.

    `ours` is a number or several by name, with a `spread` (standard deviation over `seeds`) of the same form; `n`
    samples and the `floor` of real data go with distances. Take `verdict` from the function of that name, so that a
    rule decides. A claim of the same id is replaced. Raises ValueError for a name, verdict or number that cannot stand.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"The verdict {verdict!r} is none of {VERDICTS}: let claims.verdict(reproduced=...) choose.")
    figures = _figures(ours, "ours")
    spreads = None if spread is None else _figures(spread, "the spread")
    if spreads and not spreads.keys() <= figures.keys():
        raise ValueError(f"The spread names {sorted(spreads)}, but ours names {sorted(figures)}: use the same names.")
    floor = None if floor is None else _figures(floor, "the floor")[""]
    claims = _claims(notebook)
    claims[id] = Claim(id, statement, paper, figures, verdict, n, seeds, spreads, floor, note)
    if presets.name() == "laptop":
        _write(notebook, sorted(claims.values(), key=_natural))


def _write(notebook: str, claims: list[Claim]) -> None:
    entries = [{k: v for k, v in asdict(claim).items() if v not in (None, "")} for claim in claims]
    text = json.dumps({"notebook": notebook, "claims": entries}, indent=2, ensure_ascii=False) + "\n"
    paths.write_atomically(_ledger(notebook), text.encode())


class Table:
    """The claims of a notebook; Jupyter shows a table, everything else its text in Markdown."""

    def __init__(self, claims: list[Claim]):
        self.rows = [("", "the paper claims", "figure in the paper", "measured here", "verdict")]
        for c in claims:
            self.rows.append((c.id, c.statement, c.paper, c.measured, c.verdict + (f": {c.note}" if c.note else "")))

    def __repr__(self) -> str:
        head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        return "\n".join([head, "|---" * len(self.rows[0]) + "|", *body])

    def _repr_html_(self) -> str:
        kinds = ["th"] + ["td"] * (len(self.rows) - 1)
        cells = [
            "".join(f'<{kind} style="text-align: left">{html.escape(cell)}</{kind}>' for cell in row)
            for kind, row in zip(kinds, self.rows, strict=True)
        ]
        return "<table>\n" + "\n".join(f"<tr>{row}</tr>" for row in cells) + "\n</table>"


def table(notebook: str) -> Table:
    """Return the claims of `notebook` as a table to end a cell with; raises ValueError when none is recorded."""
    claims = sorted(_claims(notebook).values(), key=_natural)
    if not claims:
        raise ValueError(f"{notebook} has recorded no claim yet: run the cells above first.")
    return Table(claims)

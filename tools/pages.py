"""Brings the generated pages in step with what was measured: the ledgers of claims and the bench's results.

tools/bazel run pages               writes notebooks/claims/README.md and the marked parts of README.md, bench/README.md
tools/bazel run pages -- --check    writes nothing, and fails when one of them has parted

Any Python from 3.9 on runs it, without a package.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report, tables
from lab import claims
from litrev import paths

COMMAND = "tools/bazel run pages"
ROW = re.compile(r"\| (\d\d) \| (.+?) \|.*\| ([^|]*) \|")  # number, paper and score of a row in README's list
INTRODUCTION = f"""# What held

The claims of the papers beside what the notebooks measured. `{COMMAND}` makes this page from the ledgers beside it.

A verdict follows from numbers by its rule, which was written before they were seen. {claims.MARK} marks a rule that was
changed afterwards: how and why stands with the rules, below each table. Figures are those of digits and toys, not of
the papers' data; FD is the Frechet distance in the features of litrev's digit classifier.

| verdict | what it means |
|---|---|
"""


def split(page: str, name: str) -> tuple[str, str, str]:
    """Return `page` up to the line <!-- name -->, from it to <!-- /name -->, and the rest; SystemExit without them."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise SystemExit(f"A page needs the line {begin.strip()} and after it the line {end}, once each.")
    start, stop = page.index(begin) + len(begin), page.index(end)
    return page[:start], page[start:stop], page[stop:]


def fill(page: str, name: str, content: str) -> str:
    """Return `page` with `content` between its lines <!-- name --> and <!-- /name -->."""
    before, _, after = split(page, name)
    return before + content + after


def ledgers(root: Path) -> dict[str, list[claims.Claim]]:
    """Return the claims of each notebook that has a ledger, by its name."""
    return {file.stem: claims.read(file) for file in sorted((root / "notebooks" / "claims").glob("*.json"))}


def scored(rows: str, found: dict[str, list[claims.Claim]]) -> str:
    """Return README's list of papers with the title of each that has a ledger linked to its notebook, and its score as
    the last cell; SystemExit when a ledger has no row."""
    names, lines = {name[:2]: name for name in found}, []
    for line in rows.splitlines():
        if row := ROW.fullmatch(line):
            name = names.pop(row.group(1), None)
            score, title = claims.counts(found[name]) if name else "planned", linked(row.group(2), name)
            between = line[row.end(2) : row.start(3)]
            line = line[: row.start(2)] + title + between + score + line[row.end(3) :]
        lines.append(line)
    if names:
        raise SystemExit(f"README.md lists no paper of the number {', '.join(names)}, which has a ledger: add its row.")
    return "".join(f"{line}\n" for line in lines)


def linked(title: str, name: str | None) -> str:
    """Return a paper's title, without the short name in brackets after it, as a link to the notebook `name`."""
    if not name or title.startswith("["):
        return title
    return re.sub(r"^(.*?)( \([^()]*\))?$", rf"[\1](notebooks/{name}.ipynb)\2", title)


def titles(rows: str) -> dict[str, str]:
    """Return the paper of each number in README's list, as text."""
    found = [ROW.fullmatch(line) for line in rows.splitlines()]
    return {row.group(1): re.sub(r"\[(.*?)\]\(.*?\)", r"\1", row.group(2)) for row in found if row}


def cell(text: str) -> str:
    """Return `text` as it must be written in a cell of a table."""
    return re.sub(r"([|_*<`\[])", r"\\\1", text)


def folded(name: str, title: str, held: list[claims.Claim]) -> str:
    """Return the claims of one notebook, a row each, and below them their rules, under lines to click on."""
    rows = ["| | the paper claims | in the paper | measured here | verdict |", "|---|---|---|---|---|"]
    rules = []
    for claim in held:
        here = claim.headline + (f" ({claim.sample})" if claim.sample else "")
        word = f"**{claim.verdict}**" + (f" {claims.MARK}" if claim.changed else "")
        texts = map(cell, (claim.id, claim.statement, claim.paper, here))
        rows.append("| " + " | ".join([*texts, f"{word}: {cell(claim.note)}" if claim.note else word]) + " |")
        changed = f" *Changed after the result was seen:* {cell(claim.changed)}." if claim.changed else ""
        rules.append(f"- {cell(claim.id)}: {cell(claim.marked_rule)}.{changed}")
    link = f"All figures, and how they were made: [{name}](../{name}.ipynb)."
    rules = fold("The rules", "\n".join(rules))
    return fold(f"<b>{name[:2]}</b> {html.escape(title)}: {claims.counts(held)}", "\n".join([*rows, "", rules, link]))


def fold(summary: str, content: str) -> str:
    """Return `content` under a line to click on."""
    return f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>\n"


def claims_page(found: dict[str, list[claims.Claim]], title: dict[str, str]) -> str:
    """Return notebooks/claims/README.md: what the verdicts mean, the score, and each notebook's table, folded."""
    meanings = "".join(f"| **{word}** | {meaning} |\n" for word, meaning in claims.VERDICTS.items())
    every = [claim for held in found.values() for claim in held]
    parts = [folded(name, title[name[:2]], held) for name, held in found.items()]
    return "\n".join([INTRODUCTION + meanings, f"{len(every)} claims: {claims.counts(every)}.\n", *parts])


def pages(root: Path) -> dict[Path, str]:
    """Return the text that each generated page must have, by its file."""
    readme, bench = root / "README.md", root / "bench" / "README.md"
    found, measured = ledgers(root), report.results(root)
    text = readme.read_text("utf-8")
    rows = scored(split(text, "papers")[1], found)
    text = fill(fill(text, "papers", rows), "speed", tables.brief(measured["speed"], measured["quality"]))
    return {
        readme: text,
        root / "notebooks" / "claims" / "README.md": claims_page(found, titles(rows)),
        bench: fill(bench.read_text("utf-8"), "bench", report.markdown(measured, root)),
    }


def parted(root: Path) -> list[Path]:
    """Return the pages, below `root`, that do not show what was measured."""
    wanted = pages(root).items()
    return [file.relative_to(root) for file, text in wanted if not file.exists() or file.read_text("utf-8") != text]


def write(root: Path) -> None:
    """Write the pages that have parted."""
    wanted = pages(root)
    for file in parted(root):
        paths.write_atomically(root / file, wanted[root / file].encode())
        print(f"{file}: written")


def main(arguments: list[str]) -> None:
    if arguments not in ([], ["--check"]):
        raise SystemExit(__doc__)
    if not arguments:
        write(paths.root())
    elif parted(paths.root()):
        names = ", ".join(map(str, parted(paths.root())))
        raise SystemExit(f"{names}: not in step with the ledgers and the bench's results. Run: {COMMAND}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Keeps the README's results table in step with the ledgers in notebooks/claims.

python tools/results_table.py --check    fails, and says what to do, when they have parted
python tools/results_table.py --write    writes the table between the two markers
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab import claims
from litrev import paths

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
REMEDY = "run: python tools/results_table.py --write"


def table(folder: Path) -> str:
    """Return the claims of all ledgers in `folder` as one Markdown table, in the order of the notebooks."""
    lines = ["| notebook | the paper claims | figure in the paper | measured here | verdict |", "|---|---|---|---|---|"]
    for file in sorted(folder.glob("*.json")):
        link = f"[{file.stem}](notebooks/{file.stem}.ipynb)"
        for claim in claims.read(file):
            cells = [link, claim.statement, claim.paper, claim.measured, claim.verdict]
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
            link = ""  # named once, before its first claim
    return "".join(f"{line}\n" for line in lines) if len(lines) > 2 else ""


def updated(readme: str, results: str) -> str:
    """Return the README's text with `results` between the markers; SystemExit when it lacks them."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise SystemExit(f"README.md needs the line {BEGIN} and after it the line {END}, once each.")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{results}{END}{rest.split(END)[1]}"


def main(arguments: list[str]) -> None:
    if arguments not in (["--check"], ["--write"]):
        raise SystemExit(__doc__)
    file = paths.root() / "README.md"
    old = file.read_text("utf-8")
    new = updated(old, table(paths.root() / "notebooks" / "claims"))
    if arguments == ["--write"]:
        paths.write_atomically(file, new.encode())
    elif new != old:
        raise SystemExit(f"README.md does not show what notebooks/claims holds; {REMEDY}")


if __name__ == "__main__":
    main(sys.argv[1:])

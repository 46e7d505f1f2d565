"""All that the survey quotes: notebooks and ledgers by name, and where the chapters show which claim.

Whatever is asked for and not there raises Unknown, whose sentence lists what comes near.
"""

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from lab import claims
from tools.survey.notebook import Heading, Notebook, Picture, unmarked

MEASURED = re.compile(r"^:::+ *\{measured\} *(\S+)(.*)$", re.MULTILINE)
TITLE = re.compile(r"^# +(.+?) *$", re.MULTILINE)


class Unknown(Exception):
    """Something is asked for that no notebook or ledger has."""


def near(asked: str, known: list[str], what: str) -> Unknown:
    """The error for a name that is not among the known ones."""
    close = get_close_matches(asked, known, n=3, cutoff=0.3) or known[:6]
    return Unknown(f"{what} {asked!r} does not exist. Near: {'; '.join(map(repr, close)) or 'none'}")


@dataclass
class Material:
    notebooks: dict[str, Notebook] = field(default_factory=dict)
    ledgers: dict[str, list[claims.Claim]] = field(default_factory=dict)
    shown_in: dict[tuple[str, str], str] = field(default_factory=dict)  # (notebook, claim) -> chapter
    chapters: dict[str, str] = field(default_factory=dict)  # chapter -> its title

    def notebook(self, name: str) -> Notebook:
        if name not in self.notebooks:
            raise near(name, list(self.notebooks), "The notebook")
        return self.notebooks[name]

    def picture(self, name: str, alt: str) -> Picture:
        found = {picture.alt: picture for picture in self.notebook(name).pictures}
        if alt not in found:
            raise near(alt, list(found), f"In {name}, a picture with the alternative text")
        return found[alt]

    def heading(self, name: str, text: str) -> Heading:
        found = {unmarked(heading.text): heading for heading in self.notebook(name).headings}
        if unmarked(text) not in found:
            raise near(unmarked(text), list(found), f"In {name}, the heading")
        return found[unmarked(text)]

    def ledger(self, name: str) -> list[claims.Claim]:
        if name not in self.ledgers:
            raise near(name, list(self.ledgers), "The ledger")
        return self.ledgers[name]

    def claim(self, name: str, id: str) -> claims.Claim:
        found = {claim.id: claim for claim in self.ledger(name)}
        if id not in found:
            raise near(id, list(found), f"In the ledger of {name}, the claim")
        if id not in self.notebook(name).claim_cells:
            raise Unknown(f"No cell of {name} records {id}.")
        return found[id]

    def chapters_of(self, name: str) -> list[str]:
        """The chapters that show claims of a notebook."""
        return list(dict.fromkeys(chapter for (notebook, _), chapter in self.shown_in.items() if notebook == name))

    def add_chapter(self, docname: str, text: str) -> None:
        """Note which claims a chapter shows; the first chapter that shows one is where its cell points back to."""
        title = TITLE.search(text)
        self.chapters[docname] = title.group(1) if title else docname
        for name, wanted in MEASURED.findall(text):
            ids = wanted.split() or [claim.id for claim in self.ledgers.get(name, [])]
            for id in ids:
                self.shown_in.setdefault((name, id), docname)


@cache
def gather(folder: Path) -> Material:
    """Read the material of a staged folder: notebooks/*.ipynb, notebooks/claims/*.json and the chapters NN_*.md."""
    files = sorted((folder / "notebooks").glob("*.ipynb"))
    ledgers = sorted((folder / "notebooks" / "claims").glob("*.json"))
    found = Material({file.stem: Notebook(file) for file in files}, {file.stem: claims.read(file) for file in ledgers})
    for file in sorted(folder.glob("[0-9][0-9]_*.md")):
        found.add_chapter(file.stem, file.read_text("utf-8"))
    return found

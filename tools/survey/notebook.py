"""What the site takes from a notebook: its headings, pictures, the cells that record its claims, and its text.

A place has an anchor on the notebook's page: `claim-C1` the cell that records C1, `picture-SLUG` the cell with a
picture, SLUG a heading.
"""

import ast
import base64
import json
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PART_II = "Part II"
HEADING = re.compile(r"^(#{1,6}) +(.+?) *$")
FENCE = re.compile(r"^ *(```|~~~)")


@dataclass(frozen=True)
class Heading:
    text: str
    slug: str
    level: int
    cell: int


@dataclass(frozen=True)
class Picture:
    """A stored PNG: the name of its file on the site, its alternative text, its size on the page, its bytes."""

    file: str
    alt: str
    width: int | None
    cell: int
    data: bytes

    @property
    def moves(self) -> bool:
        return b"acTL" in self.data[:200]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the file."""
        return struct.unpack(">II", self.data[16:24])

    @property
    def anchor(self) -> str:
        return f"picture-{slug(self.alt)}"


def slug(text: str) -> str:
    """Return a text as it stands in an address: 'What $v$ is' -> 'what-v-is'."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def unmarked(text: str) -> str:
    """Return a heading without Markdown's marks, for comparison."""
    return re.sub(r"\s+", " ", re.sub(r"[*`$\\{}]", "", text)).strip()


def unique(name: str, taken: set[str]) -> str:
    """Return `name`, with a number when it is taken, and take it."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found


class Notebook:
    """A notebook by its name ('03_ddpm') and file."""

    def __init__(self, file: Path):
        self.name = file.stem
        self.cells = json.loads(file.read_text("utf-8"))["cells"]
        for cell in self.cells:
            cell["source"] = "".join(cell["source"])

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def title(self) -> str:
        """The paper, without its number."""
        return self.headings[0].text.partition("·")[2].strip() or self.headings[0].text

    @cached_property
    def headings(self) -> list[Heading]:
        found, taken = [], set()
        for index, cell in enumerate(self.cells):
            for line, code in lines(cell["source"] if cell["cell_type"] == "markdown" else ""):
                if not code and (match := HEADING.match(line)):
                    text = match.group(2)
                    found.append(Heading(text, unique(slug(text), taken), len(match.group(1)), index))
        return found

    @cached_property
    def pictures(self) -> list[Picture]:
        found, taken = [], set()
        for index, cell in enumerate(self.cells):
            for output in cell.get("outputs", ()):
                if "image/png" in output.get("data", {}):
                    about = output["metadata"].get("image/png", {})
                    alt = about.get("alt", "")
                    name = unique(f"{self.name}-{slug(alt)[:60].strip('-')}", taken)
                    data = base64.b64decode("".join(output["data"]["image/png"]))
                    found.append(Picture(f"{name}.png", alt, about.get("width"), index, data))
        return found

    @cached_property
    def claim_cells(self) -> dict[str, int]:
        """The cell that records a claim, by its id."""
        found = {}
        for index, cell in enumerate(self.cells):
            if cell["cell_type"] == "code":
                found |= dict.fromkeys(recorded(cell["source"]), index)
        return found

    @property
    def part_ii(self) -> int:
        """The cell with which Part II begins; the number of cells without one."""
        starts = [heading.cell for heading in self.headings if heading.text.startswith(PART_II)]
        return starts[0] if starts else len(self.cells)

    def anchors(self, cell: int) -> list[str]:
        """The anchors of a code cell: its claims and its pictures."""
        claims = [f"claim-{id}" for id, index in self.claim_cells.items() if index == cell]
        return claims + list(dict.fromkeys(picture.anchor for picture in self.pictures if picture.cell == cell))

    def markdown(self) -> str:
        """The page as MyST: text cells, with Part II one level deeper, and code cells as directives `cell`."""
        parts = []
        for index, cell in enumerate(self.cells):
            if cell["cell_type"] == "code":
                parts.append(f"```{{cell}} {index}\n```")
                continue
            source = unfolded(cell["source"]).replace("](claims/README.md)", "](../results.md)")
            deeper, text = "#" * (index >= self.part_ii), lines(source)
            parts.append("\n".join(deeper * (not code and bool(HEADING.match(line))) + line for line, code in text))
        return "\n\n".join(parts).replace("\n", "\n\n```{about-notebook}\n```\n", 1)  # below the title


def lines(source: str) -> list[tuple[str, bool]]:
    """Return the lines of a text cell, each with whether it is in a block of code."""
    found, fenced = [], False
    for line in source.splitlines():
        mark = FENCE.match(line)
        found.append((line, fenced or bool(mark)))
        fenced = fenced != bool(mark)
    return found


def unfolded(source: str) -> str:
    """Return a text cell with blank lines around folds, without which the Markdown in them is not read."""
    source = re.sub(r"^(<details.*?</summary>)[ \t]*\n?", r"\1\n\n", source, flags=re.MULTILINE)
    return re.sub(r"^[ \t]*</details>[ \t]*$", r"\n</details>\n", source, flags=re.MULTILINE)


def recorded(source: str) -> list[str]:
    """Return the ids that a cell's calls record: enter("C1", ...), claims.record(name, "C1", ...), or in a loop."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return []
    calls = [node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    given = [value for call in calls for value in [*call.args[:2], *(k.value for k in call.keywords if k.arg == "id")]]
    looped = any(re.search("enter|record", ast.unparse(call.func)) for call in calls)
    return ids(given) or (ids(nodes) if looped else [])


def ids(nodes: list[ast.AST]) -> list[str]:
    """Return the texts among some nodes that can be a claim's id."""
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if re.fullmatch(r"[A-Z]\d+\w?", text)]

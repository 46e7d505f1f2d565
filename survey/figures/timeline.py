"""Draw timeline.svg from timeline.csv: the eighteen papers, their ancestors and their heirs, with lines of descent.

Usage: python survey/figures/timeline.py (standard library only). `--list` prints the list of timeline.md instead.
In the table a date is the month of arXiv's number or of a release, for ancestors the year; "place" is where it was
published, for ancestors the second line of the box.
"""

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
COLUMNS = {  # what each is about, and its colour
    "theory": "#33558f",
    "speed": "#8f5410",
    "networks, guidance": "#3f6f2f",
    "text, control": "#863879",
    "latents, codes": "#1f737a",
    "discrete data": "#a03636",
}
SHORT = {  # what does not fit into a box
    "Progressive distillation": "Distillation",
    "Consistency models": "Consistency",
    "Jarzynski's equality": "Jarzynski",
    "Reversed diffusions": "Reversal",
    "MDLM, MD4, RADD": "MDLM, MD4",
}
WIDTH, LEFT, COLUMN, BOX, HIGH, GAP = 740, 42, 116, 100, 38, 50  # as wide as a column of text on the site
TRACKS = (-5, 5, -9, 9)  # where lines pass boxes of their column: left or right of them, by so many pixels
INK, GREY, PAPER, BAND = "#1d2530", "#5b6675", "#ffffff", "#eef1f5"
ANCESTORS, FIRST = 96, 188  # where their row stands, and the first of the others


@dataclass
class Work:
    column: int
    name: str
    date: str
    place: str
    notebook: int
    parents: list[str]
    key: str
    gave: str
    y: float = 0

    @property
    def x(self):
        return LEFT + COLUMN * (self.column + 0.5)

    @property
    def old(self):
        return "-" not in self.date

    @property
    def year(self):
        return int(self.date[:4])

    @property
    def months(self):
        return 12 * self.year + int(self.date[5:])


def read():
    """All works by name, in the order of their dates."""
    works = []
    with (HERE / "timeline.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            parents = [name for name in row["builds_on"].split("; ") if name]
            column = list(COLUMNS).index(row["column"])
            head = (column, row["name"], row["date"], row["place"], int(row["notebook"] or 0))
            works.append(Work(*head, parents, row["key"], row["gave"]))
    return {work.name: work for work in sorted(works, key=lambda work: (work.date, work.column))}


def settle(works):
    """Give every work its height; later is never higher, and boxes never overlap. Return the first of each year."""
    years, lowest, y, before = {}, {}, FIRST, None
    for work in works.values():
        if work.old:
            work.y = ANCESTORS
            continue
        if before:
            y += min(3 * (work.months - before.months), 26) + (16 if work.year not in years else 0)
        y = max(y, lowest.get(work.column, 0) + GAP)
        years.setdefault(work.year, y)
        work.y = lowest[work.column] = y
        before = work
    return years, y + 52


def tracks(works):
    """For each line that would cross boxes of its own column, how far beside the column it goes."""
    taken, found = {}, {}
    for child in works.values():
        for parent in (works[name] for name in child.parents):
            crossed = [w for w in works.values() if w.column == child.column and parent.y < w.y < child.y]
            if parent.column != child.column or not crossed:
                continue
            for track in TRACKS:
                others = taken.setdefault((child.column, track), [])
                if all(child.y <= top or parent.y >= foot or name == parent.name for top, foot, name in others):
                    break
            others.append((parent.y, child.y, parent.name))
            found[parent.name, child.name] = track
    return found


def text(x, y, words, size, bold=False, fill=INK, anchor="middle", more=""):
    weight = ' font-weight="700"' if bold else ""
    place = f'x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
    return f"<text {place}{weight}{more}>{escape(words)}</text>"


def rectangle(x, y, width, height, fill, more=""):
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{fill}"{more}/>'


def line(parent, child, track):
    """From the foot of a box to the head of a later one; or beside the column; or from side to side."""
    x0, x1, top, foot = parent.x, child.x, child.y - HIGH / 2, parent.y + HIGH / 2
    if track:
        rim = x0 + math.copysign(BOX / 2, track)
        out, y0, y1 = rim + track, parent.y + 9, child.y - 8
        path = f"M{rim:.0f} {y0:.0f}Q{out:.0f} {y0:.0f} {out:.0f} {y0 + 13:.0f}"
        path += f"L{out:.0f} {y1 - 12:.0f}Q{out:.0f} {y1:.0f} {rim:.0f} {y1:.0f}"
    elif top < foot + 10:
        side, mid = math.copysign(BOX / 2, x1 - x0), (x0 + x1) / 2
        path = f"M{x0 + side:.0f} {parent.y:.0f}"
        path += f"C{mid:.0f} {parent.y:.0f} {mid:.0f} {child.y:.0f} {x1 - side:.0f} {child.y:.0f}"
    else:
        pull = max(10, min(70, (top - foot) / 2))
        path = f"M{x0:.0f} {foot:.0f}C{x0:.0f} {foot + pull:.0f} {x1:.0f} {top - pull:.0f} {x1:.0f} {top:.0f}"
    colour = list(COLUMNS.values())[parent.column]
    width, opacity = (2.2, 0.8) if parent.notebook and child.notebook else (1.4, 0.5)
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"/>'


def box(work):
    colour = GREY if work.old else list(COLUMNS.values())[work.column]
    fill, ink = (colour, PAPER) if work.notebook else (PAPER, INK)
    name = SHORT.get(work.name, work.name)
    name = f"{work.notebook:02d} {name}" if work.notebook else name
    size = 13 if len(name) < 12 else 12 if len(name) < 14 else 11
    rim = f' rx="6" stroke="{colour}" stroke-width="1.6"'
    return [
        rectangle(work.x - BOX / 2, work.y - HIGH / 2, BOX, HIGH, fill, rim),
        text(work.x, work.y - 2, name, size, True, ink),
        text(work.x, work.y + 12, work.place if work.old else work.date, 11, False, ink),
    ]


def draw():
    works = read()
    years, height = settle(works)
    beside = tracks(works)
    fonts = "Arial, 'Liberation Sans', 'DejaVu Sans Condensed', sans-serif"
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    legend = "Filled: the eighteen papers, with the number of the notebook. Outlined: ancestors and heirs."
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{fonts}">',
        "<title>Timeline of diffusion models, 1956 to 2026, with lines of descent</title>",
        rectangle(0, 0, WIDTH, height, PAPER),
        text(8, 26, legend, 13, anchor="start"),
        text(8, 46, "Lines lead from an idea to those that build on it. Date: first version.", 13, anchor="start"),
        text(LEFT - 4, ANCESTORS + 4, "before", 11, True, anchor="end"),
    ]
    ends = [*list(years.values())[1:], height + 17]
    for i, (year, y) in enumerate(years.items()):
        if i % 2 == 0:
            out.append(rectangle(0, y - 25, WIDTH, ends[i] - y, BAND))
        out.append(text(LEFT - 4, y + 5, str(year), 13, True, anchor="end"))
    for child in works.values():
        for name in child.parents:
            out.append(line(works[name], child, beside.get((name, child.name))))
    halo = f' paint-order="stroke" stroke="{PAPER}" stroke-width="5"'
    for i, (name, colour) in enumerate(COLUMNS.items()):
        out.append(text(LEFT + COLUMN * (i + 0.5), 152, name, 13, True, colour, more=halo))
    for work in works.values():
        out += box(work)
    return "\n".join([*out, "</svg>", ""])


def listed():
    """The list of timeline.md: a heading for each year, a line for each work."""
    notebooks = {int(file.name[:2]): file.stem for file in HERE.parents[1].glob("notebooks/[0-9]*.ipynb")}
    out, head = [], None
    for work in read().values():
        above = "Before 2015" if work.old else str(work.year)
        if above != head:
            head = above
            out += ["", f"## {head}", ""]
        name, where = f"{work.name} {{cite}}`{work.key}`", "" if work.old else f", {work.place}"
        if work.notebook:
            name = f"**{work.name}** {{cite}}`{work.key}`"
            where += f", {{place}}`notebook {work.notebook:02d} <{notebooks[work.notebook]}>`"
        builds = f" *Builds on {', '.join(work.parents)}.*" if work.parents else ""
        out.append(f"- {work.date}: {name}{where}: {work.gave}.{builds}")
    return "\n".join(out[1:])


if __name__ == "__main__":
    if "--list" in sys.argv:
        print(listed())
    else:
        (HERE / "timeline.svg").write_text(draw(), encoding="utf-8")

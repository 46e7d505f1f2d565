"""What a notebook must be for its reader: a lesson that is read in an hour, a laboratory folded away below it.

A lesson is told from its laboratory by one text cell that begins with `# Part II`. Tags mark the cells that a check has
to find: `settings`, `guess`, `yours` and `check` (CONTRIBUTING.md says what each is for).
"""

import re
from collections import Counter

from tools.jupyter.notebooks import COLLAPSED, PART_TWO, code_cells

MOST_BYTES, MOST_LINES, MOST_COLUMNS = 1_500_000, 20, 100
CODE_CELLS, WORDS = 40, (2_000, 3_500)  # of Part I; what is folded is not counted
PRESETS, GUESSES = 3, 3  # at most, outside the settings; at least

FRONT_DOOR = "00_start_here"
FRONT_DOOR_CELLS, FRONT_DOOR_WORDS = 25, (800, 2_500)

FOLDED = re.compile(r"<details.*?</details>", re.DOTALL)
FENCED = re.compile(r"```.*?```", re.DOTALL)
ANSWER = re.compile(r"```python\n(.*?)```", re.DOTALL)
TOP_HEADING = re.compile(r"^ {0,3}(# |=+ *$|<h1\b)", re.MULTILINE)
NO_ALT = re.compile(r"<img\b(?![^>]*\balt=['\"][^'\"])[^>]*>|!\[\s*\]\(")


class AnswerError(ValueError):
    """What the reader writes has no check, or no folded answer that its check calls right."""


def problems(notebook: dict, size: int, name: str) -> list[str]:
    """Sentences on what makes the notebook `name` hard to read, hear or fetch; `size` is that of its file in bytes."""
    found = cell_problems(notebook) + picture_problems(notebook)
    if size > MOST_BYTES:
        found.append(f"it is {size / 1e6:.2f} MB (at most {MOST_BYTES / 1e6} MB)")
    if name == FRONT_DOOR:
        return found + extent_problems(notebook["cells"], "it", FRONT_DOOR_CELLS, FRONT_DOOR_WORDS)
    return found + lesson_problems(notebook)


def words(cells: list[dict]) -> int:
    """Words of the text cells; formulas, code, HTML tags and what is folded do not count."""
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    text = FENCED.sub(" ", FOLDED.sub(" ", text))
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|<[^>]+>", " ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W\d_][\w'-]*", text))


def extent_problems(cells: list[dict], what: str, most_cells: int, limits: tuple[int, int]) -> list[str]:
    found, code = [], sum(cell["cell_type"] == "code" for cell in cells)
    if code > most_cells:
        found.append(f"{what} has {code} code cells (at most {most_cells})")
    if not limits[0] <= words(cells) <= limits[1]:
        found.append(f"{what} has {words(cells)} words of text (between {limits[0]} and {limits[1]})")
    return found


def cell_problems(notebook: dict) -> list[str]:
    """A cell is seen whole, in a window of 1,000 pixels."""
    found = []
    for cell in code_cells(notebook):
        lines, where = cell["source"].split("\n"), f"cell [{cell['execution_count']}]"
        if len(lines) > MOST_LINES:
            found.append(f"{where} has {len(lines)} lines (at most {MOST_LINES})")
        if (widest := max(map(len, lines))) > MOST_COLUMNS:
            found.append(f"{where} has lines of up to {widest} columns (at most {MOST_COLUMNS})")
    return found


def picture_problems(notebook: dict) -> list[str]:
    """A picture has a text for those who cannot see it, which is also its name; what widgets draw is not stored."""
    found, names = [], Counter()
    for cell in code_cells(notebook):
        where = f"cell [{cell['execution_count']}]"
        for output in cell["outputs"]:
            data, metadata = output.get("data", {}), output.get("metadata", {})
            alts = {metadata.get(mime, {}).get("alt", "").strip() for mime in data if mime.startswith("image/")}
            names.update(alts - {""})
            if "" in alts or NO_ALT.search("".join(data.get("text/html", ""))):
                found.append(f"{where} shows a picture without an alternative text: give its figure `alt=`")
    found += [f"two pictures have the alternative text {alt!r}" for alt, count in names.items() if count > 1]
    text = "\n".join(FENCED.sub("", cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return found + [f"a text cell shows a picture without an alternative text: {tag}" for tag in NO_ALT.findall(text)]


def tagged(cells: list[dict], tag: str) -> list[int]:
    """Where the code cells with a tag stand."""
    return [
        index
        for index, cell in enumerate(cells)
        if cell["cell_type"] == "code" and tag in cell["metadata"].get("tags", [])
    ]


def exercises(cells: list[dict]) -> list[tuple[int, int, str]]:
    """What the reader writes: the places of each `yours` cell and of its `check`, and the code of the folded answer.

    Raises AnswerError for a `yours` cell that the `check` cell or the answer does not follow.
    """
    found, code = [], [index for index, cell in enumerate(cells) if cell["cell_type"] == "code"]
    for yours in tagged(cells, "yours"):
        check = next((index for index in code if index > yours), None)
        if check not in tagged(cells, "check"):
            raise AnswerError("the next code cell after one with the tag `yours` has the tag `check`")
        texts = [cell["source"] for cell in cells[check:] if cell["cell_type"] == "markdown"]
        answer = next(
            (match for text in texts for fold in FOLDED.findall(text) if (match := ANSWER.search(fold))), None
        )
        if answer is None:
            raise AnswerError("the first folded ```python block after a `check` cell is the answer; here there is none")
        found.append((yours, check, answer[1]))
    return found


def lesson_problems(notebook: dict) -> list[str]:
    cells = notebook["cells"]
    heads = [i for i, cell in enumerate(cells) if cell["cell_type"] == "markdown" and PART_TWO.match(cell["source"])]
    if len(heads) != 1:
        return [f"a lesson has one text cell that begins with '# Part II', this has {len(heads)}"]
    one, (head, *two) = cells[: heads[0]], cells[heads[0] :]
    found = extent_problems(one, "Part I", CODE_CELLS, WORDS)
    if head["metadata"].get(COLLAPSED) is not True:
        found.append(f"Part II is not folded: its heading's metadata lack {COLLAPSED}, which .execute sets")
    texts = [head["source"].partition("\n")[2], *(cell["source"] for cell in two if cell["cell_type"] == "markdown")]
    found += [
        f"{text.strip().splitlines()[0]!r} ends the fold of Part II: its headings begin with ##"
        for text in texts
        if TOP_HEADING.search(FENCED.sub("", text))
    ]
    return found + moment_problems(one) + place_problems(notebook, one)


def moment_problems(one: list[dict]) -> list[str]:
    """In Part I the reader guesses before seeing, and writes something that is checked."""
    found = []
    if (guesses := len(tagged(one, "guess"))) < GUESSES:
        found.append(f"Part I has {guesses} code cells with the tag `guess` (at least {GUESSES})")
    try:
        if not exercises(one):
            found.append("Part I has no code cell with the tag `yours`, which the reader writes")
    except AnswerError as problem:
        found.append(str(problem))
    return found


def place_problems(notebook: dict, one: list[dict]) -> list[str]:
    """What depends on the preset stands in one cell at the top, the score near it, the bookkeeping in Part II."""
    found, cells = [], notebook["cells"]
    first = [index for index, cell in enumerate(one) if cell["cell_type"] == "code"][:3]
    settings = tagged(cells, "settings")
    if len(settings) != 1 or settings[0] not in first:
        found.append("one of the first three code cells, and no other, has the tag `settings`")
    calls = sum(
        len(re.findall(r"\bpreset\(", cell["source"]))
        for index, cell in enumerate(cells)
        if cell["cell_type"] == "code" and index not in settings
    )
    if calls > PRESETS:
        found.append(f"{calls} calls of preset(...) stand outside the settings cell (at most {PRESETS})")
    code = [cell["source"] for cell in one if cell["cell_type"] == "code"]
    if not any(re.search(r"\bscoreboard\(", source) for source in code):
        found.append("Part I does not show the scoreboard of its claims: claims.scoreboard(...)")
    if any(re.search(r"\brecord\(", source) for source in code):
        found.append("a claim is recorded in Part I: the ledger belongs to Part II")
    return found

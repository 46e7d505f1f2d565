"""What a notebook must be for its reader: each fault of the form is found, and a lesson without faults passes."""

import copy

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.jupyter import form, notebooks

ANSWER = (
    "Think first.\n\n<details><summary>Answer</summary>\n\n```python\ndef add(a, b):\n    return a + b\n```\n</details>"
)


def code(source, *tags):
    cell = new_code_cell(source)
    cell.metadata["tags"] = list(tags)
    return cell


def picture(alt, mime="image/png"):
    metadata = {} if alt is None else {mime: {"alt": alt, "width": 700}}
    return new_output("display_data", {mime: "iVBOR", "text/plain": "<Figure>"}, metadata=metadata)


def lesson():
    """A lesson without a fault."""
    cells = [new_markdown_cell("# 98 \u00b7 A paper\n" + "word " * 2_200), code("import math")]
    cells += [code("steps = preset(laptop=4, smoke=2)", "settings"), code("claims.scoreboard('98_paper')")]
    cells += [code("guess = 0  # how many?", "guess") for _ in range(3)]
    cells += [code("def add(a, b): ...", "yours"), code("print('Right' if add(1, 2) == 3 else 'Not yet')", "check")]
    cells += [new_markdown_cell(ANSWER), new_markdown_cell("# Part II \u00b7 The laboratory\nEverything else.")]
    cells += [new_markdown_cell("## C1"), code("claims.record('98_paper', 'C1')"), code("claims.table('98_paper')")]
    notebook = new_notebook(cells=copy.deepcopy(cells))
    for count, cell in enumerate(notebooks.code_cells(notebook), 1):
        cell.execution_count = count
    notebooks.code_cells(notebook)[0].outputs = [picture("noise"), picture("digits", "image/jpeg")]
    notebooks.tidy(notebook, "laptop")
    return notebook


def found(notebook, name="98_paper", size=1_500_000):
    return form.problems(notebook, size, name)


def test_a_good_lesson_has_no_problem():
    assert found(lesson()) == []


def at(number, **changes):
    """A fault that changes the code cell of this number, from 1."""
    return lambda notebook: notebooks.code_cells(notebook)[number - 1].update(changes)


def text_at(start, text):
    """A fault that gives the text cell that begins with `start` another text."""

    def change(notebook):
        (cell,) = [cell for cell in notebook.cells if cell.cell_type == "markdown" and cell.source.startswith(start)]
        cell.source = text

    return change


def retagged(number, *tags):
    return lambda notebook: notebooks.code_cells(notebook)[number - 1].metadata.update(tags=list(tags))


def shown(number, *outputs):
    return at(number, outputs=list(outputs))


def append(*cells):
    return lambda notebook: notebook.cells.extend(cells)


def squeezed_in(*cells):
    return lambda notebook: notebook.cells.__setitem__(slice(6, 6), cells)


FAULTS = {
    "cell [1] has 21 lines (at most 20)": at(1, source="pass\n" * 20),
    "cell [10] has lines of up to 101 columns (at most 100)": at(10, source="x" * 101),
    "cell [2] shows a picture without an alternative text": shown(2, picture(None)),
    "cell [3] shows a picture without an alternative text": shown(3, picture("  ", "image/svg+xml")),
    "cell [4] shows a picture without an alternative text": shown(4, picture(None, "image/gif")),
    "cell [5] shows a picture without": shown(
        5, new_output("display_data", {"text/html": "<img alt='' src='data:x'>"})
    ),
    "a text cell shows a picture without an alternative text": append(new_markdown_cell("![](images/a.png)")),
    "a text cell shows a picture without an alternative text: <img": append(new_markdown_cell("<img src='a.png'>")),
    "two pictures have the alternative text 'digits'": shown(2, picture("digits")),
    "has one text cell that begins with '# Part II', this has 0": text_at("# Part II", "# Laboratory"),
    "has one text cell that begins with '# Part II', this has 2": append(new_markdown_cell("# Part II")),
    "Part I has 1999 words of text (between 2000 and 3500)": text_at("# 98", "word " * 1_997),
    "Part I has 3501 words of text (between 2000 and 3500)": text_at("# 98", "word " * 3_499),
    "Part I has 41 code cells (at most 40)": squeezed_in(*(code("1") for _ in range(33))),
    "Part II is not folded": lambda notebook: notebook.cells[-4].metadata.clear(),
    "'# C1' ends the fold of Part II": text_at("## C1", "# C1"),
    "'C1' ends the fold of Part II": text_at("## C1", "C1\n==\nText"),
    "Part I has 2 code cells with the tag `guess`": retagged(5),
    "Part I has no code cell with the tag `yours`": retagged(7),
    "the next code cell after one with the tag `yours` has the tag `check`": retagged(8),
    "the first folded ```python block after a `check` cell is the answer": text_at(
        "Think", ANSWER.replace("python", "")
    ),
    "one of the first three code cells, and no other, has the tag `settings`": retagged(2),
    "and no other, has the tag `settings`": retagged(9, "settings"),
    "4 calls of preset(...) stand outside the settings": at(9, source="preset(1), preset(2), preset(3), preset(4)"),
    "does not show the scoreboard": at(3, source="claims.table('98_paper')"),
    "a claim is recorded in Part I": at(1, source="claims.record('98_paper', 'C1')"),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_fault_is_found(sentence):
    notebook = lesson()
    FAULTS[sentence](notebook)
    assert any(sentence in problem for problem in found(notebook)), found(notebook)


def test_one_figure_in_two_formats_is_one_picture():
    notebook, both = lesson(), picture("a")
    both.data["image/svg+xml"], both.metadata["image/svg+xml"] = "<svg>", {"alt": "a"}
    notebooks.code_cells(notebook)[1].outputs = [both]
    assert found(notebook) == []


def test_a_file_is_not_too_large():
    assert found(lesson(), size=1_500_001) == ["it is 1.50 MB (at most 1.5 MB)"]


def test_words_are_those_that_a_reader_sees_unfolded():
    cells = [new_markdown_cell(f"two words $a + b$ ```code``` <b>\n{ANSWER}"), code("no word")]
    assert form.words(cells) == len(["two", "words", "Think", "first"])


def test_what_is_in_a_code_block_is_no_heading_and_no_picture():
    notebook = lesson()
    notebook.cells.append(new_markdown_cell("```sh\n# a comment\necho ![](x)\n```"))
    assert found(notebook) == []


def test_an_exercise_is_its_cell_its_check_and_its_answer():
    cells = lesson().cells
    (yours, check, answer), *more = form.exercises(cells)
    assert not more and cells[yours].source.startswith("def add") and cells[check].source.startswith("print(")
    assert answer == "def add(a, b):\n    return a + b\n"


def test_the_front_door_is_no_lesson_but_everything_else_is():
    bare = new_notebook(cells=[new_markdown_cell("word " * 1_500)])
    assert found(bare, form.FRONT_DOOR) == []
    assert found(bare, "05_adm") == ["a lesson has one text cell that begins with '# Part II', this has 0"]
    long = new_notebook(cells=[new_markdown_cell("word " * 2_501), *(code("1") for _ in range(26))])
    assert len(found(long, form.FRONT_DOOR)) == 2

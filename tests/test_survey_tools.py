"""What makes the site: notebooks taken apart, names that do not exist, labels, and the server."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import browser
import pytest

from tools.survey import bibliography, build, material, notebook

pytestmark = pytest.mark.filterwarnings("ignore")  # Sphinx's extensions are told of its future

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CLAIM = {
    "id": "C1",
    "statement": "it is good",
    "paper": "3.17",
    "ours": {"": 3.0},
    "verdict": "reproduced",
    "headline": "3.0, the paper 3.17",
    "rule": "reproduced if below 4",
}


def text(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, *outputs, **metadata):
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": list(outputs), "execution_count": 1}


def picture(alt):
    data = {"image/png": PIXEL, "text/plain": alt}
    return {"output_type": "display_data", "data": data, "metadata": {"image/png": {"alt": alt, "width": 30}}}


CELLS = [
    text("# 03 · A paper\n\nWith $\\frac12$.\n\n```python\n# no heading\n```\n\n## 1 · What $v$ is"),
    code("draw()", picture("A dot")),
    text("<details><summary>Answer</summary>\nIt is $x$.\n</details>"),
    text("# Part II · The laboratory"),
    text("## C1 · Good"),
    code('enter(\n    "C1",\n    "it is good",\n)', {"output_type": "stream", "name": "stdout", "text": "3.0\n"}),
]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one notebook, its ledger, and a survey of one chapter; what was read before is forgotten."""
    material.gather.cache_clear()
    (tmp_path / "notebooks" / "claims").mkdir(parents=True)
    file = tmp_path / "notebooks" / "03_paper.ipynb"
    file.write_text(json.dumps({"cells": CELLS, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    ledger = {"notebook": "03_paper", "claims": [CLAIM]}
    (tmp_path / "notebooks" / "claims" / "03_paper.json").write_text(json.dumps(ledger))
    survey = tmp_path / "survey"
    for name in ("_static", "_extra", "references"):
        (survey / name).mkdir(parents=True)
    (survey / "conf.py").write_text((ROOT / "survey" / "conf.py").read_text("utf-8"))
    (survey / "references" / "a.bib").write_text(
        "@misc{ho2020, author={Ho, J}, title={A}, year={2020}, url={https://e.org}}"
    )
    for name in ("survey.css", "survey.js", "favicon.svg"):
        (survey / "_static" / name).touch()
    (survey / "_extra" / "404.html").touch()
    (survey / "index.md").write_text(
        "# Survey\n\n```{toctree}\n:glob:\n\n[0-9]*\nresults\ncite\nbibliography\nnotebooks/index\n```\n"
    )
    (survey / "bibliography.md").write_text("# Bibliography\n\n```{bibliography}\n:all:\n```\n")
    (tmp_path / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text("utf-8"))
    return tmp_path


def site(checkout, chapter, capfd):
    """Builds the site with a chapter; returns the status, what was said, and the folder."""
    (checkout / "survey" / "03_chapter.md").write_text(f"# Chapter\n\n{chapter}\n")
    status = build.build(checkout, checkout / "site")
    return status, capfd.readouterr().err, checkout / "site"


def test_a_notebook_is_taken_apart(checkout):
    found = notebook.Notebook(checkout / "notebooks" / "03_paper.ipynb")
    assert [heading.slug for heading in found.headings] == [
        "03-a-paper", "1-what-v-is", "part-ii-the-laboratory", "c1-good",
    ]  # fmt: skip
    assert (found.title, found.part_ii, found.claim_cells) == ("A paper", 3, {"C1": 5})
    assert found.anchors(1) == ["picture-a-dot"] and found.anchors(5) == ["claim-C1"]
    page = found.markdown()
    assert "\n## Part II" in page and "\n### C1" in page and "\n# no heading" in page


@pytest.mark.parametrize(
    "source, ids",
    [
        ('claims.record("03_ddpm", "C2", 1)', ["C2"]),
        ('enter(id="C3")', ["C3"]),
        ('RULES = {"C1": "a"}\nprint("C1")', ["C1"]),
        ('RULES = {"C1": "a"}', []),
        ('for id, x in [("C4", 1), ("C5", 2)]:\n    enter(id, x)', ["C4", "C5"]),
        ("%magic", []),
    ],
)
def test_the_cell_that_records_a_claim_is_found(source, ids):
    assert notebook.recorded(source) == ids


GOOD = """
$$ x_t = \\alpha_t x_0 $$ (eq-forward)

By {eq}`eq-forward` and {numref}`fig-dot`, {claim}`03_paper:C1` is {verdict}`03_paper:C1`: {headline}`03_paper:C1`.
{cite}`ho2020`
See {place}`03_paper#1 · What $v$ is`, {place}`there <03_paper#C1 · Good>`, {place}`03_paper`.

:::{stored} 03_paper
:alt: A dot
:name: fig-dot
A caption.
:::

:::{measured} 03_paper
:::

:::{dropdown} Why $x$?
Because.
:::
"""


def test_a_chapter_can_use_all_of_it(checkout, capfd):
    status, said, out = site(checkout, GOOD, capfd)
    assert (status, said) == (0, "")
    page, cell = (out / "03_chapter.html").read_text(), (out / "notebooks" / "03_paper.html").read_text()
    assert page.count('href="notebooks/03_paper.html#claim-C1"') == 2 and "3.0, the paper 3.17" in page
    assert all(f'href="notebooks/03_paper.html#{slug}"' in page for slug in ("1-what-v-is", "c1-good", "picture-a-dot"))
    assert '<img alt="A dot"' in page and "aspect-ratio: 1 / 1; width: 30px" in page
    assert "<summary>Why <math>" in page and "[<a" in page and "Ho, 2020" in page
    assert 'id="measured-03_paper-C1"' in page and 'href="../03_chapter.html#measured-03_paper-C1"' in cell
    assert cell.index('<details class="part-ii">') < cell.index('id="claim-C1"')


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (":::{stored} 03_paper\n:alt: A dott\nText.\n:::", "alternative text 'A dott' does not exist. Near: 'A dot'"),
        (":::{stored} 04_paper\n:alt: A dot\nText.\n:::", "notebook '04_paper' does not exist. Near: '03_paper'"),
        (":::{measured} 03_papre\n:::", "ledger '03_papre' does not exist. Near: '03_paper'"),
        ("{claim}`03_paper:C2`", "claim 'C2' does not exist. Near: 'C1'"),
        ("{headline}`03_paper:C9`", "claim 'C9' does not exist"),
        ("{place}`03_paper#2 · What v is`", "heading '2 · What v is' does not exist. Near: '1 · What v is'"),
        ("$\\frac{1}$", "This formula cannot be read: \\frac{1}"),
        ("{eq}`eq-nowhere`", "equation not found: eq-nowhere"),
        ("{cite}`nobody`", 'could not find bibtex key "nobody"'),
        ("[there](04_nowhere.md)", "04_nowhere"),
    ],
)
def test_what_does_not_exist_is_an_error_with_its_place(checkout, capfd, wrong, sentence):
    status, said, _ = site(checkout, wrong, capfd)
    assert status == 1
    assert "03_chapter.md:3: " in said and sentence in said


def test_the_same_sources_give_the_same_bytes(checkout, capfd, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    first = {file.relative_to(checkout): file.read_bytes() for file in files(site(checkout, GOOD, capfd)[2])}
    assert {file.relative_to(checkout): file.read_bytes() for file in files(site(checkout, GOOD, capfd)[2])} == first


def files(folder):
    return [file for file in sorted(folder.rglob("*")) if file.is_file()]


def test_labels_are_authors_and_years():
    from pybtex.database import parse_string

    entries = parse_string(
        "@misc{a, author={Song, J and Meng, C and Ermon, S}, year={2021}}"
        "@misc{b, author={Song, Y and others}, year={2021}}"
        "@misc{c, author={van den Oord, A and Li, Y}, year={2018}}",
        "bibtex",
    ).entries.values()
    labels = list(bibliography.AuthorYear().format_labels(entries))
    assert labels == ["Song et al., 2021a", "Song et al., 2021b", "van den Oord & Li, 2018"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "index.html").write_text("begin")
    (tmp_path / "404.html").write_text("none")
    (tmp_path / "empty").mkdir()
    return tmp_path


def asked(address, path):
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_server_answers_this_machine_with_pages(folder):
    with browser.served(folder) as address:
        assert address.startswith("http://127.0.0.1:")
        assert asked(address, "/") == (200, b"begin")
        assert asked(address, "/nothing.html") == (404, b"none")
        assert asked(address, "/empty/") == (404, b"none")
        assert asked(address, "/../../etc/passwd")[0] == 404


def start(folder, *arguments):
    command = [sys.executable, "-m", "tools.survey.serve", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_taken_port_is_no_trouble_unless_it_was_asked_for(folder):
    first, second = start(folder), start(folder)
    try:
        lines = [process.stdout.readline() for process in (first, second)]
        ports = [line.split("127.0.0.1:")[1].split("/")[0] for line in lines]
        assert ports[0] != ports[1]
        third = start(folder, f"--port={ports[0]}")
        said = third.communicate(timeout=30)[1]
        assert third.returncode == 1 and f"Port {ports[0]} cannot be used" in said and "Traceback" not in said
    finally:
        for process in (first, second):
            process.terminate()
            process.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)

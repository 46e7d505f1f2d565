"""The generated pages show what was measured, stay readable, and every claim in a ledger is one of its notebook's."""

import ast
import json
import re
import sys

import pytest

from bench import report
from lab import claims
from litrev import paths
from tools import pages

README = """# litrev

<!-- papers -->
| | paper | authors, venue | what held |
|---|---|---|---|
| 01 | [Deep](notebooks/01_dpm.ipynb) (DPM) | S. & T., 2015 | old |
| 03 | [Denoising](notebooks/03_ddpm.ipynb) (DDPM) | H. & A., 2020 | 9 reproduced |
| 05 | Beats GANs <ADM> | D. & N., 2021 | old |
<!-- /papers -->

<!-- speed -->
old
<!-- /speed -->
more
"""
BENCH = "prose\n\n<!-- bench -->\nold\n<!-- /bench -->\n"


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A checkout with the hand-written parts of the pages and the claims of two notebooks."""
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    monkeypatch.setattr(claims, "_recorded", {})
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "README.md").write_text(BENCH)
    rule = "reproduced if a_b < 3"
    claims.record("03_ddpm", "E2", "second", "a | b", 2.0, "partly", headline="2 of *3*", rule=rule, note="<no> more")
    claims.record("03_ddpm", "E1", "first", "3.17", 1.0, "reproduced", headline="1 of 3", rule=rule, n=500)
    more = {"headline": "0.5 of 3", "rule": rule, "changed": "was c_d < 3", "note": "n = 9 would"}
    claims.record("01_dpm", "E1", "oldest", "5.40", 0.5, "inconclusive", **more)
    return tmp_path


@pytest.mark.parametrize(
    "title, link",
    [
        ("Beats GANs (ADM)", "[Beats GANs](notebooks/05_adm.ipynb) (ADM)"),
        ("Guidance", "[Guidance](notebooks/05_adm.ipynb)"),
        ("[Deep](notebooks/01_dpm.ipynb) (DPM)", "[Deep](notebooks/01_dpm.ipynb) (DPM)"),
    ],
)
def test_a_paper_with_a_ledger_is_a_link(title, link):
    assert pages.linked(title, "05_adm") == link and pages.linked(title, None) == title


def test_the_list_of_papers_shows_the_score_of_each(checkout):
    pages.main([])
    text = (checkout / "README.md").read_text()
    scores = ["1 inconclusive", "1 reproduced, 1 partly", "planned"]
    assert re.findall(r"^\| \d\d .*\| (.*) \|$", text, re.MULTILINE) == scores
    old = ["old", "9 reproduced", "old"]
    for score, before in zip(scores, old, strict=True):
        text = text.replace(f"| {score} |", f"| {before} |", 1)
    assert text == README.replace("\nold\n", "\nNothing is measured yet.\n")


def test_the_page_of_claims_has_a_row_a_claim_and_their_rules(checkout):
    pages.main([])
    text = (checkout / "notebooks" / "claims" / "README.md").read_text()
    assert "3 claims: 1 reproduced, 1 partly, 1 inconclusive." in text
    assert all(f"| **{word}** | {meaning} |" in text for word, meaning in claims.VERDICTS.items())
    assert "<summary><b>03</b> Denoising (DDPM): 1 reproduced, 1 partly</summary>\n\n| | the paper claims |" in text
    assert (
        "| E1 | first | 3.17 | 1 of 3 (n = 500) | **reproduced** |\n"
        "| E2 | second | a \\| b | 2 of \\*3\\* | **partly**: \\<no> more |\n"
    ) in text
    assert "| **inconclusive** \u2020: n = 9 would |" in text and "- E2: reproduced if a\\_b \\< 3.\n" in text
    assert "- E1: \u2020 reproduced if a\\_b \\< 3. *Changed after the result was seen:* was c\\_d \\< 3.\n" in text
    assert text.count("<details>") == text.count("</details>") == 4
    assert text.index("[01_dpm](../01_dpm.ipynb)") < text.index("[03_ddpm](../03_ddpm.ipynb)")


def test_check_names_the_pages_that_have_parted(checkout, capsys):
    with pytest.raises(SystemExit, match="README.md, notebooks/claims/README.md, bench/README.md: not in step"):
        pages.main(["--check"])
    pages.main([])
    pages.main(["--check"])
    claims.record("03_ddpm", "E1", "first", "3.17", 1.0, "reproduced", headline="1.5 of 3", rule="other")
    with pytest.raises(SystemExit, match=r"^notebooks/claims/README.md: not in step .* Run: tools/bazel run pages$"):
        pages.main(["--check"])
    capsys.readouterr()
    pages.main([])
    assert capsys.readouterr().out == "notebooks/claims/README.md: written\n"


def test_a_ledger_without_a_row_in_the_list_is_named(checkout):
    claims.record("07_clip", "E1", "a", "b", 1.0, "partly", headline="c", rule="d")
    with pytest.raises(SystemExit, match="no paper of the number 07"):
        pages.main([])


@pytest.mark.parametrize("wrong", ["", "<!-- papers -->\n", "<!-- /papers --><!-- papers -->\n", README * 2])
def test_missing_markers_are_named(checkout, wrong):
    (checkout / "README.md").write_text(wrong)
    with pytest.raises(SystemExit, match="needs the line <!-- papers --> and after it the line <!-- /papers -->"):
        pages.main([])
    assert (checkout / "README.md").read_text() == wrong


def test_other_arguments_print_the_usage():
    with pytest.raises(SystemExit, match="--check"):
        pages.main(["--write"])


def test_the_pages_are_in_step_with_the_ledgers_and_the_results():
    pages.main(["--check"])


def test_the_readme_is_a_face():
    text = (paths.root() / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert text.startswith("![") and (paths.root() / re.search(r"\((.*?)\)", text).group(1)).is_file()
    assert sorted(pages.titles(text)) == [f"{i:02}" for i in range(1, 19)]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "bench/README.md"])
def test_commands_find_the_right_python_wherever_they_are_typed(page):
    text = (paths.root() / page).read_text("utf-8")
    assert "tools/bazel run" in text and not re.search(r"python3? (-m (?!venv)|\w+/)", text)


@pytest.mark.parametrize("page", ["README.md", "notebooks/claims/README.md", "bench/README.md"])
def test_tables_can_be_read(page):
    """GitHub gives a cell of 300 characters a column of its own."""
    lines = [line for line in (paths.root() / page).read_text("utf-8").splitlines() if line.startswith("|")]
    assert len(lines) > 5
    assert max(len(cell) for line in lines for cell in re.split(r"(?<!\\)\|", line)) < 300


def test_a_bare_old_python_can_make_the_pages():
    """All that tools/pages.py imports is syntax of Python 3.9, and of the standard library."""
    old, seen = {"lab", "litrev", "bench", "tools"}, set()
    waiting = ["tools.pages"]
    while waiting:
        module = waiting.pop()
        if module in seen or module.split(".")[0] not in old:
            assert module in seen or module.split(".")[0] in sys.stdlib_module_names, f"{module} is a package"
            continue
        seen.add(module)
        path = paths.root() / module.replace(".", "/")
        file = path.with_suffix(".py")
        if not file.exists() and not (file := path / "__init__.py").exists():
            continue  # a name inside a module, or a folder without __init__.py
        tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 9))
        strict = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "strict"]
        assert not strict, f"{file.name}, line {strict}: strict= is not in Python 3.9"
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [name.name for name in node.names]
            if isinstance(node, ast.ImportFrom):
                waiting += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    assert {"lab.claims", "bench.tables", "litrev.paths", "litrev.presets"} <= seen
    assert report.results(paths.root())["speed"]


def test_every_claim_in_a_ledger_is_recorded_by_its_notebook():
    folder = paths.root() / "notebooks"
    for ledger in folder.glob("claims/*.json"):
        notebook = json.loads((folder / f"{ledger.stem}.ipynb").read_text("utf-8"))
        code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
        for claim in claims.read(ledger):
            assert f'"{claim.id}"' in code, f"{ledger.name} holds {claim.id}, which its notebook no longer records"


@pytest.mark.parametrize("ledger", sorted((paths.root() / "notebooks" / "claims").glob("*.json")), ids=lambda f: f.stem)
def test_a_notebooks_own_tables_show_its_ledger(ledger, monkeypatch):
    """A scoreboard is made before the claims below it are recorded: where they have changed, execute once more."""
    monkeypatch.setattr(claims, "_recorded", {})
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    notebook = json.loads((ledger.parent.parent / f"{ledger.stem}.ipynb").read_text("utf-8"))
    shown = []
    for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        last = "".join(cell["source"]).rstrip().splitlines()[-1:]
        for kind in ("scoreboard", "table"):
            if last == [f'claims.{kind}("{ledger.stem}")']:
                stored = [
                    "".join(o["data"]["text/plain"]) for o in cell["outputs"] if "text/plain" in o.get("data", {})
                ]
                remedy = f"tools/bazel run //notebooks:{ledger.stem}.execute, once more for the scoreboard"
                assert stored[-1:] == [repr(getattr(claims, kind)(ledger.stem))], remedy
                shown.append(kind)
    assert "table" in shown

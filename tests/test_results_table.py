"""The README's table is the ledgers', and every claim in a ledger is one that its notebook records."""

import json

import pytest

from lab import claims
from litrev import paths
from tools import results_table

README = f"# litrev\n\n{results_table.BEGIN}\nold\n{results_table.END}\n\nmore\n"


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A checkout with a README and the claims of two notebooks."""
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    monkeypatch.setattr(claims, "_recorded", {})
    (tmp_path / "README.md").write_text(README)
    claims.record("03_ddpm", "E2", "second", "a | b", 2.0, "partly")
    claims.record("03_ddpm", "E1", "first", "3.17", 1.0, "reproduced", n=500)
    claims.record("01_dpm", "E1", "oldest", "5.40", 0.5, "not at this scale")
    return tmp_path


def test_write_puts_every_claim_between_the_markers(checkout):
    results_table.main(["--write"])
    text = (checkout / "README.md").read_text()
    assert text.startswith("# litrev\n\n") and text.endswith("\n\nmore\n") and "old\n" not in text
    rows = text.split(results_table.BEGIN)[1].split(results_table.END)[0].strip().splitlines()[2:]
    assert rows == [
        "| [01_dpm](notebooks/01_dpm.ipynb) | oldest | 5.40 | 0.5 | not at this scale |",
        "| [03_ddpm](notebooks/03_ddpm.ipynb) | first | 3.17 | 1 (n = 500) | reproduced |",
        "|  | second | a \\| b | 2 | partly |",
    ]
    results_table.main(["--check"])


def test_no_claims_leave_nothing_between_the_markers(checkout, tmp_path):
    assert results_table.updated(README, results_table.table(tmp_path / "nowhere")) == README.replace("old\n", "")


def test_check_fails_when_a_number_has_changed(checkout):
    results_table.main(["--write"])
    claims.record("03_ddpm", "E1", "first", "3.17", 1.5, "reproduced", n=500)
    before = (checkout / "README.md").read_text()
    with pytest.raises(SystemExit, match="results_table.py --write"):
        results_table.main(["--check"])
    assert (checkout / "README.md").read_text() == before


@pytest.mark.parametrize("text", ["", results_table.BEGIN, f"{results_table.END}\n{results_table.BEGIN}", README * 2])
def test_missing_markers_are_named(checkout, text):
    (checkout / "README.md").write_text(text)
    with pytest.raises(SystemExit, match="results:begin"):
        results_table.main(["--write"])
    assert (checkout / "README.md").read_text() == text


def test_other_arguments_print_the_usage(checkout):
    with pytest.raises(SystemExit, match="--check"):
        results_table.main([])


def test_the_readme_is_in_step_with_the_ledgers():
    results_table.main(["--check"])


def test_every_claim_in_a_ledger_is_recorded_by_its_notebook():
    folder = paths.root() / "notebooks"
    for ledger in folder.glob("claims/*.json"):
        notebook = json.loads((folder / f"{ledger.stem}.ipynb").read_text("utf-8"))
        code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
        for claim in claims.read(ledger):
            assert f'"{claim.id}"' in code, f"{ledger.name} holds {claim.id}, which its notebook no longer records"

"""A ledger that says what was measured, changes only when that changes, and that a smoke run never touches."""

import json

import pytest

from lab import claims
from litrev import paths


@pytest.fixture
def ledger(monkeypatch, tmp_path):
    """A checkout with no claims at the laptop preset; returns where the ledger of 03_ddpm will be."""
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    monkeypatch.setattr(claims, "_recorded", {})
    return tmp_path / "notebooks" / "claims" / "03_ddpm.json"


def record(id="E3", ours=1.23456, verdict="reproduced", notebook="03_ddpm", **more):
    texts = {"headline": "FD 1.2 against 3.4", "rule": "reproduced if FD < 3.4 beyond the spread"}
    claims.record(notebook, id, "samples look like digits", "FID 3.17", ours, verdict, **(texts | more))


def forget():
    """What a new kernel knows: nothing."""
    claims._recorded.clear()


def test_what_is_recorded_is_read_back(ledger):
    record(ours={"FD": 1.23456, "count": 5}, n=1000, seeds=3, spread={"FD": 0.1}, floor=0.21739, note="a | b")
    forget()
    (claim,) = claims.read(ledger)
    assert claim.ours == {"FD": 1.235, "count": 5} and claim.floor == 0.2174
    assert claim.measured == "FD 1.235 ± 0.1, count 5 (n = 1,000, 3 seeds, real data 0.22)"
    assert (claim.verdict, claim.note, claim.paper) == ("reproduced", "a | b", "FID 3.17")
    assert (claim.headline, claim.rule) == ("FD 1.2 against 3.4", "reproduced if FD < 3.4 beyond the spread")


def test_counts_are_kept_exactly(ledger):
    record(ours={"parameters": 35_746_307, "share": 0.12345678})
    forget()
    assert claims.read(ledger)[0].ours == {"parameters": 35_746_307, "share": 0.1235}
    assert claims.read(ledger)[0].measured == "parameters 35,746,307, share 0.1235"


def test_large_numbers_are_told_without_a_power_of_ten(ledger):
    record(ours={"images": 14_239.4, "step": 0.00002, "work": 1.2e12}, spread={"images": 190.3, "work": 3e9})
    assert claims.read(ledger)[0].measured == "images 14,240 ± 190, step 2e-05, work 1.2e+12 ± 3e+09"


def test_same_numbers_give_the_same_file(ledger):
    for id in ("E10", "E2"):
        record(id)
    first = ledger.read_bytes()
    forget()
    for id in ("E2", "E10"):
        record(id, ours=1.23456 + 1e-9)  # the last bits of a sum
    assert ledger.read_bytes() == first
    assert [entry["id"] for entry in json.loads(first)["claims"]] == ["E2", "E10"]


def test_running_one_cell_again_keeps_the_others(ledger):
    record("E1")
    record("E2")
    forget()
    record("E2", verdict="partly")
    assert [(claim.id, claim.verdict) for claim in claims.read(ledger)] == [("E1", "reproduced"), ("E2", "partly")]


def test_smoke_runs_leave_the_ledger_alone(ledger, monkeypatch):
    record("E1", ours=1.0)
    before = ledger.read_bytes()
    forget()
    monkeypatch.setenv("LITREV_PRESET", "smoke")
    record("E2", ours=99.0)
    assert ledger.read_bytes() == before
    assert "99" in repr(claims.table("03_ddpm")) and "E1" not in repr(claims.table("03_ddpm"))


def test_the_first_rule_that_holds_gives_the_verdict():
    names = ["reproduced", "partly", "contradicted", "inconclusive", "out_of_reach"]
    assert [name.replace("_", " ") for name in names] == list(claims.VERDICTS)
    for i, name in enumerate(names):
        later = dict.fromkeys(names[i:], True) | dict.fromkeys(names[:i], False)
        assert claims.verdict(**later) == claims.verdict(**{name: True}) == name.replace("_", " ")


@pytest.mark.parametrize("rules", [{}, {"reproduced": False, "partly": float("nan") > 1}])
def test_a_result_that_no_rule_foresees_has_no_verdict(rules):
    with pytest.raises(ValueError, match="No rule holds .* add the rule"):
        claims.verdict(**rules)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"ours": float("nan")}, "finite numbers, but ours is"),
        ({"ours": {}}, "finite numbers, but ours is"),
        ({"spread": float("inf")}, "finite numbers, but the spread is"),
        ({"ours": {"FD": 1.0}, "spread": 0.1}, "use the same names"),
        ({"floor": float("nan")}, "the floor is"),
        ({"notebook": "../03_ddpm"}, "is no notebook's name"),
        ({"verdict": "great"}, "'great' is none of .*claims.verdict"),
        ({"verdict": "not at this scale"}, "is none of"),
        ({"headline": ""}, "E3 has no headline"),
        ({"headline": "x" * 71}, "the headline is one line of at most 70"),
        ({"rule": "  "}, "E3 has no rule"),
        ({"rule": "one\ntwo"}, "the rule is one line"),
        ({"note": "x" * 241}, "the note is one line of at most 240"),
        ({"changed": None}, "the changed is one line"),
        ({"verdict": "inconclusive"}, "'inconclusive' and has no note: the note says what n would settle it"),
        ({"verdict": "out of reach"}, "'out of reach' and has no note: the note says why"),
    ],
)
def test_what_cannot_stand_is_refused_and_changes_nothing(ledger, wrong, said):
    with pytest.raises(ValueError, match=said):
        record(**wrong)
    assert not ledger.exists() and not any(claims._recorded.values())


@pytest.mark.parametrize("given, missing", [("headline", "rule"), ("rule", "headline")])
def test_headline_and_rule_must_be_given(ledger, given, missing):
    with pytest.raises(TypeError, match=missing):
        claims.record("03_ddpm", "E1", "a", "b", 1.0, "partly", **{given: "c"})


def test_a_smoke_run_needs_no_note(ledger, monkeypatch):
    """Its verdicts are noise: the author writes a note for the verdict that the laptop's result has."""
    monkeypatch.setenv("LITREV_PRESET", "smoke")
    record(verdict="inconclusive")
    assert "inconclusive" in repr(claims.table("03_ddpm")) and not ledger.exists()


def test_damaged_ledger_is_named(ledger):
    record(verdict="partly")
    whole = ledger.read_text()
    unknown, unexplained = whole.replace('"partly"', '"great"'), whole.replace('"partly"', '"inconclusive"')
    unruled, untitled = whole.replace('"rule"', '"role"'), whole.replace("FD 1.2 against 3.4", "")
    for content in ("{", "[]", '{"claims": [{"id": "E1"}]}', unknown, unexplained, unruled, untitled):
        ledger.write_text(content)
        forget()
        with pytest.raises(RuntimeError, match="03_ddpm.json is damaged: restore it"):
            record()
        assert ledger.read_text() == content


def test_table_shows_all_claims_in_html_and_text(ledger):
    record("E2", note="see <b>cell</b> 7 | 8", rule="reproduced if a < b", changed="it was a < c, of another quantity")
    record("E1", verdict="partly")
    shown = claims.table("03_ddpm")
    grid, changed = repr(shown).split("\n\n")
    lines = grid.splitlines()
    assert len(lines) == 4 and lines[2].startswith("| E1 |") and lines[3].startswith("| E2 |")
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines)
    assert "| \u2020 reproduced if a < b |" in lines[3] and "\u2020" not in lines[2]
    assert changed == "\u2020 E2, rule changed after the result was seen: it was a < c, of another quantity"
    page = shown._repr_html_()
    assert page.count("<tr>") == 3 and "&lt;b&gt;cell&lt;/b&gt; 7 | 8" in page and page.index("E1") < page.index("E2")
    assert page.count("<th") == 6 and "<td" not in page.splitlines()[1] and "another quantity</p>" in page


def test_empty_table_is_refused(ledger):
    with pytest.raises(ValueError, match="run the cells above first"):
        claims.table("03_ddpm")


@pytest.mark.parametrize("preset", ["laptop", "smoke"])
def test_scoreboard_shows_the_ledger_before_anything_is_recorded(ledger, monkeypatch, preset):
    record("E1")
    record("E2", verdict="partly")
    record("E3", verdict="out of reach", note="needs a cluster")
    record("E4")
    forget()
    monkeypatch.setenv("LITREV_PRESET", preset)
    above, grid = repr(claims.scoreboard("03_ddpm")).split("\n\n")
    assert above == "2 reproduced, 1 partly, 1 out of reach."
    assert grid.splitlines()[4] == "| E3 | samples look like digits | out of reach |"
    page = claims.scoreboard("03_ddpm")._repr_html_()
    assert "2 reproduced, 1 partly" in page and page.count("<tr>") == 5


def test_scoreboard_without_a_ledger_says_so(ledger):
    shown = claims.scoreboard("05_adm")
    assert repr(shown) == "Not measured yet." and "<table>" not in shown._repr_html_()
    with pytest.raises(ValueError, match="is no notebook's name"):
        claims.scoreboard("adm")


def test_committed_ledgers_are_whole():
    """Reading checks verdicts, headlines, rules and notes; what a table shows is short enough for a page."""
    files = sorted((paths.root() / "notebooks" / "claims").glob("*.json"))
    assert len(files) >= 5
    for file in files:
        found = claims.read(file)
        assert len(found) >= 5 and len({claim.id for claim in found}) == len(found), file.name
        assert json.loads(file.read_text("utf-8"))["notebook"] == file.stem


def test_a_checkout_that_cannot_be_written_costs_one_sentence(ledger, monkeypatch, capsys):
    def refused(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(paths, "write_atomically", refused)
    record()
    assert capsys.readouterr().out == (
        "03_ddpm: its ledger of claims is not kept (Read-only file system); this session has them.\n"
    )
    assert "samples look like digits" in repr(claims.table("03_ddpm"))

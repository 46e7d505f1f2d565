"""A ledger that says what was measured, changes only when that changes, and that a smoke run never touches."""

import json

import pytest

from lab import claims


@pytest.fixture
def ledger(monkeypatch, tmp_path):
    """A checkout with no claims at the laptop preset; returns where the ledger of 03_ddpm will be."""
    monkeypatch.setenv("LITREV_ROOT", str(tmp_path))
    monkeypatch.setenv("LITREV_PRESET", "laptop")
    monkeypatch.setattr(claims, "_recorded", {})
    return tmp_path / "notebooks" / "claims" / "03_ddpm.json"


def record(id="E3", ours=1.23456, verdict="reproduced", notebook="03_ddpm", **more):
    claims.record(notebook, id, "samples look like digits", "FID 3.17", ours, verdict, **more)


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


def test_counts_are_kept_exactly(ledger):
    record(ours={"parameters": 35_746_307, "share": 0.12345678})
    forget()
    assert claims.read(ledger)[0].ours == {"parameters": 35_746_307, "share": 0.1235}
    assert claims.read(ledger)[0].measured == "parameters 35,746,307, share 0.1235"


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


def test_verdicts_come_from_rules(ledger):
    assert claims.verdict(reproduced=True, partly=True) == "reproduced"
    assert claims.verdict(reproduced=False, partly=True) == "partly"
    assert claims.verdict(reproduced=False) == "not at this scale"
    with pytest.raises(ValueError, match="'great' is none of .*claims.verdict"):
        record(verdict="great")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"ours": float("nan")}, "finite numbers, but ours is"),
        ({"ours": {}}, "finite numbers, but ours is"),
        ({"spread": float("inf")}, "finite numbers, but the spread is"),
        ({"ours": {"FD": 1.0}, "spread": 0.1}, "use the same names"),
        ({"floor": float("nan")}, "the floor is"),
        ({"notebook": "../03_ddpm"}, "is no notebook's name"),
    ],
)
def test_what_cannot_stand_is_refused_and_changes_nothing(ledger, wrong, said):
    with pytest.raises(ValueError, match=said):
        record(**wrong)
    assert not ledger.exists()


def test_damaged_ledger_is_named(ledger):
    ledger.parent.mkdir(parents=True)
    for content in ("{", "[]", '{"claims": [{"id": "E1"}]}'):
        ledger.write_text(content)
        with pytest.raises(RuntimeError, match="03_ddpm.json is damaged: restore it"):
            record()
        assert ledger.read_text() == content


def test_table_shows_all_claims_in_html_and_text(ledger):
    record("E2", note="see <b>cell</b> 7 | 8")
    record("E1", verdict="partly")
    shown = claims.table("03_ddpm")
    lines = repr(shown).splitlines()
    assert len(lines) == 4 and lines[2].startswith("| E1 |") and lines[3].startswith("| E2 |")
    assert all(line.replace("\\|", "").count("|") == 6 for line in lines)
    page = shown._repr_html_()
    assert page.count("<tr>") == 3 and "&lt;b&gt;cell&lt;/b&gt; 7 | 8" in page and page.index("E1") < page.index("E2")


def test_empty_table_is_refused(ledger):
    with pytest.raises(ValueError, match="run the cells above first"):
        claims.table("03_ddpm")

"""The bench: how long readers wait for notebooks, what an image costs as it grows, and the table of 13."""

import importlib
import json
import os
import shutil
import subprocess
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image as Picture

from bench import children, figure, growth, notebooks, report
from litrev import paths
from tools.jupyter import kernel

bench = importlib.import_module("bench.__main__")

FIGURE = "import base64\nfrom IPython.display import Image, display\ndisplay(Image(base64.b64decode('iVBORw0KGgo=')))"
TINY = [
    "import os, time\nfrom pathlib import Path\ntime.sleep(0.6)",
    FIGURE,
    "time.sleep(1.2)\nprint(os.environ.get('OMP_WAIT_POLICY'))",
    "print(Path('claims/00_tiny.txt').write_text('changed'), *Path(os.environ['LITREV_RUNS']).glob('*'))",
]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one tiny notebook and its ledger, which a machine of its own has run before."""
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(tmp_path))
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "README.md").write_text("<!-- bench -->\n<!-- /bench -->\n")
    (tmp_path / "README.md").write_text("<!-- papers -->\n<!-- /papers -->\n<!-- speed -->\n<!-- /speed -->\n")
    (tmp_path / "data" / "runs").mkdir(parents=True)
    (tmp_path / "data" / "runs" / "kept").touch()
    (tmp_path / "notebooks" / "claims").mkdir(parents=True)
    (tmp_path / "notebooks" / "claims" / "00_tiny.txt").write_text("as it was")
    return tmp_path


def store(checkout, *sources):
    cells = [new_code_cell(source) for source in sources]
    nbformat.write(new_notebook(cells=cells), checkout / "notebooks" / "00_tiny.ipynb")


def test_a_notebook_is_timed_to_its_first_figure_and_to_its_end(checkout, capfd):
    store(checkout, *TINY)
    found = notebooks.waiting("00_tiny", checkout)
    assert 0 < found["start"] < found["figure"] - 0.6 and found["figure"] < found["all"] - 1.2
    assert found["waits"] == "launcher" and found["busy"] is False and found["name"] == "00_tiny"
    assert 0 < found["cpu"] < 60 and found["processor"] == children.machine()["processor"]
    assert "\nPASSIVE\n" in (shown := capfd.readouterr().out)
    assert "\n7\n" in shown  # the ledger was written, in a copy, and no run of this machine was there
    assert (checkout / "notebooks" / "claims" / "00_tiny.txt").read_text() == "as it was"


def test_the_setting_for_waiting_threads_can_be_left_out(checkout, capfd):
    store(checkout, "import os", TINY[2].removeprefix("time.sleep(1.2)\n"))
    before = dict(os.environ)
    assert notebooks.waiting("00_tiny", checkout, "none")["waits"] == "none"
    assert "\nNone\n" in capfd.readouterr().out and dict(os.environ) == before


def test_the_launcher_lets_waiting_threads_sleep(tmp_path):
    assert kernel.environment(tmp_path, tmp_path)["OMP_WAIT_POLICY"] == "PASSIVE"


def test_other_work_runs_beside_and_ends(monkeypatch):
    started = []

    def popen(command):
        started.append(subprocess.Popen([*command]))
        return started[-1]

    monkeypatch.setattr(notebooks, "subprocess", SimpleNamespace(Popen=popen))
    with pytest.raises(KeyboardInterrupt), notebooks.work_beside(2):
        assert [other.poll() for other in started] == [None, None]
        raise KeyboardInterrupt
    assert all(other.poll() for other in started)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("1 / 0", "00_tiny has a cell that failed:(.|\n)*ZeroDivisionError"),
        ("print('net: measured now in 3 s')", "made net anew"),
    ],
)
def test_what_fails_or_trains_is_no_waiting_time(checkout, source, sentence):
    store(checkout, source)
    with pytest.raises(RuntimeError, match=sentence):
        notebooks.waiting("00_tiny", checkout)


def row(name, waits="launcher", busy=False, processor="P", **times):
    about = {"name": name, "processor": processor, "waits": waits, "busy": busy, "cores": 2, "date": "2000-01-01"}
    return about | {"start": 1.0, "figure": 4.5, "all": 20.0, "cpu": 30.0} | times


def test_the_bench_keeps_one_time_of_each_notebook_and_setting(checkout, monkeypatch, capsys):
    store(checkout, "1")
    times = iter((20.0, 30.0, 40.0, 50.0))

    def waiting(name, root, waits, busy):
        assert root == checkout
        return row(name, waits, busy, all=next(times))

    monkeypatch.setattr(notebooks, "waiting", waiting)
    bench.main(["notebooks", "--write"])
    bench.main(["notebooks", "--busy", "--waits", "launcher", "none", "--write"])
    bench.main(["notebooks"])
    kept = report.results(checkout)["notebooks"]
    assert [(row["waits"], row["busy"], row["all"]) for row in kept] == [
        ("launcher", False, 20.0),
        ("launcher", True, 30.0),
        ("none", True, 40.0),
    ]
    assert "| 00_tiny | 4.50 | 50.0 | 30.0 | 2000-01-01 |" in capsys.readouterr().out  # shown, not kept
    page = (checkout / "bench" / "README.md").read_text()
    assert "| 00_tiny | 4.50 | 20.0 | 30.0 | 2000-01-01 |" in page
    assert "| 00_tiny | launcher | 20.0 | 30.0 | 1.5x | 30.0 | 30.0 |" in page
    assert "| 00_tiny | none |  | 40.0 |  |  | 30.0 |" in page


def test_a_notebook_that_cannot_be_measured_is_left_out(checkout, monkeypatch, capsys):
    store(checkout, "1")
    shutil.copy(checkout / "notebooks" / "00_tiny.ipynb", checkout / "notebooks" / "01_well.ipynb")

    def waiting(name, *rest):
        if name == "00_tiny":
            raise RuntimeError("00_tiny has a cell that failed.")
        return row(name)

    monkeypatch.setattr(notebooks, "waiting", waiting)
    bench.main(["notebooks", "--write"])
    assert "00_tiny has a cell that failed.\n" in capsys.readouterr().out
    assert [kept["name"] for kept in report.results(checkout)["notebooks"]] == ["01_well"]
    with pytest.raises(SystemExit):
        bench.main(["notebooks", "--notebooks", "02_unknown"])
    assert "invalid choice: '02_unknown'" in capsys.readouterr().err


def test_each_processor_has_its_table_of_waiting_times():
    rows = [row("00_a", processor="old"), row("00_a", figure=6.0) | {"date": "2000-01-02"}, row("00_b", "none")]
    first, second = report.waiting(rows).split(": old, 2 cores.")
    assert "P, 2 cores." in first and "| 00_a | 6.00 |" in first and "| 00_b | none | 20.0 |  |  | 30.0 |  |" in first
    assert "| 00_a | 4.50 |" in second and "00_b" not in second
    assert report.waiting([]) == ""


def test_import_time_beyond_torch_is_without_torchs():
    (code,) = (code for name, code in bench.IMPORTS.items() if "beyond torch" in name)
    assert 0 < children.import_seconds(code) < children.import_seconds("import torch")


def grown(costs, name="N"):
    """Rows of one network, {(millions, size): CPU milliseconds}; its multiplications are in proportion to both."""
    shares, rows = dict.fromkeys(report.KINDS, 0.2), []
    for (millions, size), ms in costs.items():
        about = {"name": name, "millions": millions, "size": size, "parameters": int(1e6 * millions)}
        spread = {"median": ms, "low": ms, "high": ms}
        gflop = 1e-4 * millions * size**2
        rows.append(about | {"gflop": gflop, "ms": spread, "alone": 5.0, "shares": shares})
    return rows


SIZES = (28, 32, 48, 64)


def test_a_line_leaves_proportion_where_its_cost_no_longer_grows_with_its_size():
    pixels = [size**2 for size in SIZES]
    assert report.proportion(pixels, [3.0 * n for n in pixels]) == pytest.approx([1, 1, 1, 1])
    assert report.leaves(report.proportion(pixels, [1e-3 * n for n in pixels])) is None
    attention = [n + n**2 / 10_000 for n in pixels]  # (1 + n / 10^4) / (1 + 784 / 10^4): 1.14 at 48, 1.31 at 64
    factors = report.proportion(pixels, attention)
    assert factors[2:] == pytest.approx([1.2304 / 1.0784, 1.4096 / 1.0784]) and report.leaves(factors) == 3
    fixed = [n + 2000 for n in pixels]  # a part that does not grow: 0.83 at 32 already
    assert report.leaves(report.proportion(pixels, fixed)) == 1
    assert report.leaves([1.0, 0.86, 1.14]) is None and report.leaves([1.0, 0.84]) == 1


def test_tables_of_growth_say_where_it_is_out_of_proportion():
    cheap = grown({(m, s): m * s**2 * (1 if s < 64 else 0.5) for m in (1, 2) for s in SIZES})
    dear = grown({(m, s): m**2 * s**2 for m in (1, 2) for s in SIZES}, name="D")
    machine = {"processor": "P", "torch": "2.0"}
    about = {"date": "2000-01-01", "machine": machine, "settings": {"batch": 64, "rounds": 5}, "rows": cheap + dear}
    text = report.growth([about | {"date": "1999-12-31", "machine": machine | {"processor": "other"}}, about])
    first, second = text.split("1999-12-31: other")
    assert "2000-01-01: P, one core" in first and "growth.png" in first and "growth.png" not in second
    here = "cheaper from 64x64 on; 64x64: 0.50x, multiplications 1.00x"
    assert f"| pixels, 1M parameters | {here} | in proportion; 64x64: 1.00x, multiplications 1.00x |" in first
    there = "dearer from 2.0M on; 2.0M: 2.00x, multiplications 1.00x"
    assert f"| parameters, 28x28 | in proportion; 2.0M: 1.00x, multiplications 1.00x | {there} |" in first
    assert "| N | 1.00M | 64x64 | 2,048 | 0.410 | 0.20 | 5.00 | 0.50x | 1.00x | 20% | 20% | 20% | 20% | 20% |" in first
    assert report.growth([]) == ""


def test_a_grid_measures_cost_work_and_where_time_goes(monkeypatch):
    monkeypatch.setattr(growth, "NETWORKS", {"DiT": "litrev_dit"})
    grid = growth.Grid([0.4], [28, 64], 2)
    small, large = grid.measure(2, 0.0)
    assert (small["size"], large["size"]) == (28, 64) and small["parameters"] == large["parameters"] == 391_504
    assert small["ms"]["low"] <= small["ms"]["median"] < large["ms"]["median"]
    assert large["gflop"] / small["gflop"] == pytest.approx(6.86, abs=0.02)  # 5.22 times the tokens, and their square
    for found in (small, large):
        assert (
            found["alone"] > 0
            and found["shares"].keys() == report.KINDS.keys()
            and sum(found["shares"].values()) == pytest.approx(1, abs=0.01)
        )
    assert large["shares"]["attention"] > small["shares"]["attention"] > 0


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::mm", "products"),
        ("aten::bmm", "attention"),
        ("aten::_softmax_backward_data", "attention"),
        ("aten::copy_", "copies"),
        ("aten::_fused_adamw_", "optimiser"),
        ("Optimizer.step#AdamW.step", "optimiser"),
        ("aten::mul", "rest"),
    ],
)
def test_operators_have_their_kind(operator, kind):
    assert growth.kind(operator) == kind and set(report.KINDS) == {*growth.KINDS, growth.REST}


@pytest.mark.parametrize("build", growth.NETWORKS.values())
def test_networks_of_six_million_parameters_are_there(build):
    from bench import subjects

    assert sum(p.numel() for p in getattr(subjects, build)(6.0, 64).net.parameters()) == pytest.approx(6e6, rel=0.05)


def test_growth_is_kept_and_drawn(checkout, monkeypatch, capsys):
    rows = grown({(m, s): m * s**2 + s**4 / 5000 for m in (0.4, 1.6) for s in SIZES})
    about = {"date": "2000-01-01", "machine": {"processor": "P", "torch": "2.0"}}
    monkeypatch.setattr(bench, "growth", lambda settings: about | {"settings": settings, "rows": rows})
    bench.main(["growth", "--quick"])
    assert "the median of 1 rounds" in capsys.readouterr().out and not (checkout / "bench" / "growth.png").exists()
    bench.main(["growth", "--write"])
    bench.main(["growth", "--write"])
    (kept,) = json.loads((checkout / "bench" / "results" / "growth.json").read_text())
    assert kept["rows"] == rows and kept["settings"] == bench.GROWTH
    with Picture.open(checkout / "bench" / "growth.png") as drawn:
        assert 1900 < drawn.width < 2100 and drawn.convert("L").getextrema()[0] < 50  # 1,000 pixels of a page
    assert "growth.png" in (checkout / "bench" / "README.md").read_text()


def test_a_figure_marks_what_leaves_proportion(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figure.plots, "png", lambda figure: drawn.append(figure) or b"")
    figure.draw(grown({(m, s): m * s**2 * (2 if s == 64 else 1) for m in (1, 2) for s in SIZES}), tmp_path / "a.png")
    pixels, parameters = drawn[0].axes
    rings = [
        [line for line in axis.lines if line.get_markersize() == 11 and len(line.get_xdata())] for axis in drawn[0].axes
    ]
    assert [line.get_xdata()[0] for line in rings[0]] == [64**2] * 2 and rings[1] == []
    assert [text.get_text() for text in pixels.texts] == ["2.00x"] * 2
    assert [text.get_text() for text in parameters.texts] == ["1.00x"] * 2  # of the smallest and the largest images


PRINTED = (
    "cm_table_CD: shipped; measured in 1 s.\n"
    "calls                  1           2\n"
    "DDIM         48.93 ± 0.01  4.07 ± 0.07\n"
    "CD            0.57 ± 0.02  0.18*\n"
    "progressive   0.40 ± 0.02\n"
    "n = 1000, 3 seeds (*: one); real digits 0.19; your guess: None calls\n"
)


def printing(text):
    cell = new_code_cell("1")
    cell.outputs = [new_output("stream", text=text)]
    return new_notebook(cells=[new_code_cell("0"), cell])


def test_the_table_of_calls_is_what_the_notebook_has_printed():
    head, _, *rows = report.few_calls(printing(PRINTED)).split("\n\n")[0].splitlines()
    assert head == "| Frechet distance by network calls (n = 1000, 3 seeds; real digits 0.19) | 1 | 2 |"
    assert rows == [
        "| DDIM | 48.93 ± 0.01 | 4.07 ± 0.07 |",
        "| consistency distillation | 0.57 ± 0.02 | 0.18 (one seed) |",
        "| progressive distillation | 0.40 ± 0.02 |  |",
    ]
    for other in ("calls 1 2\n", PRINTED.replace("0.18*", "0.18 (one seed)")):
        with pytest.raises(SystemExit, match="no longer prints its table"):
            report.few_calls(printing(other))


def test_the_page_has_the_table_of_the_notebook_as_it_is_stored():
    text = (paths.root() / "notebooks" / f"{report.CALLS}.ipynb").read_text("utf-8")
    table = report.few_calls(json.loads(text))
    assert set(report.METHODS.values()) == {line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:-2]}
    assert table in (paths.root() / "bench" / "README.md").read_text("utf-8")

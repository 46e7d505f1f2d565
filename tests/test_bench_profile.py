"""The bench: where the time of a training step goes, and what torch.compile costs and gives."""

import importlib
import json
import time

import pytest
import torch
from torch import nn

from bench import children, compiled, profiled, report, speed, subjects

bench = importlib.import_module("bench.__main__")
MACHINE = {"processor": "P", "torch": "2.0"}


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("convolution_backward", "convolutions"),
        ("addmm", "products"),
        ("bmm", "attention"),
        ("_softmax_backward_data", "attention"),
        ("native_layer_norm_backward", "norms"),
        ("_to_copy", "copies"),
        ("_fused_adamw_", "optimiser"),
        ("addcmul", "elementwise"),
        ("transpose", "between"),
    ],
)
def test_operators_have_their_kind(operator, kind):
    assert profiled.kind(operator) == kind
    assert set(report.PROFILE) == {*profiled.KINDS, profiled.ELEMENTWISE, profiled.BETWEEN}


def test_a_clock_counts_cpu_time_and_flops_forward_and_backward():
    net, x = nn.Conv2d(4, 8, 3, padding=1, bias=False), torch.randn(2, 4, 6, 6, requires_grad=True)
    with profiled.Clock() as clock:
        net(x).square().sum().backward()
        time.sleep(0.2)
    assert clock.flops == {"convolutions": 3 * 2 * 2 * 36 * 4 * 8 * 9}
    assert set(clock.seconds) >= {"convolutions", "elementwise"} and sum(clock.seconds.values()) < 0.15


def test_a_profile_divides_steps_in_each_precision(monkeypatch):
    monkeypatch.setattr(speed, "CONV_SHAPES", [(4, 6)])
    monkeypatch.setattr(speed, "MATMUL_SHAPES", [(32, 32, 32)])
    monkeypatch.setattr(speed, "bfloat16_pays", lambda device: True)  # for the ceiling's labels
    profile = profiled.Profile([0.4], 2)
    rows = profile.measure(1, 0.0)
    keys = [(row["name"], row["precision"]) for row in rows]
    assert keys == [(name, precision) for name in ("U-Net", "DiT") for precision in ("bfloat16", "float32")]
    for row in rows:
        assert set(row["ms"]) == set(report.PROFILE) and min(row["ms"].values()) >= 0 < row["ceiling"]
        assert ("convolutions" in row["rates"]) == (row["name"] == "U-Net") and row["rates"]["products"] > 0
        assert row["gflop"] == pytest.approx(2 * {"U-Net": 0.116, "DiT": 0.072}[row["name"]], rel=0.02)
    text = report.profiles([{"date": "2000-01-01", "machine": MACHINE, "settings": bench.PROFILE, "rows": rows}])
    assert "2000-01-01: P, one core" in text and "| DiT, 0.4M, float32 |" in text


def test_a_profiles_table_has_shares_of_the_step_and_of_the_ceiling():
    row = {"name": "DiT", "millions": 0.4, "precision": "float32", "step": 10.0, "gflop": 0.5, "ceiling": 100.0}
    row |= {"ms": {"products": 6.0, "attention": 3.0, "between": 1.0}, "rates": {"products": 80.0}}
    text = report.profiles([{"date": "2000-01-01", "machine": MACHINE, "settings": bench.PROFILE, "rows": [row]}])
    assert "| DiT, 0.4M, float32 | 10.0 | 50% | 80% | 0% | 60% | 30% | 0% | 0% | 0% | 0% | 10% |" in text
    assert report.profiles([]) == ""


@pytest.fixture
def untranslated(monkeypatch):
    """torch.compile that traces, but leaves the graphs as they are: no C++ compiler is asked."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *what, **options: real(*what, **options | {"backend": "eager"}))
    monkeypatch.setattr(compiled.blocks, "bfloat16_pays", compiled.blocks.bfloat16_pays)  # put back at the end
    yield
    torch._dynamo.reset()


def test_a_compiled_optimiser_takes_the_same_steps(untranslated, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.full(shape, 0.3, dtype=options.get("dtype")))
    ends, images = [], torch.linspace(-1, 1, 2 * 784).reshape(2, 1, 28, 28)
    for steps, way in [(0, "nothing"), (3, "nothing"), (3, "optimiser")]:
        torch.manual_seed(0)
        subject = subjects.litrev_unet(0.4, 28)
        step = compiled._compiled_step(subject, images) if way == "optimiser" else None
        for _ in range(steps):
            step() if step else subjects.step(subject, images)
        ends.append(torch.cat([p.detach().flatten() for p in subject.net.parameters()]))
        assert all(p.grad is None for p in subject.net.parameters())
    start, plain, same = ends  # AdamW makes whole steps of gradients that are nothing but rounding
    assert (same - plain).norm() < 0.03 * (plain - start).norm()


@pytest.mark.parametrize("part", bench.COMPILE["compiled"])
def test_each_way_to_compile_trains(part, untranslated):
    trainee = compiled.Trainee("U-Net", 0.4, part, 2)
    assert trainee.facts()["first"] > 0 and trainee.train(0.0) > 0


def test_what_is_compiled_takes_turns_and_is_kept(monkeypatch, tmp_path, capsys):
    turns = []

    class Child(children.Child):
        def __init__(self, what, name, millions, part, batch):
            self.part = part

        def call(self, method, *args):
            if method == "facts":
                return {"first": {"nothing": 1.0, "network": 41.0}.get(self.part, 90.0), "torch": "2.0"}
            turns.append(self.part)
            return {"nothing": 100.0, "network": 125.0}.get(self.part, 80.0)

        def __exit__(self, *problem):
            pass

    monkeypatch.setattr(children, "Child", Child)
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(tmp_path))
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "README.md").write_text("<!-- bench -->\n<!-- /bench -->\n")
    (tmp_path / "README.md").write_text("<!-- papers -->\n<!-- /papers -->\n<!-- speed -->\n<!-- /speed -->\n")
    bench.main(["compile", "--write"])
    (kept,) = json.loads((tmp_path / "bench" / "results" / "compile.json").read_text())
    assert kept["machine"]["torch"] == "2.0" and len(kept["rows"]) == 12
    assert turns[:6] == 2 * ["nothing", "network", "network and optimiser"]
    # 128 images in 1.28 s, then in 1.024 s: 40 s of compilation are paid for by 156 steps
    assert "| U-Net, 0.4M | network | 125 (125-125) | 1.25x | 41.0 | 156 |" in capsys.readouterr().out
    page = (tmp_path / "bench" / "README.md").read_text()
    assert "| U-Net, 0.4M | nothing | 100 (100-100) | 1.00x | 1.00 |  |" in page
    assert "| DiT, 1.6M | network and optimiser | 80.0 (80.0-80.0) | 0.80x | 90.0 | never |" in page

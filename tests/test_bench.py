"""The benchmark measures what it says: peers train and sample as adapted, FLOPs and CPU time are counted, nothing that
took long is repeated, and the pages show what is kept."""

import importlib
import platform
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench import children, quality, solver, speed, subjects, tables
from lab import recipe
from litrev import data

bench = importlib.import_module("bench.__main__")
BUILDS = [build for build, _ in bench.NETWORKS.values()]


def images(n):
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("build", BUILDS)
def test_every_subject_trains_and_samples(build):
    torch.manual_seed(0)
    subject = getattr(subjects, build)(0.4, 28)
    before = weights(subject.net)
    subjects.step(subject, images(2))
    after = weights(subject.net)
    assert not torch.equal(before, after)
    assert all(p.grad is None for p in subject.net.parameters())
    samples = subject.sample(3, 8)
    assert samples.shape == (3, 1, 28, 28) and samples.isfinite().all()
    assert -1 <= samples.min() < -0.2 and 0.2 < samples.max() <= 1
    assert torch.equal(weights(subject.net), after)  # the average was lent, not given


@pytest.mark.parametrize("build", BUILDS)
def test_every_subject_learns_v_of_images_between_minus_one_and_one(build):
    """For images of -1 and 1 the mean square of v = alpha eps - sigma x0 is 1 at every time; lucidrains' library
    weighs it with alpha^2, whose mean over the symmetric sigmoid schedule is a half, and k-diffusion's takes images of
    the deviation 0.6162."""
    torch.manual_seed(0)
    subject = getattr(subjects, build)(0.4, 28)
    plain = not build.startswith("diffusers")
    zeros = torch.zeros_like if plain else lambda x: SimpleNamespace(sample=torch.zeros_like(x))
    subject.net.forward = lambda x, *rest, **named: zeros(x)
    x0 = images(2000).sign() * (0.6162 if build == "k_diffusion_unet" else 1.0)
    assert subject.loss(x0).item() == pytest.approx(0.5 if build == "lucidrains" else 1.0, rel=0.04)


@pytest.mark.parametrize("millions", [0.4, 1.6])
@pytest.mark.parametrize("build", BUILDS)
def test_parameters_match(build, millions):
    size = sum(p.numel() for p in getattr(subjects, build)(millions, 28).net.parameters()) / 1e6
    assert size == pytest.approx(millions, rel=0.12)


def test_averages_follow_the_weights():
    """Sampling uses the average: after many steps on one batch it has moved too."""
    for build in ("litrev_unet", "diffusers_dit"):
        torch.manual_seed(0)
        subject = getattr(subjects, build)(0.4, 28)
        draws = []
        for steps in (1, 15):
            for _ in range(steps):
                subjects.step(subject, torch.ones(4, 1, 28, 28))
            torch.manual_seed(1)
            draws.append(subject.sample(4, 4))
        assert not torch.allclose(*draws, atol=1e-3)


def test_flops_are_those_of_torchs_counter_with_attention_and_by_precision():
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
    x, q = torch.randn(2, 1, 4, 4), torch.randn(2, 4, 16, 8, requires_grad=True)

    def work():
        net(x).sum().backward()
        nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()

    with FlopCounterMode(display=False) as expected:
        work()
    with speed.Flops() as counted:
        work()
        torch.randn(3, 4, dtype=torch.bfloat16) @ torch.randn(4, 5, dtype=torch.bfloat16)
    assert counted.of == {torch.float32: expected.get_total_flops(), torch.bfloat16: 2 * 3 * 4 * 5}
    attention = [flops for op, flops in expected.get_flop_counts()["Global"].items() if "attention" in str(op)]
    forward = 2 * 2 * (2 * 4) * 16 * 16 * 8  # two products, each of 16 x 16 x 8 for 2 images of 4 heads
    assert forward in attention and sum(attention) >= 3 * forward


def test_time_is_cpu_time():
    assert speed.per_second(lambda: time.sleep(0.1), 0) > 50

    def spin():
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    assert speed.per_second(spin, 0.1) == pytest.approx(50, rel=0.1)


def test_a_trainee_measures():
    trainee = speed.Trainee("litrev_unet", 0.4, 28, 2)
    facts = trainee.facts()
    assert facts["gflop"] == pytest.approx(0.116, rel=0.01) and facts["parameters"] == 367_652
    assert facts["precision"] in ("bfloat16", "float32") and facts["megabytes"] >= 0
    assert trainee.train(0.0) > 1
    few, many = (max(trainee.sample(evaluations) for _ in range(3)) for evaluations in (4, 12))
    assert few == pytest.approx(many, rel=0.7)  # the cost of 50 evaluations, from however many


def test_the_ceiling_measures(monkeypatch):
    monkeypatch.setattr(speed, "CONV_SHAPES", [(4, 6), (8, 6)])
    monkeypatch.setattr(speed, "MATMUL_SHAPES", [(32, 32, 32)])
    ceiling = speed.Ceiling()
    assert {"conv float32", "conv float32 channels_last", "matmul float32"} <= set(ceiling.labels())
    assert all(ceiling.run(label, 0.0) > 0 for label in ceiling.labels())


def test_a_child_answers_and_fails_by_itself():
    with children.Child("collections:Counter", "aab") as child:
        assert child.call("most_common", 1) == [("a", 2)]
        with pytest.raises(TypeError):
            child.call("most_common", 1, 2)
    with children.Child("platform:nonsense") as child, pytest.raises(RuntimeError):
        child.call("anything")


def test_children_have_one_thread_and_the_launchers_malloc():
    found = children.environment()
    assert found["OMP_NUM_THREADS"] == "1" and found["LITREV_DEVICE"] == "cpu"
    assert ("MALLOC_MMAP_MAX_" in found) == (sys.platform == "linux")


def test_import_time_and_machine():
    assert 0 < children.import_seconds("import json") < 5
    assert children.machine()["processor"] and children.machine()["cores"] >= 1
    assert children.spread([3.0, 1.0, 2.00004]) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_processors_of_one_name_are_told_apart_by_their_instructions(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    (info := tmp_path / "cpuinfo").write_text("model name\t: A B\nflags\t\t: sse avx2 avx512_bf16 fma\n\n")
    assert children._processor(info) == "A B (avx512_bf16)"
    info.write_text("model name\t: A B\nflags\t\t: sse avx2\n")
    assert children._processor(info) == "A B (avx2)"
    assert children._processor(tmp_path / "none") == platform.machine()


def test_measurements_take_turns():
    order = []

    def work(name):
        return lambda: order.append(name) or float(len(order))

    assert bench.interleaved({"a": work("a"), "b": work("b")}, 3)["b"] == {"median": 4.0, "low": 2.0, "high": 6.0}
    assert order == ["a", "b"] * 3


def test_a_network_is_held_against_the_fastest_of_its_kind_and_precision_in_the_same_rounds(monkeypatch):
    limits = {"conv float32": 1.0, "conv float32 channels_last": 4.0, "conv bfloat16": 9.0, "matmul float32": 2.0}
    turns = []

    class Child:
        def __init__(self, what, build="", *rest):
            self.facts = {"precision": "bfloat16" if build == "litrev_unet" else "float32"}

        def call(self, method, *args):
            turns.append((method, *args))
            rate = limits[args[0]] if method == "run" else 3.0
            return {"facts": self.facts, "labels": list(limits), "torch_version": "2.0"}.get(method, rate)

        def __enter__(self):
            return self

        def __exit__(self, *problem):
            pass

    monkeypatch.setattr(children, "Child", Child)
    rows, version = bench.networks(0.4, 28, {"batch": 2, "rounds": 2, "seconds": 0.5, "evaluations": 1})
    found = {row["name"]: row["ceiling"]["median"] for row in rows}
    assert version == "2.0" and rows[0]["train"]["median"] == 3.0
    assert (found[bench.UNET], found[bench.DDP], found[bench.DIT]) == (9.0, 4.0, 2.0)
    rounds = [turn for turn in turns if turn[0] in ("run", "train")]
    half = len(rounds) // 2
    assert rounds[:half] == rounds[half:] and {"run", "train"} == {turn[0] for turn in rounds[:half]}


def test_a_training_spends_its_budget_and_moves_its_learning_rate():
    seen = []
    net = nn.Linear(1, 1)

    def rate(step, done):
        seen.append((step, done))
        return 1 - done

    def loss(x):
        return net(x.mean((1, 2, 3))[:, None]).square().mean()

    adam = torch.optim.SGD(net.parameters(), lr=0.5)
    subject = subjects.Subject(net, loss, [adam], lambda: None, None, rate)
    start = time.process_time()
    steps, spent = quality.train(subject, 4, 0.2, 0)
    assert 0.2 <= spent <= time.process_time() - start < 10
    assert [step for step, _ in seen] == list(range(steps)) and seen[0] == (0, 0.0)
    assert adam.param_groups[0]["lr"] == pytest.approx(0.5 * (1 - seen[-1][1]))


@pytest.mark.parametrize("name", bench.TRIALS)
def test_every_trial_runs(name, monkeypatch, tmp_path):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))  # litrev's changes it for its process
    train, fit = recipe.train, quality.fit  # a few images at a time: not how well a trial learns is tried here

    def small(x0, **options):
        return train(x0[:2000], **options | {"batch": 4 * (1 + ("batch" in options))})

    monkeypatch.setattr(recipe, "train", small)
    monkeypatch.setattr(quality, "fit", lambda *args, **options: fit(*args, **options | {"batch": 4}))
    function, *arguments = bench.TRIALS[name]
    result = getattr(quality, function)(*arguments, 0.01, 0).score(4, 2)
    assert result["steps"] >= 1 and result["n"] == 4 and result["spent"] > 0
    if name != "litrev, scenes by caption":
        assert result["distance"] > result["floor"] > 0
    shares = {"litrev, by class": ["right class"], "litrev, scenes by caption": ["digit", "all", "valid"]}
    assert list(result.get("read", {})) == shares.get(name, [])
    assert all(0 <= share <= 1 for share in result.get("read", {}).values())


def test_a_network_by_class_is_asked_for_the_datas_labels_and_led_away_from_none(monkeypatch, tmp_path):
    """Of a network that paints all pixels as bright as their label is high."""
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    seen, images = [], []

    def net(x, time, label):
        seen.append(label)
        angle = (time / 1000 * torch.pi / 2)[:, None, None, None]
        x0 = torch.where(label == 10, 0.0, 0.05 * label)[:, None, None, None]
        return (x * angle.cos() - x0) / angle.sin()  # v of x0

    monkeypatch.setattr(quality, "_within", lambda train, seconds: ((SimpleNamespace(net=net), 7), 1.5))
    monkeypatch.setattr(quality, "_distance", lambda digits: images.append(digits) or {"distance": 1.0, "floor": 0.5})
    result = quality.by_class(1.0, 0).score(300, 50)
    assert (result["steps"], result["spent"], result["n"], result["distance"]) == (7, 1.5, 300, 1.0)
    told = torch.cat([seen[0], next(label for label in seen if len(label) == 50)])
    assert told.unique().tolist() == list(range(10)) and any((label == 10).all() for label in seen)
    x = data.mnist("train")[0]
    assert images[0].shape == (300, 1, 28, 28)
    torch.testing.assert_close(images[0].mean((1, 2, 3)), 0.05 * told * x.std() + x.mean(), atol=0.02, rtol=0)


def test_the_loss_by_class_hides_a_tenth_of_the_labels():
    seen = []

    def net(x, time, label):
        seen.append(label)
        return x

    batch = torch.zeros(4000, 1, 4, 4), torch.full((4000,), 3)
    assert quality._class_loss(net, batch, torch.Generator().manual_seed(0)).ndim == 0
    assert set(seen[0].tolist()) == {3, 10}
    assert (seen[0] == 10).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_the_recipe_spends_its_budget(monkeypatch, tmp_path):
    monkeypatch.setenv("LITREV_RUNS", str(tmp_path))
    each = {"steps": 0.1, "start": 0.5}
    monkeypatch.setattr(quality, "_timed", lambda train, steps: (None, each["start"] + each["steps"] * steps))
    monkeypatch.setattr(quality, "_recipe", lambda steps, seed, options: None)
    assert quality.litrev_recipe({}, 10.0, 0).steps == 95
    assert quality.litrev_recipe({}, 0.01, 0).steps == 1


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """quality() on children that only count: (the file, the names and seconds they were asked for)."""
    asked = []

    class Child(children.Child):
        def __init__(self, what, *args):
            asked.append((what, *args))

        def call(self, method, n, evaluations):
            return {"distance": float(len(asked)), "floor": 0.1, "n": n, "steps": 1}

        def __exit__(self, *problem):
            pass

    monkeypatch.setattr(children, "Child", Child)
    return tmp_path / "results" / "quality.json", asked


def test_only_missing_trials_are_run(trials):
    file, asked = trials
    bench.quality(["litrev"], [1.0, 2.0], [0], False, 10, file)
    assert asked == [("bench.quality:litrev_recipe", {}, 1.0, 0), ("bench.quality:litrev_recipe", {}, 2.0, 0)]
    bench.quality(["litrev", bench.DIT2D], [1.0], [0, 1], False, 10, file)
    assert [call[-2:] for call in asked[2:]] == [
        (1.0, 0),
        (1.0, 1),
        (1.0, 1),
    ]  # the peer's two and litrev's second seed
    assert len(bench.read(file, [])) == 5
    bench.quality(["litrev"], [1.0], [0], True, 10, file)
    assert len(asked) == 6 and len(bench.read(file, [])) == 5
    assert bench.read(file, [])[-1]["distance"] == 6.0


def measured():
    """Made-up measurements of one size: a library network twice as fast as one peer, at half the ceiling."""

    def spread(value):
        return {"median": value, "low": 0.5 * value, "high": 2 * value}

    def row(name, kind, rate, megabytes):
        facts = {"parameters": 400_000, "gflop": 0.5, "precision": "float32", "megabytes": megabytes}
        place = {"name": name, "millions": 0.4, "size": 28, "kind": kind}
        return {**place, **facts, "train": spread(rate), "ceiling": spread(200.0), "sample": spread(3.0)}

    found = {
        "litrev U-Net": (200.0, 12.0),
        bench.AZULA: (100.0, 96.0),
        bench.DDP: (50.0, 48.0),
        "another": (10.0, 60.0),
    }
    rows = [row(name, "conv", *what) for name, what in found.items()]
    machine = {"processor": "P", "cores": 2, "system": "Linux", "python": "3.11", "torch": "2.0"}
    about = {"date": "2000-01-01", "machine": machine, "settings": {"sizes": [28], "batch": 128, "rounds": 3}}
    return {**about, "networks": rows, "imports": {"torch": spread(1.0)}}


def trial(name, seconds, distance, processor="P"):
    about = {"name": name, "seconds": seconds, "seed": 0, "processor": processor, "n": 1000, "floor": 0.22}
    return {**about, "distance": distance}


def test_tables_say_what_was_measured():
    kept = [trial("litrev", 300.0, 2.0), trial("litrev", 300.0, 4.0), trial("a", 300.0, 12.0), trial("b", 300.0, 20.0)]
    parts = [trial(name, 60.0, distance) for name, distance in [("litrev", 6.0), ("litrev, no x", 8.0)]]
    sampled = [{"name": "D", "steps": 9, "seed": seed, "calls": 10, "distance": 2.0 + seed} for seed in (0, 1)]
    slower = measured() | {"date": "1999-12-31", "machine": measured()["machine"] | {"processor": "another"}}
    text = tables.markdown(
        [slower, measured()], [*kept, trial("litrev", 600.0, 1.4), trial("a", 300.0, 0.1, "another"), *parts], sampled
    )
    row = "| 0.40M | float32 | 200 (100-400) | 0.500 | 100 | 200 (100-400) | 50% | 3.00 (1.50-6.00) | 12.0 |"
    assert f"| litrev U-Net {row}" in text
    assert "| litrev | 3.00 ± 1.41 (2 seeds) | 1.40 (1 seed) |\n| a | 12.0 (1 seed) |  |" in text
    assert (
        "| litrev U-Net, 0.4M: images per core-second of the fastest peer, azula UNet | 2.00x | 3x |\n"
        "| litrev U-Net, 0.4M: memory of the leanest peer, denoising-diffusion-pytorch | 0.25x | 0.33x |\n"
        "| litrev U-Net, 0.4M: of the ceiling | 50% | 60% |\n"
    ) in text
    assert "| distance after 300 core-seconds, of the best peer's | 0.25 | 0.33 |" in text
    assert "| distance after 600 core-seconds | 1.40 | 1.5 |" in text
    assert "| the recipe | 6.00 (1 seed) |\n| the recipe, no x | 8.00 (1 seed) |" in text
    assert "| D, 9 steps | 10 | 2.50 ± 0.71 (2 seeds) |" in text
    assert "real digits 0.22" in text and "2000-01-01: P, 2 cores" in text
    first, second = text.split("Measured on 1999-12-31: another")
    assert "| litrev U-Net | 0.40M |" in second
    assert "| a | 0.10 (1 seed) |" in second and "| a | 0.10" not in first  # each machine has its own trials
    assert "| D, 9 steps |" not in second


def test_samplers_start_from_the_same_noise_and_count_their_calls():
    sampler = solver.Sampler()
    ddim, again = (sampler.distance(solver.DDIM, 3, 0, 12) for _ in range(2))
    assert ddim == again and ddim["calls"] == 3 and ddim["n"] == 12
    multistep = sampler.distance(solver.SOLVER, 3, 0, 12)
    noisy = sampler.distance(solver.NOISY, 3, 0, 12)
    assert noisy["calls"] == 3 and noisy["distance"] not in (multistep["distance"], ddim["distance"])
    assert multistep["calls"] <= 4 and multistep["distance"] != ddim["distance"] > ddim["floor"] > 0


def test_networks_that_were_told_what_to_draw_have_a_table_of_their_own():
    told = [
        trial("litrev, by class", 300.0, d) | {"seed": seed, "read": {"right class": 0.9}}
        for seed, d in [(0, 1), (1, 3)]
    ]
    scenes = trial("litrev, scenes by caption", 300.0, 0.0) | {"n": 512, "read": {"digit": 0.5, "all": 0.25}}
    del scenes["distance"]
    kept = [trial("litrev", 300.0, 2.0), trial("a", 300.0, 12.0)]
    text = tables.markdown([measured()], [*kept, *told, scenes], [])
    assert "| litrev, by class | 300 | 2 | 1000 | distance 2.00 ± 1.41; right class 0.90 ± 0.00 |" in text
    assert "| litrev, scenes by caption | 300 | 1 | 512 | digit 0.50; all 0.25 |" in text
    without = [line for line in tables.markdown([measured()], kept, []).splitlines() if line]
    assert [line for line in text.splitlines() if line in without] == without
    assert tables.brief([measured()], [*kept, *told, scenes]) == tables.brief([measured()], kept)


@pytest.mark.parametrize(
    "precision, target",
    [
        ("bfloat16", "images per core-second of the fastest peer, diffusers DiT | 2.00x | 2x |"),
        ("float32", "of the ceiling | 50% | 60% |"),
    ],
)
def test_a_dit_is_to_lead_with_bfloat16_and_to_be_near_the_ceiling_without(precision, target):
    speed = measured()
    mine, theirs = ({**row, "kind": "matmul"} for row in speed["networks"][:2])
    speed["networks"] += [{**mine, "name": bench.DIT, "precision": precision}, {**theirs, "name": bench.DIT2D}]
    rows = [line for line in tables.markdown([speed], [], []).splitlines() if line.startswith("| litrev DiT, 0.4M")]
    assert rows == [f"| litrev DiT, 0.4M: {target}"]


def test_without_measurements_the_tables_say_so():
    assert tables.markdown([], [], []) == "Nothing is measured yet.\n"


def test_a_brief_table_sets_each_kind_beside_its_best_peer():
    trials = [
        trial("litrev", 300.0, 2.0),
        trial("litrev", 300.0, 4.0),
        trial("a", 300.0, 12.0),
        trial("b", 300.0, 20.0),
    ]
    trials += [trial("b", 600.0, 0.1), trial("litrev, no x", 300.0, 0.2), trial("a", 300.0, 0.3, "another")]
    rows = tables.brief([measured()], trials).splitlines()[2:]
    assert rows == [
        f"| U-Net: images trained per core-second | 200 | 100 ({bench.AZULA}) |",
        f"| U-Net: images sampled (50 calls) per core-second | 3.00 | 3.00 ({bench.AZULA}) |",
        "| Frechet distance after 300 core-seconds (real digits 0.22) | 3.00 | 12.0 (a) |",
    ]
    assert tables.brief([measured()], []).splitlines()[2:] == rows[:2]
    assert tables.brief([], []) == "Nothing is measured yet.\n"


def test_write_keeps_the_measurements_and_updates_the_pages(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(bench, "speed", lambda settings: measured() | {"settings": measured()["settings"] | settings})
    (tmp_path / "README.md").write_text("<!-- papers -->\n<!-- /papers -->\n<!-- speed -->\nold\n<!-- /speed -->\n")
    (page := tmp_path / "bench" / "README.md").parent.mkdir()
    page.write_text("head\n<!-- bench -->\nold\n<!-- /bench -->\ntail\n")
    bench.main(["--quick"])
    assert "old" in page.read_text() and not (tmp_path / "bench" / "results").exists()
    bench.main(["--quick", "--write"])
    shown = capsys.readouterr().out.split("\n\n", 1)[1]
    text = page.read_text()
    assert text.startswith("head\n<!-- bench -->\nMeasured") and text.endswith("<!-- /bench -->\ntail\n")
    assert f"| 200 | 100 ({bench.AZULA}) |" in (tmp_path / "README.md").read_text()
    bench.main(["--quick", "--write"])  # one measurement of a machine is kept
    capsys.readouterr()
    bench.main(["tables"])
    assert capsys.readouterr().out.strip() in text and "litrev U-Net" in shown

"""Tables of speed and quality, for the terminal, for bench/README.md and, in brief, for the README."""

from __future__ import annotations  # the pages are made by any Python from 3.9 on

import json
import statistics
from pathlib import Path

LONG = 300  # CPU seconds: below it, the recipe was trained for the ablation only
COMPARED = [("train", "images trained per core-second"), ("sample", "images sampled (50 calls) per core-second")]
CEILING = (
    "The ceiling is what the same thread reaches, in its turns, with 3x3 convolutions forward and backward (U-Nets) or "
    "matrix products (DiTs), in the network's precision and the faster memory layout. A sample is 50 network "
    "evaluations; memory is what training adds to the imports."
)


def read(file: Path, otherwise):
    """Return what a JSON file holds, or `otherwise` where there is none."""
    return json.loads(file.read_text("utf-8")) if file.exists() else otherwise


def markdown(speeds: list[dict], quality: list[dict], solver: list[dict]) -> str:
    """Return all tables, machine by machine, the one that `speed` measured last first; that one's have also the table
    of samplers, the imports, and what a column means."""
    if not speeds:
        return "Nothing is measured yet.\n"
    parts = []
    for speed in sorted(speeds, key=lambda speed: speed["date"], reverse=True):
        trials, first = _trials(speed, quality), not parts
        parts += [_about(speed), _networks(speed), CEILING if first else "", _quality(trials), _parts(trials)]
        parts.append(_asked([trial for trial in _here(speed, quality) if "read" in trial]))
        parts += [_solver(solver), _imports(speed)] if first else []
        parts.append(_targets(speed, trials))
    return "\n\n".join(part for part in parts if part) + "\n"


def brief(speeds: list[dict], quality: list[dict]) -> str:
    """Return one small table of the smaller networks on the machine that `speed` measured last, for the README."""
    if not speeds:
        return "Nothing is measured yet.\n"
    speed, trials = _latest(speeds, quality)
    networks = [row for row in speed["networks"] if (row["millions"], row["size"]) == (0.4, 28)]
    rows = [_beside_peers(row, networks, *what) for what in COMPARED for row in networks if _is_ours(row["name"])]
    means = {name: mean for (name, budget), mean in _means(trials).items() if budget == LONG}
    best = min((name for name in means if not _is_ours(name)), key=means.get, default=None)
    if best and "litrev" in means:
        what = f"Frechet distance after {LONG} core-seconds (real digits {trials[0]['floor']:.2f})"
        rows.append([what, _number(means["litrev"]), f"{_number(means[best])} ({best})"])
    return _table(["one core, 28x28, about 0.4 M parameters", "litrev", "the best peer"], rows) + "\n"


def _beside_peers(mine: dict, networks: list[dict], key: str, what: str) -> list[str]:
    best = max(_peers(mine, networks), key=lambda peer: peer[key]["median"])
    figures = [_number(row[key]["median"]) for row in (mine, best)]
    return [f"{mine['name'].replace('litrev ', '')}: {what}", figures[0], f"{figures[1]} ({best['name']})"]


def _latest(speeds: list[dict], quality: list[dict]) -> tuple[dict, list[dict]]:
    """The machine that `speed` measured last, and the trials made on it."""
    speed = max(speeds, key=lambda speed: speed["date"])
    return speed, _trials(speed, quality)


def _trials(speed: dict, quality: list[dict]) -> list[dict]:
    """The trials of one machine whose distances are compared; those that were asked for something have a table of their
    own."""
    return [trial for trial in _here(speed, quality) if "read" not in trial]


def _here(speed: dict, quality: list[dict]) -> list[dict]:
    return [trial for trial in quality if trial["processor"] == speed["machine"]["processor"]]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread(found: dict) -> str:
    return f"{_number(found['median'])} ({_number(found['low'])}-{_number(found['high'])})"


def _about(speed: dict) -> str:
    machine, settings = speed["machine"], speed["settings"]
    return (
        f"Measured on {speed['date']}: {machine['processor']}, {machine['cores']} cores, of which one is used; "
        f"{machine['system']}, PyTorch {machine['torch']}, batch {settings['batch']}. Images per core-second count CPU "
        f"time, so that what else the machine does matters little: the median (lowest-highest) of {settings['rounds']} "
        "rounds, in which the networks take turns."
    )


def _networks(speed: dict) -> str:
    sizes = speed["settings"]["sizes"]
    head = [
        "network",
        "parameters",
        "computes in",
        *(f"trains {size}x{size}, images per core-second" for size in sizes),
    ]
    head += ["GFLOP per image", "GFLOP/s", "ceiling, GFLOP/s", "share of it"]
    head += ["samples, images per core-second", "peak memory, MB"]
    rows = []
    for row in (row for row in speed["networks"] if row["size"] == sizes[0]):
        alike = [r for r in speed["networks"] if (r["name"], r["millions"]) == (row["name"], row["millions"])]
        trained = [_spread(next(r for r in alike if r["size"] == size)["train"]) for size in sizes]
        achieved = f"{row['gflop']:.3f}", _number(_gflops(row)), _spread(row["ceiling"]), f"{_share(row):.0%}"
        cells = [row["name"], f"{row['parameters'] / 1e6:.2f}M", row["precision"], *trained, *achieved]
        rows.append([*cells, _spread(row["sample"]), _number(row["megabytes"])])
    return _table(head, rows)


def _gflops(row: dict) -> float:
    return row["train"]["median"] * row["gflop"]


def _share(row: dict) -> float:
    return _gflops(row) / row["ceiling"]["median"]


def _quality(trials: list[dict]) -> str:
    trials = [t for t in trials if t["seconds"] >= LONG and not _is_part(t["name"])]
    if not trials:
        return ""
    budgets = sorted({trial["seconds"] for trial in trials})
    rows = [[name, *(_distance(trials, name, budget) for budget in budgets)] for name in _names(trials)]
    n, floor = trials[0]["n"], trials[0]["floor"]
    head = [f"Frechet distance (n = {n:,}; real digits {floor:.2f})", *(f"{b:g} core-seconds" for b in budgets)]
    return _table(head, rows)


def _is_ours(name: str) -> bool:
    return name.startswith("litrev")


def _is_part(name: str) -> bool:
    return name.startswith("litrev, ")


def _parts(trials: list[dict]) -> str:
    """The ablation: the recipe and the recipe without each part, for the budgets that both were given."""
    parts = [trial for trial in trials if _is_part(trial["name"])]
    budgets = sorted({trial["seconds"] for trial in parts})
    names = ["litrev", *_names(parts)]
    rows = [[name.replace("litrev", "the recipe", 1), *(_distance(trials, name, b) for b in budgets)] for name in names]
    return _table(["what a part of the recipe gives", *(f"{b:g} core-seconds" for b in budgets)], rows) if parts else ""


def _asked(trials: list[dict]) -> str:
    """What was read in the images of networks that were told a label or a caption."""
    rows = []
    for name, budget in sorted({(trial["name"], trial["seconds"]) for trial in trials}):
        alike = [trial for trial in trials if (trial["name"], trial["seconds"]) == (name, budget)]
        found = [{name: t[name] for name in ("distance",) if name in t} | t["read"] for t in alike]
        read = "; ".join(f"{what} {_level([one[what] for one in found])}" for what in found[0])
        rows.append([name, f"{budget:g}", str(len(alike)), str(alike[0]["n"]), read])
    head = ["told what to draw", "core-seconds", "seeds", "images", "what was read in them"]
    return _table(head, rows) if rows else ""


def _solver(trials: list[dict]) -> str:
    asked = dict.fromkeys((trial["name"], trial["steps"]) for trial in trials)
    found = {(name, k): [t["distance"] for t in trials if (t["name"], t["steps"]) == (name, k)] for name, k in asked}
    calls = {(trial["name"], trial["steps"]): trial["calls"] for trial in trials}
    rows = [[f"{name}, {k} steps", str(calls[name, k]), _mean(values)] for (name, k), values in found.items()]
    return _table(["sampler (the shared DDPM on MNIST)", "network calls", "Frechet distance"], rows) if rows else ""


def _names(trials: list[dict]) -> list[str]:
    return list(dict.fromkeys(trial["name"] for trial in trials))


def _distances(trials: list[dict], name: str, budget: float) -> list[float]:
    return [trial["distance"] for trial in trials if (trial["name"], trial["seconds"]) == (name, budget)]


def _distance(trials: list[dict], name: str, budget: float) -> str:
    return _mean(_distances(trials, name, budget))


def _mean(found: list[float]) -> str:
    seeds = f" ({len(found)} seed{'s' * (len(found) > 1)})"
    return _level(found) + seeds if found else ""


def _level(found: list[float]) -> str:
    """The mean, and where there are several, their standard deviation."""
    spread = f" ± {_number(statistics.stdev(found))}" if len(found) > 1 else ""
    return _number(statistics.mean(found)) + spread


def _imports(speed: dict) -> str:
    rows = [[name, _spread(found)] for name, found in speed["imports"].items()]
    return _table(["import, each in a fresh process", "CPU seconds"], rows)


def _targets(speed: dict, trials: list[dict]) -> str:
    rows = []
    for row in (row for row in speed["networks"] if _is_ours(row["name"]) and row["size"] == 28):
        rows += [[f"{row['name']}, {row['millions']}M: {what}", *rest] for what, *rest in _speed_targets(row, speed)]
    return _table(["this library", "measured", "target"], rows + _quality_targets(trials))


def _speed_targets(mine: dict, speed: dict) -> list[list[str]]:
    """A U-Net is to have the lead over all peers in speed and in memory. A DiT multiplies as its peer does: only
    bfloat16 can give it a lead, and without it the ceiling counts."""
    peers = _peers(mine, speed["networks"])
    fastest, leanest = max(peers, key=lambda p: p["train"]["median"]), min(peers, key=lambda p: p["megabytes"])
    lead = f"{mine['train']['median'] / fastest['train']['median']:.2f}x"
    rows, what = [], f"images per core-second of the fastest peer, {fastest['name']}"
    if mine["kind"] == "conv":
        part = f"{mine['megabytes'] / leanest['megabytes']:.2f}x"
        rows = [[what, lead, "3x"], [f"memory of the leanest peer, {leanest['name']}", part, "0.33x"]]
    elif mine["precision"] == "bfloat16":
        return [[what, lead, "2x"]]
    return [*rows, ["of the ceiling", f"{_share(mine):.0%}", "60%"]]


def _peers(mine: dict, networks: list[dict]) -> list[dict]:
    """The other packages' networks of one kind, number of parameters and size of images."""
    alike = [row for row in networks if all(row[key] == mine[key] for key in ("kind", "millions", "size"))]
    return [row for row in alike if not _is_ours(row["name"])]


def _means(trials: list[dict]) -> dict[tuple[str, float], float]:
    return {(t["name"], t["seconds"]): statistics.mean(_distances(trials, t["name"], t["seconds"])) for t in trials}


def _quality_targets(trials: list[dict]) -> list[list[str]]:
    means = _means(trials)
    peers = [mean for (name, budget), mean in means.items() if budget == LONG and not _is_ours(name)]
    rows = []
    if peers and ("litrev", LONG) in means:
        ratio = means["litrev", LONG] / min(peers)
        rows.append(["distance after 300 core-seconds, of the best peer's", f"{ratio:.2f}", "0.33"])
    if ("litrev", 600) in means:
        rows.append(["distance after 600 core-seconds", _number(means["litrev", 600]), "1.5"])
    return rows

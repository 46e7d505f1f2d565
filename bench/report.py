"""The part of bench/README.md that is made: tables.py's, then few calls, growth and waiting times."""

from __future__ import annotations  # the pages are made by any Python from 3.9 on

import json
import re
from pathlib import Path

from bench import tables
from bench.tables import _number, _table

PARTS = ("speed", "quality", "solver", "growth", "profile", "compile", "notebooks")
LINEAR = 0.15  # a cost is in proportion as long as it is within this of it
# What is held while it grows, and how much of it a row has.
GROWS = {"pixels": ("millions", lambda row: row["size"] ** 2), "parameters": ("size", lambda row: row["parameters"])}
CALLS = "13_consistency_models"
METHODS = {
    "ancestral": "DDPM's sampler",
    "DDIM": "DDIM",
    "multistep": "2M solver",
    "progressive": "progressive distillation",
    "CD": "consistency distillation",
    "CT": "consistency training",
}
KINDS = {
    "products": "products with weights",
    "attention": "attention's products and softmax",
    "copies": "copies",
    "optimiser": "optimiser, average",
    "rest": "norms, activations, sums",
}

PROFILE = {  # the kinds of profiled.py
    "convolutions": "convolutions",
    "products": "products with weights",
    "attention": "attention",
    "norms": "norms",
    "elementwise": "modulation, activations, sums",
    "copies": "copies, casts",
    "optimiser": "clipping, optimiser, average",
    "between": "between operators",
}


def results(root: Path) -> dict[str, list[dict]]:
    """Return what each part has kept in the checkout `root`."""
    folder = root / "bench" / "results"
    return {part: tables.read(folder / f"{part}.json", []) for part in PARTS}


def markdown(found: dict[str, list[dict]], root: Path) -> str:
    """Return all tables of what `results` found, and of notebook 13 in the checkout `root`."""
    parts = [tables.markdown(found["speed"], found["quality"], found["solver"]).rstrip("\n")]
    notebook = root / "notebooks" / f"{CALLS}.ipynb"
    parts += [few_calls(json.loads(notebook.read_text("utf-8")))] if notebook.exists() else []
    parts += [growth(found["growth"]), profiles(found["profile"]), compiling(found["compile"])]
    parts.append(waiting(found["notebooks"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def newest_first(measured: list[dict]) -> list[dict]:
    """Return measurements of several machines, or rows, by their date."""
    return sorted(measured, key=lambda one: one["date"], reverse=True)


def few_calls(notebook: dict) -> str:
    """Return the table that notebook 13 has printed; SystemExit when it prints it in another form."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    printed = "\n".join("".join(output.get("text", "")) for output in outputs)
    found = re.search(r"^calls((?: +\d+)+)\n((?:.*\n)*?)(n = .*?); your guess", printed, re.MULTILINE)
    cell = r"[\d.]+(?: ± [\d.]+|\*)"  # a star: one seed
    form = re.compile(rf"(\w+) +((?:{cell} *)+)")
    lines = [form.fullmatch(line) for line in found[2].splitlines()] if found else [None]
    if not all(lines):
        raise SystemExit(
            f"{CALLS} no longer prints its table of distances as bench/report.py reads it: mend few_calls."
        )
    calls, rows = found[1].split(), []
    for name, distances in (line.groups() for line in lines):
        cells = [text.replace("*", " (one seed)") for text in re.findall(cell, distances)]
        rows.append([METHODS[name], *cells, *[""] * (len(calls) - len(cells))])
    head = [f"Frechet distance by network calls ({found[3].replace(' (*: one)', '')})", *calls]
    source = f"As the outputs stored in [{CALLS}](../notebooks/{CALLS}.ipynb) have it."
    return f"{_table(head, rows)}\n\n{source}"


def lines(rows: list[dict]) -> dict[tuple, list[dict]]:
    """Return the rows of growth.json along which one thing grows, by network, that thing (a key of GROWS), and what is
    held: the millions of parameters, or the size of the image."""
    found = {}
    for row in rows:
        for what, (held, _) in GROWS.items():
            found.setdefault((row["name"], what, row[held]), []).append(row)
    return found


def curve(line: list[dict], what: str) -> tuple[list[int], list[float]]:
    """Return what grows along a line, numbers of pixels or of parameters, and the CPU milliseconds of an image."""
    return [GROWS[what][1](row) for row in line], [row["ms"]["median"] for row in line]


def proportion(sizes: list[int], costs: list[float]) -> list[float]:
    """Return how many times each cost is what the first, in proportion to the sizes, would make of it."""
    each = [cost / size for size, cost in zip(sizes, costs)]  # noqa: B905 - strict= is not in Python 3.9
    return [cost / each[0] for cost in each]


def leaves(factors: list[float]) -> int | None:
    """Return the index of the first of `proportion`'s factors that differs from 1 by more than LINEAR, or None."""
    return next((i for i, factor in enumerate(factors) if abs(factor - 1) > LINEAR), None)


def shown(row: dict, what: str) -> str:
    """The image's size, or the number of parameters, in words."""
    return f"{row['size']}x{row['size']}" if what == "pixels" else f"{row['parameters'] / 1e6:.1f}M"


def growth(measurements: list[dict]) -> str:
    """Return figure and tables of what an image costs, the machine that was measured last first."""
    parts = []
    for found in newest_first(measurements):
        about = (
            f"{_about('What an image costs in training', found)}, the median of {found['settings']['rounds']} rounds."
        )
        figure = [] if parts else ["![CPU time of an image against its pixels and against parameters](growth.png)"]
        parts += [about, *figure, _proportions(found["rows"]), _costs(found["rows"])]
    return "\n\n".join(parts)


def _proportions(rows: list[dict]) -> str:
    """From where on each line is out of proportion, how far it is in the end, and how far its multiplications are."""
    found, cells = lines(rows), {}
    for (name, what, held), line in found.items():
        sizes, costs = curve(line, what)
        factors, work = proportion(sizes, costs), proportion(sizes, [row["gflop"] for row in line])
        first, end = leaves(factors), f"{shown(line[-1], what)}: {factors[-1]:.2f}x, multiplications {work[-1]:.2f}x"
        verdict = "in proportion"
        if first is not None:
            verdict = f"{'dearer' if factors[first] > 1 else 'cheaper'} from {shown(line[first], what)} on"
        words = f"{what}, {held}M parameters" if what == "pixels" else f"{what}, {held}x{held}"
        cells.setdefault((list(GROWS).index(what), held, words), {})[name] = f"{verdict}; {end}"
    names = list(dict.fromkeys(name for name, *_ in found))
    head = [f"CPU time of an image, beside proportion (within {LINEAR:.0%}) to", *names]
    return _table(head, [[key[-1], *map(by_name.get, names)] for key, by_name in sorted(cells.items())])


def _costs(rows: list[dict]) -> str:
    found, cells = lines(rows), []
    head = [
        "network",
        "parameters",
        "image",
        "CPU ms an image",
        "GFLOP",
        "GFLOP/s",
        "GFLOP/s of its main product alone",
    ]
    head += [*(f"of proportion to {what}" for what in GROWS), *KINDS.values()]
    for row in rows:
        cost = row["ms"]["median"]
        about = [row["name"], f"{row['parameters'] / 1e6:.2f}M", shown(row, "pixels"), _number(cost)]
        about += [f"{row['gflop']:.3f}", _number(1000 * row["gflop"] / cost), _number(row["alone"])]
        for what, (held, _) in GROWS.items():
            line = found[row["name"], what, row[held]]
            about.append(f"{proportion(*curve(line, what))[line.index(row)]:.2f}x")
        cells.append([*about, *(f"{row['shares'][kind]:.0%}" for kind in KINDS)])
    return _table(head, cells)


def _about(what: str, found: dict) -> str:
    """The beginning of what is said above a table of one core's CPU time."""
    machine, batch = found["machine"], found["settings"]["batch"]
    where = f"{machine['processor']}, one core, PyTorch {machine['torch']}"
    return f"{what}, on {found['date']}: {where}, batch {batch}; CPU time"


def profiles(measurements: list[dict]) -> str:
    """Return where the time of a training step goes, the machine that was measured last first."""
    parts = []
    for found in newest_first(measurements):
        about = f"{_about('Where the time of a training step at 28x28 goes', found)}, medians of "
        about += f"{found['settings']['rounds']} rounds. Between operators: Python, autograd's bookkeeping, views."
        parts += [about, _profile(found["rows"])]
    return "\n\n".join(parts)


def _profile(rows: list[dict]) -> str:
    cells = []
    for row in rows:
        main = "convolutions" if row["name"] == "U-Net" else "products"
        rate = 1000 * row["gflop"] / row["step"]
        about = [f"{row['name']}, {row['millions']}M, {row['precision']}", _number(row["step"])]
        about += [f"{rate / row['ceiling']:.0%}", f"{row['rates'][main] / row['ceiling']:.0%}"]
        cells.append([*about, *(f"{row['ms'].get(part, 0) / row['step']:.0%}" for part in PROFILE)])
    head = ["network", "CPU ms a step", "of the ceiling", "its convolutions or products with weights alone"]
    return _table([*head, *PROFILE.values()], cells)


def compiling(measurements: list[dict]) -> str:
    """Return what torch.compile costs and gives, the machine that was measured last first."""
    parts = []
    for found in newest_first(measurements):
        about = f"{_about('torch.compile in training', found)}, the median (lowest-highest) of "
        about += f"{found['settings']['rounds']} rounds, in which they take turns. "
        about += "The first step's seconds are mostly compilation."
        parts += [about, _compiled(found["rows"], found["settings"]["batch"])]
    return "\n\n".join(parts)


def _compiled(rows: list[dict], batch: int) -> str:
    """With the steps after which the compilation has saved as much time as it took."""
    cells = []
    for row in rows:
        plain = next(r for r in rows if (r["name"], r["millions"], r["compiled"]) == (*_place(row), "nothing"))
        rate, before = row["train"]["median"], plain["train"]["median"]
        saved, paid = batch / before - batch / rate, row["first"] - plain["first"]
        steps = f"{paid / saved:,.0f}" if saved > 0 else "never" if row is not plain else ""
        about = [f"{row['name']}, {row['millions']}M", row["compiled"], tables._spread(row["train"])]
        cells.append([*about, f"{rate / before:.2f}x", _number(row["first"]), steps])
    head = ["network", "compiled", "images per core-second", "of what nothing compiled gives"]
    return _table([*head, "first step, CPU seconds", "steps until it has paid"], cells)


def _place(row: dict) -> tuple:
    return row["name"], row["millions"]


def waiting(rows: list[dict]) -> str:
    """Return how long a reader waits for each notebook, on the processor that was measured last first; then what other
    work and the setting for waiting threads do."""
    parts = []
    for machine in dict.fromkeys(row["processor"] for row in newest_first(rows)):
        here = sorted((row for row in rows if row["processor"] == machine), key=lambda row: row["name"])
        quiet = [row for row in here if not row["busy"] and row["waits"] == "launcher"]
        about = f"Waiting, from shipped runs, with the kernel's start: {machine}, {here[0]['cores']} cores."
        parts += [about, _waits(quiet) if quiet else "", _busy(here)]
    return "\n\n".join(part for part in parts if part)


def _waits(rows: list[dict]) -> str:
    head = [f"{what}, seconds (at most {most})" for what, most in (("first figure", 5), ("Run All", 60))]
    cells = [[row["name"], *(_number(row[what]) for what in ("figure", "all", "cpu")), row["date"]] for row in rows]
    return _table(["notebook", *head, "CPU seconds", "measured on"], cells)


def _busy(rows: list[dict]) -> str:
    """Run All beside other work, and with other settings, beside Run All by itself."""
    found = {(row["name"], row["waits"], row["busy"]): row for row in rows}
    asked = dict.fromkeys((row["name"], row["waits"]) for row in rows if row["busy"] or row["waits"] != "launcher")
    cells = []
    for name, waits in asked:
        alone, beside = (found.get((name, waits, busy)) for busy in (False, True))
        times = [_number(row["all"]) if row else "" for row in (alone, beside)]
        spent = [_number(row["cpu"]) if row else "" for row in (alone, beside)]
        cells.append([name, waits, *times, f"{beside['all'] / alone['all']:.1f}x" if alone and beside else "", *spent])
    head = ["notebook", "waits", "Run All, seconds", "beside other work", "times (at most 3)"]
    return _table([*head, "CPU seconds", "beside other work"], cells) if cells else ""

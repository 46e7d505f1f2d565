"""The figure of growth: what an image costs in training against its pixels, and against parameters."""

from pathlib import Path

import matplotlib.pyplot as plt

from bench import report
from litrev import paths, plots

ALT = "CPU time of an image in training against its pixels and against the network's parameters, U-Net and DiT"


def draw(rows: list[dict], file: Path) -> None:
    """Draw the rows of growth.json's measurement into a PNG that is 1,000 pixels wide: a column for what grows, a row
    for a network; dashes are the first cost in proportion, a number says how far the last cost is from it, and a ring
    marks where a line leaves it."""
    found = report.lines(rows)
    names = list(dict.fromkeys(name for name, *_ in found))
    figure, axes = plt.subplots(len(names), 2, figsize=(10, 3.6 * len(names)), sharey=True, squeeze=False)
    for name, row in zip(names, axes, strict=True):
        for what, axis in zip(report.GROWS, row, strict=True):
            _panel(axis, what, {held: line for (n, w, held), line in found.items() if (n, w) == (name, what)})
            axis.set_title(f"{name}: more {what}")
        row[0].set_ylabel("CPU ms an image")
    paths.write_atomically(file, plots.png(plots.named(figure, ALT)))


def _panel(axis, what: str, found: dict[float, list[dict]]) -> None:
    helds = list(found) if what == "pixels" else [min(found), max(found)]  # those between lie too close
    for colour, held in zip(plots.COLOURS, helds, strict=False):
        x, y = report.curve(found[held], what)
        factors = report.proportion(x, y)
        axis.plot(x, [y[0] * size / x[0] for size in x], "--", color=colour, linewidth=0.9)
        label = f"{held:g}M" if what == "pixels" else f"{held} x {held}"
        axis.plot(x, y, "o-", color=colour, markersize=4, label=label)
        if (k := report.leaves(factors)) is not None:
            axis.plot(x[k], y[k], "o", color=colour, markersize=11, fillstyle="none")
        beside = {"textcoords": "offset points", "xytext": (8, 0), "va": "center", "color": colour}
        axis.annotate(f"{factors[-1]:.2f}x", (x[-1], y[-1]), **beside)
    axis.set(xscale="log", yscale="log", xlabel="pixels" if what == "pixels" else "parameters")
    axis.minorticks_off()
    axis.set_xticks(x, [report.shown(row, what).split("x")[0] + "²" * (what == "pixels") for row in found[held]])
    axis.set_yticks([1, 3, 10, 30, 100], [1, 3, 10, 30, 100])
    axis.margins(x=0.12)
    plots.legend(axis)

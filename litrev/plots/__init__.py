"""Figures in one style. Importing this package sets the style; each function draws and returns a figure of its own.

A notebook shows a figure by ending a cell with it: with the call of a function of this package, or, where the notebook
drew by itself, with `plots.named(figure, "what it shows")`. In a notebook every figure then becomes a small PNG for
Retina screens that carries its alternative text. Functions close their figure, so that it never shows twice. Drawings
in the plane take `ax=` to be laid over each other.
"""

from litrev.plots.charts import bars, loss_curve, plane, scatter, score_field, trajectories
from litrev.plots.figures import COLOURS, legend, named, png
from litrev.plots.moving import animation, slider
from litrev.plots.pictures import grid, mosaic, strip

__all__ = ["COLOURS", "animation", "bars", "grid", "legend", "loss_curve", "mosaic", "named", "plane", "png"]
__all__ += ["scatter", "score_field", "slider", "strip", "trajectories"]

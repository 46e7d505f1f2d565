"""The two sizes at which every notebook runs: `laptop`, what a reader sees, and `smoke`, what tests run."""

import os
from typing import TypeVar

T = TypeVar("T")


def name() -> str:
    """Return the preset in force: LITREV_PRESET, or 'laptop' when that is not set.

    Raises ValueError when LITREV_PRESET is neither 'laptop' nor 'smoke'.
    """
    chosen = os.environ.get("LITREV_PRESET", "laptop")
    if chosen not in ("laptop", "smoke"):
        raise ValueError(f"LITREV_PRESET is {chosen!r}: set it to 'laptop' or 'smoke', or unset it for 'laptop'.")
    return chosen


def preset(*, laptop: T, smoke: T) -> T:
    """Return the value for the preset in force, e.g. `steps = preset(laptop=6000, smoke=8)`.

    Raises ValueError when LITREV_PRESET is neither 'laptop' nor 'smoke'.
    """
    return {"laptop": laptop, "smoke": smoke}[name()]

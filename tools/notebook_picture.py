"""Copies a picture, named by its alt text, from a notebook to notebooks/images, for the README.

tools/bazel run picture -- 00_start_here "A cloud of noise gathers into the letters of a word" start.png
"""

import base64
import json
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def pictures(notebook: dict) -> dict[str, bytes]:
    """The PNG pictures among a notebook's outputs that have an alt text, by that text."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", []) if "data" in output]
    named = [(output.get("metadata", {}).get("image/png", {}).get("alt"), output["data"]) for output in outputs]
    return {alt: base64.b64decode("".join(found["image/png"])) for alt, found in named if alt and "image/png" in found}


def main(name: str, alt: str, target: str) -> None:
    found = pictures(json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8")))
    if alt not in found:
        sys.exit(f"{name}.ipynb shows no picture with the alt text {alt!r}, only {sorted(found)}.")
    (NOTEBOOKS / "images" / target).write_bytes(found[alt])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])

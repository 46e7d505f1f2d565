"""Builds the site: `python -m tools.survey.build OUT` makes the folder OUT from the checkout in LITREV_ROOT or here.

A warning is an error, with its file and line. No network is used.
"""

import io
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from tools.survey.stage import stage

OPTIONS = ["-b", "html", "-q", "-n", "-W", "--keep-going", "--no-color"]
LEFT_OUT = (".buildinfo", "objects.inv")


def build(root: Path, out: Path, options: list[str] = OPTIONS) -> int:
    """Build the site of a checkout into a folder; returns Sphinx's exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "survey"
        material = stage(root, source)
        with redirect_stderr(io.StringIO()) as said:
            status = sphinx([*options, "-d", str(Path(scratch) / "doctrees"), str(source), str(out)])
        print(in_checkout(said.getvalue(), source), end="", file=sys.stderr)
        (out / "notebooks").mkdir(exist_ok=True)
        for name in material.notebooks:
            shutil.copyfile(source / "notebooks" / f"{name}.ipynb", out / "notebooks" / f"{name}.ipynb")
    for name in LEFT_OUT:
        (out / name).unlink(missing_ok=True)
    return status


def in_checkout(said: str, source: Path) -> str:
    """Return Sphinx's warnings with the places where a writer finds them."""
    return said.replace(f"{source}/notebooks/", "notebooks/").replace(f"{source}/", "survey/")


if __name__ == "__main__":
    root = Path(os.environ.get("LITREV_ROOT", Path(__file__).parents[2]))
    sys.exit(build(root.resolve(), Path(sys.argv[1]).resolve()))

"""Notebooks as they are stored: the fingerprint of their code, what their metadata keep, outputs that are no good."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from litrev import paths

PART_TWO = re.compile(r"# Part II\b")  # how the one heading begins under which a lesson's laboratory is folded
COLLAPSED = "jp-MarkdownHeadingCollapsed"
# What nbconvert and editors go by. The version that wrote a notebook would differ from one machine to the next.
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
PRIVATE_PATH = re.compile(r"(?<![\w.:/~-])/(?:home|Users|root|private|tmp|var|work|workspace|opt|mnt|usr)/[^\s\"'<>)]*")


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def fingerprint(notebook: dict) -> str:
    """sha256 of the code alone: blanks at the ends of lines and cells, and all text cells, are left out."""
    sources = ["\n".join(line.rstrip() for line in cell["source"].strip().split("\n")) for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def tidy(notebook: dict, preset: str) -> None:
    """Leaves nothing in the metadata that differs from one machine, run or editing to the next; folds Part II and the
    code of the settings, which nobody has to read before the lesson."""
    for cell in notebook["cells"]:
        for name in ("execution", "scrolled", "collapsed", COLLAPSED):
            cell["metadata"].pop(name, None)
        hidden = cell["metadata"].pop("jupyter", {}).get("source_hidden")
        if hidden or "settings" in cell["metadata"].get("tags", []):
            cell["metadata"]["jupyter"] = {"source_hidden": True}
        if cell["cell_type"] == "markdown" and PART_TWO.match(cell["source"]):
            cell["metadata"][COLLAPSED] = True
    widgets = {name: state for name, state in notebook["metadata"].items() if name == "widgets"}
    notebook["metadata"] = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": LANGUAGE,
            "litrev": {"fingerprint": fingerprint(notebook), "preset": preset},
            **widgets,
        }
    )


def store(notebook: dict, path: Path) -> None:
    """An interrupt or a full disk leaves the notebook that was there."""
    text = nbformat.writes(notebook)
    paths.write_atomically(path, (text if text.endswith("\n") else f"{text}\n").encode())


def texts(value: object) -> Iterator[str]:
    """Every piece of text in a nested value; pictures, which are base64, are left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from () if key.startswith("image/") else texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from texts(entry)


# What `fit` and `measure` print of a result that was not shipped when the notebook was executed.
UNSHIPPED = re.compile(
    r"^([\w-]+): (?:training |measured now|goes on at|this machine's|loaded, .*\(this machine's|.* changed since)",
    re.MULTILINE,
)


def output_problems(notebook: dict) -> list[str]:
    """Sentences on stored outputs that are no good: not of this code, out of order, errors, warnings, private paths."""
    found, cells = [], code_cells(notebook)
    stored = notebook["metadata"].get("litrev", {})
    if stored.get("fingerprint") != fingerprint(notebook):
        found.append("the outputs are not those of the code that stands")
    if stored.get("preset") != "laptop":
        found.append(f"the outputs are of the preset {stored.get('preset')!r}, not 'laptop'")
    if [cell["execution_count"] for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("the code cells were not run from first to last in a fresh kernel")
    if notebook["metadata"].get("language_info", {}).get("file_extension") != ".py":
        found.append("its metadata do not say that nbconvert makes a .py of it")
    for cell in cells:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append(f"cell [{cell['execution_count']}] shows a traceback: {output['ename']}")
            for name in UNSHIPPED.findall(output.get("text", "")):
                found.append(
                    f"cell [{cell['execution_count']}] shows {name}, which is not shipped, or not of this code"
                )
            if output.get("name") == "stderr":
                found.append(f"cell [{cell['execution_count']}] shows a warning: {output['text'].strip()[:200]}")
    leaks = {match for text in texts(json.loads(json.dumps(notebook))) for match in PRIVATE_PATH.findall(text)}
    return found + [f"it holds a path of one machine: {leak}" for leak in sorted(leaks)]

"""Lays out in one folder what Sphinx reads: the survey's texts, the notebooks, their pictures, pages made here."""

import io
import shutil
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from lab import claims
from tools.survey.cite import cite_page
from tools.survey.material import Material, gather
from tools.survey.notebook import Picture, slug

RESULTS = """# Results

Every claim of the eighteen papers that was put to the test: what the paper says, what it reports, what the notebook
measured, and a verdict that follows from figures by a rule. Rules were written before their results were seen; {mark}
marks one that was changed afterwards, and why stands beside it. Each number in the first column leads to the cell that
measured the claim. Figures are those of digits and toys on a laptop, not of the papers' data; FD is the Fréchet
distance in the features of a small classifier of digits.

| verdict | what it means | claims |
|---|---|---|
{meanings}

{total} claims in all: {counts}.

"""
LIST = """# The notebooks

Each paper is one notebook: derived, trained from scratch on something small, looked at, and measured. On its page here,
Part I is the lesson; Part II, the laboratory, is folded. Pictures and figures are those that were stored when the
notebook was run; to run it yourself, get the project and type `tools/bazel run jupyterlab`.

| | notebook | in the survey | what held |
|---|---|---|---|
{rows}

```{{toctree}}
:hidden:
:titlesonly:

{names}
```
"""


def results_page(material: Material) -> str:
    """Return the page of all claims, folded by notebook."""
    every = [claim for held in material.ledgers.values() for claim in held]
    given = [claim.verdict for claim in every]
    meanings = "\n".join(f"| **{word}** | {text} | {given.count(word)} |" for word, text in claims.VERDICTS.items())
    page = RESULTS.format(mark=claims.MARK, meanings=meanings, total=len(every), counts=claims.counts(every))
    for name, held in material.ledgers.items():
        title = f"**{name[:2]}** {material.notebook(name).title}: {claims.counts(held)}"
        page += f"({slug(name)})=\n::::{{dropdown}} {title}\n:::{{measured}} {name}\n:rules:\n:::\n::::\n\n"
    return page


def list_page(material: Material) -> str:
    """Return the page that lists the notebooks."""
    rows = []
    for name, notebook in material.notebooks.items():
        held = claims.counts(material.ledgers[name]) if name in material.ledgers else ""
        chapters = ", ".join(f"[{material.chapters[doc]}](../{doc}.md)" for doc in material.chapters_of(name))
        rows.append(f"| {name[:2]} | [{notebook.title}]({name}.ipynb) | {chapters} | {held} |")
    return LIST.format(rows="\n".join(rows), names="\n".join(material.notebooks))


def still(picture: Picture) -> bytes:
    """Return the last frame of a picture that moves, as a PNG."""
    with Image.open(io.BytesIO(picture.data)) as moving:
        moving.seek(moving.n_frames - 1)
        out = io.BytesIO()
        moving.convert("RGB").save(out, "PNG", optimize=True)
    return out.getvalue()


def write_pictures(material: Material, folder: Path) -> None:
    """Write all stored pictures, and a still of each that moves."""
    stills = folder / "_static" / "stills"
    for made in (folder / "_pictures", stills):
        made.mkdir(parents=True)
    for notebook in material.notebooks.values():
        for picture in notebook.pictures:
            (folder / "_pictures" / picture.file).write_bytes(picture.data)
            if picture.moves:
                (stills / picture.file).write_bytes(still(picture))


def write_font(folder: Path) -> None:
    """Copy the font of the formulas out of the package that brings it."""
    package = Path(find_spec("ziamath").origin).parent
    shutil.copyfile(package / "fonts" / "STIXTwoMath-Regular.ttf", folder / "_static" / "math.ttf")


def stage(root: Path, folder: Path) -> Material:
    """Fill an empty folder from the checkout's survey/, notebooks/ and CITATION.cff."""
    ignored = shutil.ignore_patterns("BUILD", "__pycache__", ".*", "*.py")
    shutil.copytree(root / "survey", folder, ignore=ignored, dirs_exist_ok=True)
    shutil.copyfile(root / "survey" / "conf.py", folder / "conf.py")
    (folder / "notebooks" / "claims").mkdir(parents=True)
    for pattern in ("*.ipynb", "claims/*.json"):
        for file in sorted((root / "notebooks").glob(pattern)):
            shutil.copyfile(file, folder / file.relative_to(root))
    material = gather(folder)
    write_pictures(material, folder)
    write_font(folder)
    pages = {"results": results_page(material), "notebooks/index": list_page(material), "cite": cite_page(root)}
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, "utf-8")
    return material

"""The page of a notebook: a parser that turns .ipynb into MyST, the directives it uses, the fold of Part II."""

import re
from html import unescape
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.transforms import SphinxTransform

from tools.survey.directives import Quoting, image_of
from tools.survey.html import converted, details, summary
from tools.survey.material import gather
from tools.survey.notebook import PART_II, Notebook, slug
from tools.survey.roles import link

TEX = re.compile(r"\$([^$<>]*\\[^$<>]*)\$")
WIDGET = "application/vnd.jupyter.widget-view+json"


class NotebookParser(MystParser):
    """Reads a notebook; its code cells are directives `cell`, which find their outputs by their number."""

    supported = ("notebook",)

    def parse(self, inputstring, document):
        env = document.settings.env
        folder, name = Path(env.srcdir), Path(env.docname).name
        super().parse(gather(folder).notebook(name).markdown(), document)


class OfNotebook(Quoting):
    @property
    def notebook(self) -> Notebook:
        return self.material.notebook(Path(self.env.docname).name)


class About(OfNotebook):
    """What stands below the title: where the survey tells of the paper, the file, and how to run it."""

    def run(self):
        name, lines = self.notebook.name, []
        chapters = self.material.chapters_of(name)
        if chapters:
            line = nodes.paragraph("", "In the survey: ")
            for number, chapter in enumerate(chapters):
                first = next(id for (nb, id), of in self.material.shown_in.items() if (nb, of) == (name, chapter))
                line += nodes.Text(", " * (number > 0))
                line += link(self.env, self.material.chapters[chapter], chapter, f"measured-{name}-{first}")
            line += nodes.Text(".")
            lines.append(line)
        file = nodes.reference("", f"{name}.ipynb", refuri=f"{name}.ipynb", classes=["download"])
        run = nodes.literal("", f"tools/bazel run //notebooks:{name}")
        lines.append(nodes.paragraph("", "The notebook: ", file, nodes.Text(". To run it: "), run))
        return [nodes.container("", *lines, classes=["about-notebook"])]


class Cell(OfNotebook):
    """```{cell} 17: a code cell with its outputs, and what it records for the survey."""

    required_arguments = 1

    def run(self):
        index = int(self.arguments[0])
        notebook, cell = self.notebook, self.notebook.cells[index]
        made = nodes.container("", classes=["cell", *(f"tag-{tag}" for tag in cell["metadata"].get("tags", []))])
        made["ids"] = notebook.anchors(index)
        held = [claim.id for claim in self.material.ledgers.get(notebook.name, [])]
        claims = [id for id in held if notebook.claim_cells.get(id) == index]
        made += self.records(notebook.name, claims)
        made += self.source(cell)
        pictures = iter([picture for picture in notebook.pictures if picture.cell == index])
        still = any("image/png" in output.get("data", {}) for output in cell["outputs"])
        for output in cell["outputs"]:
            made += list(shown(output, pictures, still))
        return [made]

    def source(self, cell) -> list[nodes.Node]:
        if not cell["source"].strip():
            return []
        code = nodes.literal_block(cell["source"], cell["source"], language="python", classes=["source"])
        hidden = cell["metadata"].get("jupyter", {}).get("source_hidden")
        return [details("", summary("", "Code"), code, classes=["hidden-source"])] if hidden else [code]

    def records(self, name: str, claims: list[str]) -> list[nodes.Node]:
        """A line for claims that a chapter shows, with the way back to its table."""
        line = nodes.paragraph(classes=["records"])
        for id in claims:
            chapter = self.material.shown_in.get((name, id))
            title = self.material.chapters.get(chapter)
            line += nodes.Text("; " if len(line) else "Measures ")
            if chapter:
                target = link(self.env, f"{id} of {title}", chapter, f"measured-{name}-{id}")
                line += target
            else:
                line += link(self.env, id, "results", slug(name))
        return [line] if claims else []


def shown(output: dict, pictures, still: bool):
    """Yield the nodes of one stored output; `still` says that a picture stands for the cell's widgets."""
    data = output.get("data", {})
    text = "".join(output.get("text", data.get("text/plain", "")))
    if "image/png" in data:
        yield nodes.container("", image_of(next(pictures)), classes=["picture"])
    elif WIDGET in data or "<script" in "".join(data.get("text/html", "")):
        if not still:
            words = "Interactive: run this cell in JupyterLab, with " + re.sub(
                r"^\(Run this cell for (.*?)\.?\)$", r"\1", text
            )
            yield nodes.paragraph("", words + ".", classes=["interactive"])
    elif "text/html" in data:
        table = "".join(data["text/html"]).replace(' style="text-align: left"', "")
        table = TEX.sub(lambda match: converted(unescape(match.group(1)), False), table)
        yield nodes.raw("", f'<div class="table-wrapper">{table}</div>', format="html")
    elif text:
        yield nodes.literal_block(text.rstrip(), text.rstrip(), language="none", classes=["output"])


class HeadingAnchors(SphinxTransform):
    """Gives each section of a notebook's page the anchor of its heading."""

    default_priority = 400

    def apply(self, **kwargs):
        if not self.env.docname.startswith("notebooks/") or self.env.docname == "notebooks/index":
            return
        headings = gather(Path(self.env.srcdir)).notebook(Path(self.env.docname).name).headings
        for section, heading in zip(self.document.findall(nodes.section), headings, strict=True):
            if heading.slug not in section["ids"]:
                section["ids"].insert(0, heading.slug)


def fold_part_ii(app, doctree, docname):
    """Fold what follows Part II's heading."""
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        if docname.startswith("notebooks/") and title is not None and title.astext().startswith(PART_II):
            rest = [child for child in section.children if not isinstance(child, nodes.title)]
            words = f"Unfold the laboratory: {sum(1 for child in rest if isinstance(child, nodes.section))} parts"
            fold = details("", summary("", words), *rest, classes=["part-ii"])
            section.children = [child for child in section.children if isinstance(child, nodes.title)]
            section += fold
            return


def setup(app):
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.add_directive("about-notebook", About)
    app.add_directive("cell", Cell)
    app.add_transform(HeadingAnchors)
    app.connect("doctree-resolved", fold_part_ii)

"""Directives: a stored picture, a measured table, a fold, and the cells of a notebook's page."""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.directives.patches import Figure
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from lab.claims import MARK
from tools.survey.html import details, moving, picture, summary
from tools.survey.material import Unknown, gather
from tools.survey.notebook import Picture
from tools.survey.roles import link, verdict

logger = logging.getLogger(__name__)
PICTURES = "/_pictures/"


def image_of(found: Picture, **attributes) -> picture:
    """Return the node of a stored picture."""
    kind, width = (moving if found.moves else picture), found.width or found.size[0]
    shape = "{} / {}".format(*found.size)
    return kind("", uri=PICTURES + found.file, alt=found.alt, width=f"{width}px", shape=shape, **attributes)


class Quoting(SphinxDirective):
    """A directive that shows what notebooks or ledgers hold."""

    @property
    def material(self):
        return gather(Path(self.env.srcdir))

    def unknown(self, problem: Unknown) -> list[nodes.Node]:
        logger.warning("%s", problem, location=self.get_location(), type="survey")
        return []


class Stored(Figure, Quoting):
    """:::{stored} 03_ddpm with :alt: and :name:, and a caption: a figure from the notebook's stored outputs."""

    option_spec = {"alt": directives.unchanged_required, "name": directives.unchanged_required}
    required_arguments, has_content = 1, True

    def run(self):
        name = self.arguments[0]
        try:
            found = self.material.picture(name, " ".join(self.options.get("alt", "").split()))
        except Unknown as problem:
            return self.unknown(problem)
        self.arguments[0] = PICTURES + found.file
        self.options["alt"] = found.alt
        self.options["figclass"] = ["stored"]
        made = super().run()
        for figure in made:
            for image in list(figure.findall(nodes.image)):
                image.replace_self(image_of(found))
            for caption in figure.findall(nodes.caption):
                caption += nodes.Text(" ")
                source = link(self.env, f"Notebook {name[:2]}.", f"notebooks/{name}", found.anchor)
                caption += nodes.inline("", "", source, classes=["made-in"])
        return made


class Measured(Quoting):
    """:::{measured} 03_ddpm [C1 C4]: the claims of a ledger beside what was measured; :rules: adds their rules."""

    required_arguments, optional_arguments, final_argument_whitespace = 1, 1, True
    option_spec = {"rules": directives.flag}
    has_content = False

    def run(self):
        name, ids = self.arguments[0], self.arguments[1].split() if len(self.arguments) > 1 else []
        try:
            held = [self.material.claim(name, id) for id in ids or [c.id for c in self.material.ledger(name)]]
        except Unknown as problem:
            return self.unknown(problem)
        head = ("", "the paper claims", "in the paper", "measured here", "verdict")
        rows = [self.row(name, claim) for claim in held]
        made = [grid(head, rows, [1, 7, 5, 5, 5], "measured")]
        if "rules" in self.options:
            made.append(self.rules(held))
        return made

    def row(self, name: str, claim) -> list[nodes.Node]:
        here = (f" ({claim.sample})" if claim.sample else "").replace(" ", " ")
        first = nodes.paragraph("", "", link(self.env, claim.id, f"notebooks/{name}", f"claim-{claim.id}"))
        if self.material.shown_in.get((name, claim.id)) == self.env.docname:
            anchor = f"measured-{name}-{claim.id}"
            if anchor not in self.state.document.ids:
                first["ids"] = [anchor]
                self.state.document.note_explicit_target(first, first)
        last = nodes.paragraph("", "", verdict(claim))
        if claim.changed:
            last += nodes.inline("", f" {MARK}", title="The rule was changed after its result was seen.")
        if claim.note:
            last += nodes.Text(f": {claim.note}")
        texts = [nodes.paragraph("", text) for text in (claim.statement, claim.paper, claim.headline)]
        texts[2] += nodes.inline("", here, classes=["sample"]) if here else nodes.Text("")
        return [first, *texts, last]

    def rules(self, held) -> nodes.Node:
        listed = nodes.bullet_list()
        for claim in held:
            line = nodes.paragraph("", f"{claim.id}: {claim.marked_rule}.")
            if claim.changed:
                line += [nodes.emphasis("", " Changed after the result was seen: "), nodes.Text(f"{claim.changed}.")]
            listed += nodes.list_item("", line)
        return details("", summary("", "The rules"), listed)


def grid(head: tuple, rows: list[list[nodes.Node]], widths: list[int], kind: str) -> nodes.table:
    """Return a table of paragraphs."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    cells = [[nodes.paragraph("", text) for text in head], *rows]
    made = [nodes.row("", *(nodes.entry("", cell) for cell in row)) for row in cells]
    group += [nodes.thead("", made[0]), nodes.tbody("", *made[1:])]
    return nodes.table("", group, classes=[kind])


class Dropdown(SphinxDirective):
    """:::{dropdown} Title: what is folded until it is clicked on."""

    required_arguments, final_argument_whitespace, has_content = 1, True, True

    def run(self):
        words, messages = self.parse_inline(self.arguments[0])
        fold = details("", summary("", "", *words), *self.parse_content_to_nodes())
        return [fold, *messages]


def setup(app):
    for name, directive in {"stored": Stored, "measured": Measured, "dropdown": Dropdown}.items():
        app.add_directive(name, directive)

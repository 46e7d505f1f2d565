"""Roles for running text: a claim, its headline, its verdict, and a place in a notebook."""

from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole
from sphinx.util.osutil import relative_uri

from tools.survey.material import Unknown, gather

logger = logging.getLogger(__name__)


def page(env, target: str, anchor: str = "") -> str:
    """Return the address of a page, and a place on it, as seen from the page that is read."""
    uri = relative_uri(f"{env.docname}.html", f"{target}.html")
    return f"{uri}#{anchor}" if anchor else uri


def link(env, text: str, target: str, anchor: str = "", **attributes) -> nodes.reference:
    return nodes.reference("", text, internal=True, refuri=page(env, target, anchor), **attributes)


class Quoting(SphinxRole):
    """A role whose text is looked up in notebooks or ledgers."""

    def run(self):
        try:
            return self.quoted(gather(Path(self.env.srcdir))), []
        except Unknown as problem:
            logger.warning("%s", problem, location=self.get_location(), type="survey")
            return [nodes.problematic(self.rawtext, self.rawtext)], []

    def named(self, material):
        """The notebook and the claim of a role's text, '03_ddpm:C1'."""
        name, _, id = self.text.partition(":")
        return name.strip(), material.claim(name.strip(), id.strip())


class Claim(Quoting):
    """{claim}`03_ddpm:C1`: a link to the cell that recorded it."""

    def quoted(self, material):
        name, claim = self.named(material)
        title = f"{claim.statement}: {claim.verdict}"
        return [link(self.env, claim.id, f"notebooks/{name}", f"claim-{claim.id}", classes=["claim"], reftitle=title)]


class Headline(Quoting):
    """{headline}`03_ddpm:C1`: what was measured, in a pair of figures."""

    def quoted(self, material):
        return [nodes.inline("", self.named(material)[1].headline, classes=["headline"])]


class Verdict(Quoting):
    """{verdict}`03_ddpm:C1`: the word."""

    def quoted(self, material):
        return [verdict(self.named(material)[1])]


class Place(Quoting):
    """{place}`03_ddpm#5 · Train`, {place}`run it there <03_ddpm#5 · Train>`, {place}`03_ddpm`."""

    def quoted(self, material):
        before, begin, asked = self.text.rpartition("<")
        words, asked = (before.strip(), asked.rstrip("> ")) if begin and self.text.endswith(">") else ("", self.text)
        name, _, text = asked.partition("#")
        notebook = material.notebook(name.strip())
        heading = material.heading(notebook.name, text) if text else None
        shown = words or f"{notebook.number} · {heading.text if heading else notebook.title}"
        target = link(self.env, "", f"notebooks/{notebook.name}", heading.slug if heading else "", classes=["place"])
        target += self.inliner.parse(shown, self.lineno, self.inliner, None)[0]  # a heading may hold a formula
        return [target]


def verdict(claim) -> nodes.inline:
    return nodes.inline("", claim.verdict, classes=["verdict", claim.verdict.replace(" ", "-")])


def setup(app):
    for name, role in {"claim": Claim, "headline": Headline, "verdict": Verdict, "place": Place}.items():
        app.add_role(name, role())

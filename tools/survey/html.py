"""How the site's own nodes, and formulas, become HTML: folds, pictures that move, MathML."""

import posixpath
import re
from pathlib import PurePosixPath

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)
convert = LatexToMathML(fancy_error=False)
TAG = re.compile(r"\\tag\{([^{}]*)\}")


class details(nodes.General, nodes.Element):
    """Something folded; its first child is a `summary`."""


class summary(nodes.General, nodes.TextElement):
    """The line to click on."""


class moving(nodes.image):
    """A picture that moves. Its still is shown to readers who want less motion."""


def visit_details(self, node):
    self.body.append(self.starttag(node, "details"))


def depart_details(self, node):
    self.body.append("</details>\n")


def visit_summary(self, node):
    self.body.append(self.starttag(node, "summary", ""))


def depart_summary(self, node):
    self.body.append("</summary>\n")


def visit_moving(self, node):
    name = PurePosixPath(self.builder.images.get(node["uri"], node["uri"])).name
    still = posixpath.join(posixpath.dirname(self.builder.imgpath), "_static", "stills", name)
    self.body.append('<picture class="moving">')
    self.body.append(f'<source media="(prefers-reduced-motion: reduce)" srcset="{still}" />')
    self.visit_image(node)


def depart_moving(self, node):
    self.depart_image(node)
    self.body.append("</picture>")


def mathml(tex: str, node: nodes.Node, display: bool) -> str:
    """Return a formula as MathML; what cannot be read is a warning with its place."""
    try:
        return convert.convert_with_local_state(tex, displaystyle=display)
    except LatexError as problem:
        logger.warning("This formula cannot be read: %s: %s", tex, problem, location=node, type="math")
        return f"<code>{nodes.Text(tex)}</code>"


def visit_math(self, node):
    self.body.append(mathml(node.astext(), node, display=False))
    raise nodes.SkipNode


def visit_math_block(self, node):
    tex, tag = node.astext(), ""
    if found := TAG.search(tex):
        tex, tag = TAG.sub("", tex), f'<span class="eqno">({found.group(1)})</span>'
    if node["number"]:
        link = (
            f'<a class="headerlink" href="#{node["ids"][0]}" title="Link to this equation">#</a>' if node["ids"] else ""
        )
        tag = f'<span class="eqno">({get_node_equation_number(self, node)}){link}</span>'
    formula = mathml(tex, node, display=True)
    self.body.append(self.starttag(node, "div", CLASS="equation"))
    self.body.append(f'<div class="formula">{formula}</div>{tag}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_node(details, html=(visit_details, depart_details))
    app.add_node(summary, html=(visit_summary, depart_summary))
    app.add_node(moving, html=(visit_moving, depart_moving))
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))

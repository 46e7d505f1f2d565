"""How the site's own nodes, and formulas, become HTML: folds, pictures that move, MathML."""

import posixpath
import re
from functools import cache
from html import escape, unescape
from itertools import pairwise
from pathlib import PurePosixPath
from xml.etree import ElementTree

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


class picture(nodes.image):
    """A stored picture, whose `shape` keeps its place until it is there: what is pointed at does not move away."""


class moving(picture):
    """A picture that moves. Its still is shown to readers who want less motion."""


def visit_details(self, node):
    self.body.append(self.starttag(node, "details"))


def depart_details(self, node):
    self.body.append("</details>\n")


def visit_summary(self, node):
    self.body.append(self.starttag(node, "summary", ""))


def depart_summary(self, node):
    self.body.append("</summary>\n")


def visit_picture(self, node):
    self.visit_image(node)
    self.body[-1] = self.body[-1].replace('style="', f'style="aspect-ratio: {node["shape"]}; ', 1)


def depart_picture(self, node):
    self.depart_image(node)


def visit_moving(self, node):
    name = PurePosixPath(self.builder.images.get(node["uri"], node["uri"])).name
    still = posixpath.join(posixpath.dirname(self.builder.imgpath), "_static", "stills", name)
    self.body.append('<picture class="moving">')
    self.body.append(f'<source media="(prefers-reduced-motion: reduce)" srcset="{still}" />')
    visit_picture(self, node)


def depart_moving(self, node):
    self.depart_image(node)
    self.body.append("</picture>")


NAMED = re.compile(r"&(?!(lt|gt|amp|quot);)\w+;")  # HTML's names of characters, which XML does not know
SCRIPTED = ("msub", "msup", "msubsup")


def raised(scripted: ElementTree.Element) -> None:
    """Move a fence of fixed size out of its scripts: `\\big)^2` has them, and browsers would not stretch it there."""
    fence, half = scripted[0], float(scripted[0].get("minsize")[:-2]) / 2
    inner = ElementTree.Element(scripted.tag)
    inner.append(ElementTree.Element("mspace", height=f"{half + 0.25:.3f}em", depth=f"{half - 0.25:.3f}em"))
    inner.extend(scripted[1:])
    fence.set("form", "postfix")
    scripted.tag = "mrow"
    scripted[:] = [fence, inner]


@cache
def converted(tex: str, display: bool) -> str:
    """Return a formula as MathML, mended where browsers draw it badly; LatexError if it cannot be read."""
    drawn = convert.convert_with_local_state(tex, displaystyle=display)
    tree = ElementTree.fromstring(NAMED.sub(lambda match: unescape(match.group()), drawn))
    for element in list(tree.iter()):
        if element.tag in SCRIPTED and element[0].tag == "mo" and "minsize" in element[0].attrib:
            raised(element)
        for before, after in pairwise(list(element)):
            # Chromium leaves room behind a root already.
            if before.tag == "msqrt" and after.tag == "mspace" and float(after.get("width")[:-2]) < 0.3:
                element.remove(after)
    return ElementTree.tostring(tree, encoding="unicode")


def mathml(tex: str, node: nodes.Node, display: bool) -> str:
    """Return a formula as MathML; what cannot be read is a warning with its place."""
    try:
        return converted(tex, display)
    except LatexError as problem:
        logger.warning("This formula cannot be read: %s: %s", tex, problem, location=node, type="math")
        return f"<code>{escape(tex)}</code>"


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
    # The anchor is the wrapper's that the theme puts around it.
    self.body.append(f'<div class="equation"><div class="formula">{formula}</div>{tag}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_node(details, html=(visit_details, depart_details))
    app.add_node(summary, html=(visit_summary, depart_summary))
    app.add_node(picture, html=(visit_picture, depart_picture))
    app.add_node(moving, html=(visit_moving, depart_moving))
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))

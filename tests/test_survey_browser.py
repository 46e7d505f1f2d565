"""Every page of the site in a real browser: two widths, two colour schemes, axe-core."""

import json
import os
from importlib.resources import files
from pathlib import Path

import browser
import pytest

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
SITE = ROOT / "survey" / "site"
PAGES = [str(page.relative_to(SITE)) for page in sorted(SITE.rglob("*.html")) if "_static" not in page.parts]
WIDTHS = {"desktop": 1400, "phone": 390}
SCHEMES = ("light", "dark")

LOOK = (Path(__file__).parent / "browser.js").read_text("utf-8")
AXE = """axe.run(document, {
  runOnly: {type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
  rules: {"color-contrast": {enabled: false}},  // seconds a page; browser.js judges the contrast of all texts at once
  resultTypes: ["violations"],
}).then((found) => found.violations.map((rule) =>
  `${rule.id}: ${rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 150))}`))"""

pytestmark = pytest.mark.skipif(
    not browser.chromium(), reason="there is no chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address():
    with browser.served(SITE) as found:
        yield found


@pytest.fixture(scope="module")
def axe():
    return (files("axe_core_python") / "axe.min.js").read_text("utf-8")


def test_there_are_pages():
    assert len(PAGES) > 30


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_read(tab, address, axe, page):
    found = []
    tab.look(WIDTHS["desktop"])
    tab.open(f"{address}/{page}")
    for place, width in WIDTHS.items():
        for scheme in SCHEMES:
            tab.look(width, scheme=scheme)
            found += [f"{place}, {scheme}: {line}" for line in tab.run(LOOK)]
    tab.run(f"(0, eval)({json.dumps(axe)}), 0")
    found += tab.run(AXE) + tab.complaints(address)
    assert not found, "\n".join(found)


WRONG = """data:text/html,<html lang="en"><meta name="viewport" content="width=device-width"><article><h1>t</h1>
<p style="color:%23999">faint</p><p>It is $\\frac12$</p><img src="data:," alt="a"><div style="width:2000px">wide</div>
<div class="equation" style="display:flex"><div class="formula" style="flex:0 0 300px">x</div>
<span class="eqno" style="margin-left:-50px">(1)</span></div></article>"""


def test_what_is_wrong_is_seen(tab):
    tab.look(1400)
    tab.open(WRONG)
    found = "\n".join(tab.run(LOOK))
    for sentence in (
        "overflows by",
        "broken picture",
        "raw TeX",
        "lies over its formula",
        "faint text, rgb(153, 153, 153)",
    ):
        assert sentence in found


def test_an_address_opens_what_it_points_into(tab, address):
    tab.look(1400)
    tab.open(f"{address}/notebooks/03_ddpm.html#claim-C1")
    assert tab.run("""new Promise((done) => setTimeout(() => {
      const cell = document.getElementById("claim-C1"), top = cell.getBoundingClientRect().top;
      done(cell.closest("details.part-ii").open && top >= 0 && top < innerHeight);
    }, 1000))""")


def test_less_motion_is_a_still(tab, address):
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    tab.open(f"{address}/index.html")
    assert "/stills/" in tab.run("document.querySelector('picture.moving img').currentSrc")
    tab.look(1400)
    tab.open(f"{address}/index.html")
    assert "/_images/" in tab.run("document.querySelector('picture.moving img').currentSrc")
    assert "/stills/" in tab.run(
        "document.querySelector('.stop').click(), document.querySelector('picture.moving img').src"
    )


def test_the_search_finds(tab, address):
    tab.look(1400)
    tab.open(f"{address}/search.html?q=distillation")
    wait = (
        "new Promise((done) => setTimeout(() => done(document.querySelectorAll('#search-results li a').length), 1500))"
    )
    assert tab.run(wait) > 1

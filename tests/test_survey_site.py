"""The built site: links and anchors, pictures, nothing from elsewhere, formulas, the way from a claim to its cell."""

import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from lab import claims

ROOT = Path(os.environ.get("LITREV_ROOT", Path(__file__).parent.parent))
SITE = ROOT / "survey" / "site"
PAGES = sorted(page for page in SITE.rglob("*.html") if "_static" not in page.parts)
CHAPTERS = sorted(SITE.glob("[0-9][0-9]_*.html"))
LEDGERS = {file.stem: claims.read(file) for file in sorted((ROOT / "notebooks" / "claims").glob("*.json"))}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RAW_TEX = re.compile(r"\\(frac|mathbb|mathcal|alpha|sigma|text|sum|int|left|begin|lVert)\b|\$\$")
EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.images, self.headings, self.texts = [], [], [], [], [], []
        self.title, self.language, self.math, self.open = "", "", 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        about = dict(attributes)
        self.ids += [about["id"]] if "id" in about else []
        self.links += [about["href"]] if tag == "a" and "href" in about else []
        self.loads += [about[name] for name in ("src", "srcset") if name in about]
        self.loads += [about["href"]] if tag == "link" and about.get("rel") not in ("next", "prev") else []
        self.images += [about] if tag == "img" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.language = about.get("lang", "") if tag == "html" else self.language
        self.math += tag == "math"
        self.open += [] if tag in EMPTY else [tag]

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "title" in self.open[-1:] and "svg" not in self.open:
            self.title += data
        if not {"script", "style", "code", "pre"} & set(self.open):
            self.texts.append(data)


@cache
def read(page):
    return Page(page.read_text("utf-8"))


@cache
def text_of(page):
    return page.read_text("utf-8")


def named(page):
    return str(page.relative_to(SITE))


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


def test_the_site_is_whole():
    assert len(CHAPTERS) == 11 and len(list(SITE.glob("notebooks/[0-9]*.html"))) == len(NOTEBOOKS)
    assert {"index.html", "404.html", "search.html", "results.html", "bibliography.html", "cite.html"} <= {
        p.name for p in PAGES
    }
    assert not list(SITE.rglob("*.doctree")) and not list(SITE.rglob("*.md"))
    assert sum(file.stat().st_size for file in SITE.rglob("*") if file.is_file()) < 60e6


def test_it_says_nothing_of_the_machine_that_built_it():
    kinds = (".html", ".js", ".json", ".css", ".txt")
    said = [
        named(file)
        for file in SITE.rglob("*")
        if file.suffix in kinds and re.search(r"/(tmp|home|root|Users)/\w", text_of(file))
    ]
    assert not said


@every_page
def test_links_lead_somewhere(page):
    lost = []
    for link in read(page).links:
        address, anchor = urldefrag(link)
        if urlsplit(address).scheme or link in ("#", "/"):
            continue
        target = (page.parent / unquote(address)).resolve() if address else page
        if not target.is_file() or (anchor and target.suffix == ".html" and unquote(anchor) not in read(target).ids):
            lost.append(link)
    assert not lost


@every_page
def test_nothing_is_loaded_from_elsewhere_and_all_is_there(page):
    for load in read(page).loads:
        address = urlsplit(load)
        assert not address.netloc and address.scheme in ("", "data"), load
        assert address.scheme or load == "#" or (page.parent / unquote(address.path)).is_file(), load


def test_styles_and_scripts_load_nothing_from_elsewhere():
    for file in [*SITE.rglob("*.css"), *SITE.rglob("*.js")]:
        assert not re.search(
            r"url\(['\"]?(https?:)?//|@import ['\"]|(fetch|import)\(['\"](https?:)?//", text_of(file)
        ), file


@every_page
def test_pictures_have_a_text_and_ids_are_unique(page):
    found = read(page)
    assert all(image.get("alt", "").strip() for image in found.images)
    assert not [image["alt"] for image in found.images if re.search(r"\.(png|svg)$", image["alt"])]
    assert len(found.ids) == len(set(found.ids)), {id for id in found.ids if found.ids.count(id) > 1}


@every_page
def test_a_page_has_a_title_a_language_and_headings_in_order(page):
    found = read(page)
    assert found.title.strip() and found.language == "en"
    assert found.headings.count(1) == 1 or page.name == "search.html"  # it has one when it shows what it found
    assert all(after <= before + 1 for before, after in zip(found.headings, found.headings[1:], strict=False))


@every_page
def test_formulas_are_drawn(page):
    found = read(page)
    raw = [text for text in found.texts if RAW_TEX.search(text)]
    assert not raw and "<merror" not in text_of(page)


def test_there_are_formulas_and_numbers():
    assert sum(read(page).math for page in PAGES) > 2000
    assert sum(text_of(page).count('class="eqno"') for page in CHAPTERS) >= 60


def test_titles_differ():
    titles = [read(page).title for page in PAGES]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("name", LEDGERS)
def test_each_claim_leads_to_its_cell(name):
    results, notebook = read(SITE / "results.html"), read(SITE / "notebooks" / f"{name}.html")
    for claim in LEDGERS[name]:
        assert f"notebooks/{name}.html#claim-{claim.id}" in results.links
        assert f"claim-{claim.id}" in notebook.ids


@pytest.mark.parametrize("name", LEDGERS)
def test_and_back_to_the_chapter_that_shows_it(name):
    notebook = SITE / "notebooks" / f"{name}.html"
    shown = [f"measured-{name}-{claim.id}" for claim in LEDGERS[name]]
    where = {id: chapter for chapter in CHAPTERS for id in read(chapter).ids if id in shown}
    assert where, f"no chapter shows claims of {name}"
    for id, chapter in where.items():
        assert f"../{chapter.name}#{id}" in read(notebook).links
        assert f"notebooks/{name}.html#claim-{id.rpartition('-')[2]}" in read(chapter).links


@pytest.mark.parametrize("name", LEDGERS)
def test_a_notebook_can_be_downloaded_as_it_is(name):
    assert f"{name}.ipynb" in read(SITE / "notebooks" / f"{name}.html").links
    assert (SITE / "notebooks" / f"{name}.ipynb").read_bytes() == (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()


def test_the_bibliography_is_large_and_each_work_can_be_found():
    page = text_of(SITE / "bibliography.html")
    works = re.findall(r'<div class="citation".*?</div>', page, re.DOTALL)
    assert len(works) >= 80
    assert not [work for work in works if not re.search(r'class="reference external" href="http', work)]


@every_page
def test_a_reference_names_what_it_leads_to(page):
    assert not [text for text in read(page).texts if re.search(r"\[\?\]|\?\?\?|eq-[a-z]+-?|fig-[a-z]+-", text)]

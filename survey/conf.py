"""Sphinx's settings for the site. tools/survey/build.py lays out the folder in which this is read."""

project = "litrev"
author = "The litrev authors"
copyright = "2026, the litrev authors"
language = "en"

extensions = ["myst_parser", "sphinxcontrib.bibtex", "tools.survey.extension"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_*", "README.md"]
nitpicky = True
numfig = True
math_numfig = True
numfig_format = {"figure": "Figure %s", "table": "Table %s"}
math_eqref_format = "({number})"
highlight_language = "none"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "attrs_block", "deflist"]
myst_dmath_double_inline = True
myst_heading_anchors = 3

from pathlib import Path  # noqa: E402

bibtex_bibfiles = sorted(f"references/{file.name}" for file in (Path(__file__).parent / "references").glob("*.bib"))
bibtex_default_style = "survey"
bibtex_reference_style = "label"

html_theme = "furo"
html_title = "litrev: diffusion models, derived and measured"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["survey.css"]
html_js_files = [("survey.js", {"defer": "defer"})]
html_favicon = "_static/favicon.svg"
html_extra_path = ["_extra"]
html_use_index = False
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b57a4", "color-brand-content": "#0b57a4"},
    "dark_css_variables": {"color-brand-primary": "#8fc1ff", "color-brand-content": "#8fc1ff"},
    "top_of_page_buttons": [],
}

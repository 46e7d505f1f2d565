"""The page "How to cite", made from CITATION.cff."""

from pathlib import Path

import yaml

PAGE = """# How to cite

If this survey, a measurement in it or the code is of use to your work, please cite it as

> {authors} ({year}). *{title}*. Version {version}.

```bibtex
@misc{{litrev{year},
  title   = {{{title}}},
  author  = {{{authors}}},
  year    = {{{year}}},
  version = {{{version}}},
}}
```

The same is in the file `CITATION.cff` of the project, which reference managers read. A single measurement is best
named by its notebook and claim, as in "litrev, notebook 03, claim C2". Texts and code are under the {license} licence;
the papers' ideas are their authors', who are in the [bibliography](bibliography.md) and are to be cited for them.
"""


def cite_page(root: Path) -> str:
    cited = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    return PAGE.format(
        authors=" and ".join(author["name"] for author in cited["authors"]),
        year=cited["date-released"].year,
        **{name: cited[name] for name in ("title", "version", "license")},
    )

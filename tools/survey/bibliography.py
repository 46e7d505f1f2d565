"""Author-year labels: 'Ho et al., 2020', with a letter where two works would be alike; citations show the same."""

from collections import Counter

from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style as Plain
from pybtex.style.labels import BaseLabelStyle


def family(person) -> str:
    return " ".join([*person.prelast_names, *person.last_names]).replace("{", "").replace("}", "")


def author_year(entry) -> str:
    people = [family(person) for person in entry.persons.get("author", entry.persons.get("editor", []))]
    names = people[0] if people else entry.fields.get("title", entry.key)
    if len(people) == 2 and people[1] != "others":
        names = f"{people[0]} & {people[1]}"
    elif len(people) > 1:
        names = f"{people[0]} et al."
    return f"{names}, {entry.fields.get('year', 'n.d.')}"


class AuthorYear(BaseLabelStyle):
    def format_labels(self, sorted_entries):
        plain = [author_year(entry) for entry in sorted_entries]
        alike, seen = Counter(plain), Counter()
        for label in plain:
            letter = chr(ord("a") + seen[label]) if alike[label] > 1 else ""
            seen[label] += 1
            yield label + letter


class SurveyStyle(Plain):
    default_label_style = AuthorYear
    default_sorting_style = "author_year_title"


def setup(app):
    register_plugin("pybtex.style.formatting", "survey", SurveyStyle)

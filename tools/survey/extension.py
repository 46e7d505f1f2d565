"""The survey's Sphinx extension."""

from tools.survey import bibliography, directives, html, pages, roles


def setup(app):
    for part in (html, roles, directives, pages, bibliography):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

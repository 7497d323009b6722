"""HTML pages of this room: one look, one file each, no network."""

from typing import Any

from jinja2 import Environment, PackageLoader


def render(template: str, **values: Any) -> str:
    """The page of a template beside this module; every value is escaped."""
    environment = Environment(loader=PackageLoader("jqlight", "report"), autoescape=True)
    return environment.get_template(template).render(**values)

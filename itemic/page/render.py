"""Templates to pages: everything is escaped, and control codes are made visible."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.text import shown

if TYPE_CHECKING:
    from jinja2 import Environment

BASE = Path(__file__).parent / "templates"


def render(template: Path, **values: Any) -> str:
    """A template, which may extend ``base.html`` and use its macros.

    Args:
        template: the file.
        values: what it shows. Only what the template itself marks as safe (charts) is taken as HTML.
    """
    return _environment(template.parent).get_template(template.name).render(**values)


@cache
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([folder, BASE])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_visible)


def _visible(value: Any) -> Any:
    from markupsafe import Markup

    if isinstance(value, Markup):  # escaped already, or a chart: it holds no control codes of others
        return value
    return shown(value, lines=True) if isinstance(value, str) else value

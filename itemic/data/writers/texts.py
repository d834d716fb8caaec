"""Texts that come back as they were: what the readers' cleaning would change is written as an entity."""

from __future__ import annotations

import html

from itemic.data.readers.text import category_path, clean, unlisted


def safe(text: str) -> str:
    """One line of text, as it is wherever the readers' cleaning leaves it alone.

    White space becomes single spaces. Text that looks like an entity, like markup or like a list written as text has
    its first such characters escaped, as shop dumps have them anyway.
    """
    line = " ".join(text.split())
    if clean(line, markup=True) == line and unlisted(line) == line:
        return line
    escaped = html.escape(line, quote=False)
    return f"&#91;{escaped[1:]}" if escaped.startswith("[") else escaped


def category_text(path: list[str]) -> str | list[str]:
    """A category path as one text with " > " between its names; as a list where a text would be read otherwise."""
    names = [safe(name) for name in path]
    text = " > ".join(names)
    return text if category_path(text) == [" ".join(name.split()) for name in path] else names


def id_value(item: str) -> int | str:
    """An id as a number where it is one as Python writes it (not ``007``)."""
    return int(item) if item.isascii() and item.isdigit() and str(int(item)) == item else item

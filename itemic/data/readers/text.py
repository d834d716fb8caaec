"""Cleaning what sources write into titles, brands and category paths."""

from __future__ import annotations

import ast
import html
import re
from typing import Any

_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,300}>")
# in "Test, Measure & Inspect,Dimensional Measurement" only the second comma parts two names
_PATH_COMMA = re.compile(r",(?!\s)")


def clean(value: Any, *, markup: bool = False) -> str:
    """One line of plain text: entities decoded, white space collapsed; lists joined, None is empty.

    Args:
        value: a text, number, list or None.
        markup: also take out HTML tags, which raw shop dumps are full of.
    """
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(part for part in (clean(entry, markup=markup) for entry in value) if part)
    text = html.unescape(value if isinstance(value, str) else str(value))
    if markup and "<" in text:
        text = _TAG.sub(" ", text)
    return _SPACE.sub(" ", text).strip()


def unlisted(value: Any) -> Any:
    """A list that was written as text (``"['a', 'b']"``) as a list again; anything else as it is."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
        return parsed if isinstance(parsed, list) else value
    return value


def brand_of(value: Any) -> str:
    """A brand's name; "Unknown" is none."""
    text = clean(value, markup=True)
    return "" if text.lower() == "unknown" else text


def category_path(value: Any) -> list[str]:
    """The path from general to specific.

    A text is parted at " > ", else at commas that no space follows. Of several paths (a list of lists) the
    longest counts, the first of equally long ones.
    """
    value = unlisted(value)
    if not isinstance(value, str | list):
        return []
    if isinstance(value, str):
        parts = value.split(" > ") if " > " in value else _PATH_COMMA.split(value)
    elif value and all(isinstance(path, list) for path in value):
        parts = max(value, key=len)
    else:
        parts = value
    return [name for name in (clean(part, markup=True) for part in parts) if name]

"""What an item says about itself, as clean text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import polars as pl

from itemic import schema as c
from itemic.errors import ConfigError

TEXT_FIELDS = (c.TITLE, c.BRAND, c.CATEGORIES, c.DESCRIPTION)

_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """Scraped text made plain: entities resolved (twice: ``&amp;amp;``), tags dropped, blanks collapsed."""
    if "&" in text:
        text = html.unescape(html.unescape(text))
    if "<" in text:
        text = _TAG.sub(" ", text)
    return _SPACE.sub(" ", text).strip()


def field_texts(items: pl.DataFrame, field: str) -> list[str]:
    """One field of every item as clean text; a category path is joined by `` > ``, and tags by commas behind it.

    Raises:
        ConfigError: the catalogue has no such field.
    """
    if field not in TEXT_FIELDS:
        raise ConfigError(f"items have no text field {field!r}", f"Choose among {', '.join(TEXT_FIELDS)}.")
    if field not in items.columns:
        raise ConfigError(
            f"the item table has no column {field!r}", "Leave the field out, or import the items again."
        )
    column = items[field]
    if field == c.CATEGORIES:
        column = _labels(items)
    return [clean(text or "") for text in column.to_list()]


def _labels(items: pl.DataFrame) -> pl.Series:
    """What an item is filed under: its category path, its tags, or both with a semicolon between them."""
    parts = [pl.col(c.CATEGORIES).list.drop_nulls().list.join(" > ")]
    if c.TAGS in items.columns:
        parts.append(pl.col(c.TAGS).list.drop_nulls().list.join(", "))
    filled = [pl.when(part != "").then(part) for part in parts]
    return items.select(pl.concat_str(filled, separator="; ", ignore_nulls=True)).to_series()


def item_texts(items: pl.DataFrame, fields: Sequence[str] = TEXT_FIELDS) -> list[str]:
    """One text per item: a line ``Title: …``, ``Brand: …`` for every field that has something to say.

    Raises:
        ConfigError: the catalogue has no such field, or no field is named.
    """
    if not fields:
        raise ConfigError("no text field is named", f"Choose among {', '.join(TEXT_FIELDS)}.")
    return join_fields(fields, [field_texts(items, field) for field in fields])


def join_fields(fields: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """The texts of :func:`item_texts` from the fields' own, each column as :func:`field_texts` gives it."""
    labels = [field.capitalize() for field in fields]
    rows = zip(*columns, strict=True)
    return ["\n".join(f"{n}: {t}" for n, t in zip(labels, row, strict=True) if t) for row in rows]

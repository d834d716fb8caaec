"""Further columns of a source, which travel along under their own names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.readers.events import FILE, LINE

RESERVED = (*c.ITEM_COLUMNS, *c.INTERACTION_COLUMNS, LINE, FILE)
# the first amount of "$12.99", "12.99 - 15.00" or "1,299.00"; "from $5" and the style sheets of dumps are no prices
_PRICE = re.compile(
    r"[^\d\s.,-]{0,3}\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)\s*(?:[-–].*|[^\d\s]{1,3})?", re.S
)


def number(text: str, name: str) -> float:
    """A finite number, or a ValueError that names the column."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text!r}, not a number")
    return value


def price_of(value: Any) -> float | None:
    """A price as a number, the lowest of a range; None where there is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    found = _PRICE.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(found.group(1).replace(",", "")) if found else None


@dataclass(frozen=True)
class Kind:
    """How a column's text becomes values: a line at a time, or whole columns at once.

    Attributes:
        dtype: of the column.
        parse: one text (may be empty); a ValueError says what is wrong.
        column: the same of a column of texts, in which empty ones are null.
    """

    dtype: Any
    parse: Callable[[str, str], Any]
    column: Callable[[pl.Expr], pl.Expr]


def _split(text: pl.Expr) -> pl.Expr:
    parts = text.fill_null("").str.split(" ")
    return parts.list.eval(pl.element().filter(pl.element() != ""))


KINDS: Mapping[str, Kind] = {
    "token": Kind(pl.String, lambda text, name: text or None, lambda text: text),
    "token_seq": Kind(pl.List(pl.String), lambda text, name: text.split(), _split),
    "float": Kind(
        pl.Float64,
        lambda text, name: number(text, name) if text.strip() else None,
        lambda text: text.cast(pl.Float64),
    ),
    "float_seq": Kind(
        pl.List(pl.Float64),
        lambda text, name: [number(part, name) for part in text.split()],
        lambda text: _split(text).cast(pl.List(pl.Float64)),
    ),
    "price": Kind(
        pl.Float64,
        lambda text, name: price_of(text),
        lambda text: text.map_elements(price_of, return_dtype=pl.Float64),
    ),
}


def has_value(values: pl.Series) -> pl.Series:
    """Which rows of a column say something: not null, and no empty list (Boolean ``[N]``)."""
    there = values.is_not_null()
    return there & (values.list.len() > 0).fill_null(False) if isinstance(values.dtype, pl.List) else there


def own_name(name: str) -> str:
    """The name under which a further column travels: its own, unless that has a meaning here."""
    return f"source_{name}" if name in RESERVED else name

"""Columns of values, whatever type a table gave them: ids, numbers, texts, lists."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any, Final

import polars as pl

from itemic.data.readers.text import category_path, clean, unlisted
from itemic.errors import DataError

PATH_MARKS: Final = (">", "|")
TAG_MARKS: Final = ("|", ";", ",")
_DECIMAL_COMMA: Final = r",\d+\D*$"
_DECIMAL_POINT: Final = r"\.\d+\D*$"
_CODE: Final = r"^-?0\d"  # "007" is a code, not a number
_NUMBER: Final = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def ids(series: pl.Series) -> pl.Series:
    """Ids as strings: white space around them taken off, null where there is none.

    ``007`` stays what it is; of numbers the decimal digits count. A float that is a whole number (what pandas makes of
    a column with holes) is that number; one that isn't is null.

    Raises:
        DataError: the column holds lists or the like.
    """
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        raise DataError(f"the column {series.name!r} holds {series.dtype}, no ids", "Name another column.")
    if series.dtype.is_float():
        whole = series.cast(pl.Int64, strict=False)
        series = whole.set((whole != series).fill_null(True), None)
    text = series.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def decimal_mark(series: pl.Series, given: str | None, *, commas: bool) -> str:
    """The decimal mark of numbers written as text; with ``commas`` it may be a comma, if no number has a point."""
    if given is not None or not commas or series.dtype != pl.String:
        return given or "."
    comma, point = series.str.contains(_DECIMAL_COMMA).any(), series.str.contains(_DECIMAL_POINT).any()
    return "," if comma and not point else "."


def numbers(series: pl.Series, decimal: str, *, money: bool = False) -> pl.Series:
    """Numbers as Float64, null where there is none or the text is none.

    Args:
        series: numbers or texts.
        decimal: the decimal mark of texts; the other mark parts thousands.
        money: signs of currencies around the number are taken off.
    """
    if series.dtype != pl.String:
        try:
            return series.cast(pl.Float64, strict=False).fill_nan(None)
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"the column {series.name!r} holds {series.dtype}, no numbers", "Name another column."
            ) from error
    text = series.str.strip_chars()
    if money:
        text = text.str.replace_all(r"^[^\d.,+-]+|[^\d.,]+$", "")
    if decimal == ",":
        text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    elif money:
        text = text.str.replace_all(",", "", literal=True)
    return text.cast(pl.Float64, strict=False).fill_nan(None)


def texts(series: pl.Series, *, markup: bool = False) -> pl.Series:
    """One line of plain text each, as :func:`itemic.data.readers.text.clean` makes it; empty where there is none."""
    if series.dtype.is_nested():
        return _by_value(series, lambda value: clean(value, markup=markup), pl.String())
    text = series.cast(pl.String).fill_null("")
    odd = text.str.contains("&", literal=True)
    if markup:
        odd |= text.str.contains("<", literal=True)
    if odd.any():
        cleaned = [clean(value, markup=markup) for value in text.filter(odd)]
        text = text.scatter(odd.arg_true(), pl.Series(cleaned, dtype=pl.String))
    return text.str.replace_all(r"\s+", " ").str.strip_chars()


def paths(series: pl.Series, mark: str | None) -> tuple[pl.Series, str | None]:
    """Paths from general to specific, ``List(String)``, and the mark that parts them in texts."""
    mark = mark or _found_mark(series, PATH_MARKS)
    return _by_value(series, lambda value: category_path(_parted(value, mark)), pl.List(pl.String)), mark


def tags(series: pl.Series, mark: str | None) -> tuple[pl.Series, str | None]:
    """Labels without order, ``List(String)``, and the mark that parts them in texts."""
    mark = mark or _found_mark(series, TAG_MARKS)

    def labels(value: Any) -> list[str]:
        value = _parted(value, mark)
        parts = value if isinstance(value, list) else [value]
        return list(dict.fromkeys(name for name in map(clean, parts) if name))

    return _by_value(series, labels, pl.List(pl.String)), mark


def typed(series: pl.Series, decimal: str | None, *, commas: bool) -> pl.Series:
    """A further column of a text file: whole numbers, numbers or, where any value is neither, text."""
    if series.dtype != pl.String or series.null_count() == len(series):
        return series
    text = series.str.strip_chars()
    mark = decimal_mark(text, decimal, commas=commas)
    plain = text.str.replace(",", ".", literal=True) if mark == "," else text
    if not plain.str.contains(_NUMBER).all() or plain.str.contains(_CODE).any():
        return series
    whole = plain.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == series.null_count() else plain.cast(pl.Float64, strict=False)


def _found_mark(series: pl.Series, marks: tuple[str, ...]) -> str | None:
    """The mark that most texts hold; None where none does, or the values are lists."""
    if series.dtype != pl.String:
        return None
    flat = series.filter(~series.str.starts_with("[").fill_null(True))
    counts = [int(flat.str.contains(mark, literal=True).sum()) for mark in marks]
    return marks[counts.index(max(counts))] if any(counts) else None


def _parted(value: Any, mark: str | None) -> Any:
    value = unlisted(value)
    if isinstance(value, str) and mark:
        return re.split(re.escape(mark), html.unescape(value))
    return value


def _by_value(series: pl.Series, change: Callable[[Any], Any], dtype: pl.DataType) -> pl.Series:
    """Apply a function of Python to each distinct value; null becomes what it makes of an empty text."""
    if series.dtype.is_nested():
        plain = [change(value if value is not None else "") for value in series.to_list()]
        return pl.Series(series.name, plain, dtype)
    distinct = series.cast(pl.String).fill_null("")
    codes = distinct.unique(maintain_order=True)
    known = pl.DataFrame({"value": codes, "made": pl.Series([change(value) for value in codes], dtype=dtype)})
    return distinct.to_frame("value").join(known, on="value", how="left", maintain_order="left")["made"]

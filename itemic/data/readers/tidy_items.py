"""Rows of anybody's table become a catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from itemic import schema as c
from itemic.data.readers import values
from itemic.data.readers.columns import ITEM, Columns
from itemic.data.readers.events import FILE, LINE
from itemic.data.readers.rows import BadRows
from itemic.data.readers.tables import Batch
from itemic.data.readers.tidy_events import Reading, column, further_name, written
from itemic.errors import DataError

OURS = (*c.ITEM_COLUMNS, c.TAGS, c.PRICE)


@dataclass(frozen=True)
class TidyItems:
    """A catalogue made of tables; what :func:`itemic.data.readers.assemble.assemble` takes.

    Attributes:
        file: the name of its file for messages.
        items: columns ``schema.ITEM_COLUMNS``, ``tags`` and ``price`` where there are such columns, and further ones.
        first_untitled: the place and id of the first item without a title, for messages; empty where all have one.
        told: what was told from the values, in words.
    """

    file: str
    items: pl.DataFrame
    first_untitled: str
    told: tuple[str, ...]

    @property
    def further(self) -> list[str]:
        """The columns that travel along under their own names."""
        return [name for name in self.items.columns if name not in OURS]

    @property
    def taken(self) -> int:
        """How many items it holds."""
        return len(self.items)

    def frame(self) -> pl.DataFrame:
        """Raises:
        DataError: there are none.
        """
        if not len(self.items):
            raise DataError(f"{self.file} holds no usable item", "Check the file and its columns.")
        return self.items


def tidy_items(
    parts: Iterable[tuple[str, Batch]], columns: Columns, reading: Reading, rows: BadRows
) -> TidyItems:
    """Make a catalogue.

    Args:
        parts: the name of a file, and rows of it; several times.
        columns: who plays which part.
        reading: how values are written.
        rows: what to do with rows without an id, or with one that was there before.

    Raises:
        DataError: a row is bad (policy error), or a column can't be what it is taken for.
    """
    frame, files = _put_together(parts)
    where = " and ".join(files)
    try:
        found, told = _items(frame, columns, reading)
    except DataError as error:
        raise DataError(f"{where}: {error.message}", error.remedy) from error
    return unique_items(found, files, rows, told)


def unique_items(items: pl.DataFrame, files: list[str], rows: BadRows, told: Iterable[str] = ()) -> TidyItems:
    """A catalogue of items as they stand.

    Args:
        items: columns ``schema.ITEM_COLUMNS`` and further ones; ids may be null, texts not. ``LINE`` and ``FILE`` say
            where each one stands.
        files: the names that ``FILE`` counts.
        rows: what to do with items without an id, or with one that was there before.
        told: what was told from the values, in words.

    Raises:
        DataError: an item is bad (policy error).
    """
    found = _unique(items, rows, files)
    silent = found.filter(pl.col(c.TITLE) == "").head(1)
    first = f"{_place(silent, files)}: item {silent[c.ITEM_ID][0]!r}" if len(silent) else ""
    return TidyItems(" and ".join(files), found.drop(LINE, FILE), first, tuple(told))


def _put_together(parts: Iterable[tuple[str, Batch]]) -> tuple[pl.DataFrame, list[str]]:
    frames, files = [], list[str]()
    for file, batch in parts:
        if file not in files:
            files.append(file)
        place = (pl.Series(LINE, batch.lines), pl.lit(files.index(file), pl.UInt32).alias(FILE))
        frames.append(batch.frame.with_columns(*place))
    try:
        return (pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()), files
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{' and '.join(files)}: parts don't fit together: {error}",
            "Give one column one type in all files.",
        ) from error


def _items(frame: pl.DataFrame, columns: Columns, reading: Reading) -> tuple[pl.DataFrame, list[str]]:
    part = {role: column(frame, name) for role, name in columns.named.items()}
    found, told = {c.ITEM_ID: values.ids(part[ITEM])}, []
    for role in (c.TITLE, c.DESCRIPTION, c.BRAND):
        series = part.get(role, column(frame, ""))
        found[role] = values.texts(series, markup=role == c.DESCRIPTION)
    found[c.BRAND] = found[c.BRAND].set(found[c.BRAND].str.to_lowercase() == "unknown", "")
    found[c.CATEGORIES], mark = values.paths(
        part.get(c.CATEGORIES, column(frame, "")), reading.category_separator
    )
    if mark:
        told.append(f"categories parted at {mark!r}")
    if c.TAGS in part:
        found[c.TAGS], mark = values.tags(part[c.TAGS], reading.tag_separator)
        if mark:
            told.append(f"tags parted at {mark!r}")
    if c.PRICE in part:
        point = reading.mark(part[c.PRICE])
        found[c.PRICE] = values.numbers(part[c.PRICE], point, money=True)
        told += [f"the decimal mark of {c.PRICE} is a comma"] * (point == ",")
        lost = int((found[c.PRICE].is_null() & written(part[c.PRICE])).sum())
        told += [f"{lost:,} prices can't be read"] * (lost > 0)
    further = {
        further_name(name, c.TAGS, c.PRICE): reading.typed(frame[name])
        for name in columns.others
        if name not in (LINE, FILE)
    }
    return pl.DataFrame(found | further | {name: frame[name] for name in (LINE, FILE)}), told


def _unique(items: pl.DataFrame, rows: BadRows, files: list[str]) -> pl.DataFrame:
    """The items that have an id of their own; the others are reported."""
    nameless = items.filter(pl.col(c.ITEM_ID).is_null())
    if len(nameless):
        rows.report("missing item id", _place(nameless, files), "the item has no id", len(nameless))
        items = items.filter(pl.col(c.ITEM_ID).is_not_null())
    again = items.filter(~pl.col(c.ITEM_ID).is_first_distinct())
    if len(again):
        what = f"item {again[c.ITEM_ID][0]!r} is in the catalogue already"
        rows.report("duplicate item", _place(again, files), what, len(again))
        items = items.filter(pl.col(c.ITEM_ID).is_first_distinct())
    return items


def _place(items: pl.DataFrame, files: list[str]) -> str:
    """Where the first of some items stands."""
    return f"{files[items[FILE][0]]}, line {items[LINE][0]}"

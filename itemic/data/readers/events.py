"""Interactions on their way from raw lines to a table, in batches, as small codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import Lines, Source
from itemic.errors import DataError

LINE = "_line"  # UInt32, where the event stands in its file; 0 where lines mean nothing
FILE = "_file"  # UInt16, number of the file
Event = tuple[Any, ...]  # user, item, rating, time in milliseconds, then the further columns
EVENT_SCHEMA: dict[str, Any] = {
    c.USER_ID: pl.String,
    c.ITEM_ID: pl.String,
    c.RATING: pl.Float32,
    c.TIMESTAMP: pl.Int64,
    LINE: pl.UInt32,
}


class Events:
    """Collects interactions; ids become dictionary codes at once, so that a row takes about 30 bytes."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._users = pl.Categorical(pl.Categories.random())
        self._items = pl.Categorical(pl.Categories.random())
        self._parts: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame, file: str) -> None:
        """Take rows of ``EVENT_SCHEMA`` (and ``schema.SPLIT``, if the source has one) read from ``file``; further
        columns travel along."""
        if file not in self.files:
            self.files.append(file)
        split = pl.col(c.SPLIT) if c.SPLIT in frame.columns else pl.lit(None)
        self._parts.append(
            frame.select(
                pl.col(c.USER_ID).cast(self._users),
                pl.col(c.ITEM_ID).cast(self._items),
                pl.col(c.TIMESTAMP).cast(pl.Int64),
                pl.col(c.RATING).cast(pl.Float32),
                split.cast(pl.Enum(c.SPLITS)).alias(c.SPLIT),
                pl.col(LINE).cast(pl.UInt32),
                pl.lit(self.files.index(file), pl.UInt16).alias(FILE),
                pl.exclude(*EVENT_SCHEMA, c.SPLIT),
            )
        )

    def item_ids(self) -> set[str]:
        """The ids of all items so far."""
        return {item for part in self._parts for item in part[c.ITEM_ID].unique().cast(pl.String)}

    def table(self) -> pl.DataFrame:
        """All rows, in the order they came."""
        if not self._parts:
            self.add(pl.DataFrame(schema=EVENT_SCHEMA), "")
        try:
            whole = pl.concat(self._parts, how="diagonal_relaxed")
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{', '.join(self.files)}: a column has types that don't fit together: {error}",
                "Give each column one type in all rows and files.",
            ) from error
        self._parts = []
        return whole


def read_events(
    source: Source,
    file: str,
    rows: BadRows,
    events: Events,
    *,
    fast: Callable[[bytes], pl.DataFrame],
    parse: Callable[[str], Event],
    header: bool = False,
    encoding: str = "utf-8",
    split: str | None = None,
    timed: bool = True,
    more: Mapping[str, Any] | None = None,
) -> int:
    """Stream a file of one event per line into ``events``.

    Args:
        source: the folder.
        file: the file's name in it.
        rows: what to do with bad lines.
        events: what to add to.
        fast: makes a table (``EVENT_SCHEMA`` without the line) of many lines at once; may raise a polars
            error.
        parse: makes one event of one line; raises ValueError with the reason. Used where ``fast`` fails, to
            find and name the bad lines.
        header: the first line is none of the events.
        encoding: of single lines; ``fast`` gets bytes.
        split: the split that all events of the file belong to.
        timed: every event must have a time.
        more: names and polars types of the further columns that ``fast`` and ``parse`` give.

    Returns:
        How many lines of events the file has.
    """
    count = 0
    for lines in source.batches(file):
        if header and lines.first == 1:
            lines = lines.without_first()
        if not lines.data:
            continue
        frame = _parse_fast(fast, lines, timed)
        if frame is None:
            frame = _parse_slow(parse, lines, source.where(file), rows, encoding, dict(more or {}))
        if split is not None:
            frame = frame.with_columns(pl.lit(split).alias(c.SPLIT))
        events.add(frame, source.where(file))
        count += lines.count
    return count


def _parse_fast(fast: Callable[[bytes], pl.DataFrame], lines: Lines, timed: bool) -> pl.DataFrame | None:
    """None where anything is odd: the slow way then finds out what."""
    try:
        frame = fast(lines.data)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    holes = frame.select(
        (pl.col(c.USER_ID).fill_null("").str.strip_chars() == "").any()
        | (pl.col(c.ITEM_ID).fill_null("").str.strip_chars() == "").any()
        | (pl.col(c.TIMESTAMP).has_nulls() & timed)
    ).item()
    if holes or len(frame) != lines.count:
        return None
    return frame.with_columns(pl.Series(LINE, np.arange(len(frame), dtype=np.uint32) + lines.first))


def _parse_slow(
    parse: Callable[[str], Event],
    lines: Lines,
    file: str,
    rows: BadRows,
    encoding: str,
    more: dict[str, Any],
) -> pl.DataFrame:
    found: list[tuple[Any, ...]] = []
    for number, raw in lines:
        if not raw.strip():
            continue
        try:
            found.append((*parse(raw.decode(encoding)), number))
        except ValueError as error:
            rows.report("broken line", f"{file}, line {number}", str(error))
    kinds = {name: kind for name, kind in EVENT_SCHEMA.items() if name != LINE}
    whole = kinds | more | {LINE: EVENT_SCHEMA[LINE]}
    return pl.DataFrame(found, schema=whole, orient="row")

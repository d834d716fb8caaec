"""Tables with separators: small ones row by row, events by the million in batches."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.readers.events import Event
from itemic.data.readers.further import KINDS, number, own_name
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import AGAIN, Source
from itemic.data.readers.times import milliseconds, tell_unit
from itemic.errors import DataError
from itemic.progress import log

LOOK_AT = 1000  # lines from which the unit of times is told


def require_columns(file: str, wanted: Sequence[str], header: Sequence[str]) -> None:
    """Raises:
    DataError: the header lacks a column.
    """
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            f"{file} lacks the column {', '.join(missing)}; it has {', '.join(header) or 'none'}",
            "Check the file and the format.",
        )


@dataclass(frozen=True)
class Delimited:
    """How a file of one event per line is laid out.

    Attributes:
        columns: all of them, in order.
        user: the column of users; likewise ``item``, ``rating`` and ``time`` (None where there is none).
        separator: one or more characters.
        quoted: fields may stand in double quotes.
        unit: of times, see :func:`itemic.data.readers.times.milliseconds`.
        more: further columns and the names of their kinds, see :data:`itemic.data.readers.further.KINDS`.
        names: under which a further column travels, where that isn't its own.
    """

    columns: tuple[str, ...]
    user: str
    item: str
    rating: str | None
    time: str | None
    separator: str = ","
    quoted: bool = True
    unit: str = "s"
    more: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def more_types(self) -> dict[str, Any]:
        """The further columns as they travel: name → polars type."""
        return {self._name(name): KINDS[kind].dtype for name, kind in self.more.items()}

    def _name(self, column: str) -> str:
        return self.names.get(column) or own_name(column)

    @property
    def reading(self) -> dict[str, Any]:
        """What :func:`itemic.data.readers.events.read_events` has to know of the layout."""
        timed = self.time is not None
        return {"fast": self.fast, "parse": self.parse, "timed": timed, "more": self.more_types}

    def fast(self, data: bytes) -> pl.DataFrame:
        """Many lines at once; polars errors where a line is odd."""
        separator = self.separator
        if len(separator) > 1:
            data, separator = data.replace(separator.encode(), b"\x1f"), "\x1f"
        table = pl.read_csv(
            io.BytesIO(data),
            has_header=False,
            schema=dict.fromkeys(self.columns, pl.String),
            separator=separator,
            quote_char='"' if self.quoted else None,
        )
        nothing = pl.lit(None)
        return table.select(
            pl.col(self.user).alias(c.USER_ID),
            pl.col(self.item).alias(c.ITEM_ID),
            (pl.col(self.rating).cast(pl.Float64).fill_nan(None) if self.rating else nothing).alias(c.RATING),
            (self._times(table[self.time]) if self.time else nothing).alias(c.TIMESTAMP),
            *(KINDS[kind].column(pl.col(name)).alias(self._name(name)) for name, kind in self.more.items()),
        )

    def _times(self, texts: pl.Series) -> pl.Series:
        try:
            return milliseconds(texts, self.unit)[0]
        except DataError:  # what is wrong with them is told line by line
            return pl.Series(texts.name, [None] * len(texts), pl.Int64)

    def fields(self, line: str) -> dict[str, str]:
        """The fields of a line by column; a ValueError says that there are too few or too many."""
        if self.quoted:
            values = next(csv.reader([line], delimiter=self.separator))
        else:
            values = line.split(self.separator)
        if len(values) != len(self.columns):
            raise ValueError(f"{len(values)} fields where there should be {len(self.columns)}")
        return dict(zip(self.columns, values, strict=True))

    def parse(self, line: str) -> Event:
        """One line; a ValueError says what is wrong with it."""
        row = self.fields(line)
        for name in (self.user, self.item):
            if not row[name].strip():
                raise ValueError(f"{name} is empty")
        rating = None
        if self.rating and row[self.rating].strip():
            rating = number(row[self.rating], self.rating)
        further = (KINDS[kind].parse(row[name], name) for name, kind in self.more.items())
        return row[self.user], row[self.item], rating, self._time(row), *further

    def _time(self, row: dict[str, str]) -> int | None:
        if self.time is None:
            return None
        try:
            return int(milliseconds(pl.Series(self.time, [row[self.time]]), self.unit)[0][0])
        except DataError as error:
            raise ValueError(error.message) from error


def with_unit(source: Source, file: str, layout: Delimited) -> Delimited:
    """The layout with the unit of the file's times, told from its first lines and logged."""
    found = []
    for line in source.head(file, LOOK_AT + 1)[1:]:
        with suppress(ValueError):
            found.append(layout.fields(line)[str(layout.time)])
    unit = tell_unit(pl.Series(layout.time, found, pl.String))
    log.info("%s: times are in %s, by the size of the numbers", source.where(file), unit)
    return replace(layout, unit=unit)


def csv_rows(
    source: Source, file: str, columns: tuple[str, ...], rows: BadRows, encoding: str = "utf-8"
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header, each with the number of its last line; short and long rows are bad
    rows.

    Raises:
        DataError: a column of ``columns`` is missing.
    """
    csv.field_size_limit(sys.maxsize)  # a history of long titles passes the default of 128 KB
    with source.open(file) as stream:
        table = csv.reader(io.TextIOWrapper(stream, encoding=encoding, newline=""))
        try:
            header = [name.removeprefix("\ufeff") for name in next(table, [])]
            require_columns(source.where(file), columns, header)
            for values in table:
                if len(values) == len(header):
                    yield table.line_num, dict(zip(header, values, strict=True))
                elif values:
                    what = f"{len(values)} fields where the header has {len(header)}"
                    rows.report("broken line", f"{source.where(file)}, line {table.line_num}", what)
        except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"{source.where(file)} is damaged or cut short after {table.line_num} lines: {error}",
                AGAIN,
            ) from error

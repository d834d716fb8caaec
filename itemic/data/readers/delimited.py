"""Tables with separators: small ones row by row, events by the million in batches."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from itemic import schema as c
from itemic.data.readers.events import Event
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import AGAIN, Source
from itemic.errors import DataError


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
        scale: milliseconds in the time's unit.
    """

    columns: tuple[str, ...]
    user: str
    item: str
    rating: str | None
    time: str | None
    separator: str = ","
    quoted: bool = True
    scale: int = 1000

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
            (
                (pl.col(self.time).cast(pl.Float64) * self.scale).round().cast(pl.Int64)
                if self.time
                else nothing
            ).alias(c.TIMESTAMP),
        )

    def parse(self, line: str) -> Event:
        """One line; a ValueError says what is wrong with it."""
        if self.quoted:
            values = next(csv.reader([line], delimiter=self.separator))
        else:
            values = line.split(self.separator)
        if len(values) != len(self.columns):
            raise ValueError(f"{len(values)} fields where there should be {len(self.columns)}")
        row = dict(zip(self.columns, values, strict=True))
        for name in (self.user, self.item):
            if not row[name].strip():
                raise ValueError(f"{name} is empty")
        rating = None
        if self.rating and row[self.rating].strip():
            rating = number(row[self.rating], self.rating)
        time = round(number(row[self.time], self.time) * self.scale) if self.time else None
        return row[self.user], row[self.item], rating, time


def number(text: str, name: str) -> float:
    """A finite number, or a ValueError that names the column."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text!r}, not a number")
    return value


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

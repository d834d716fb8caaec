"""Text with separators: CSV, TSV and their kin, as strings, batch by batch.

pyarrow's reader is strict where it matters: a row with too few or too many fields is reported, quotes follow RFC 4180,
and a field may hold line ends.
"""

from __future__ import annotations

import codecs
import csv
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from itemic.data.readers.columns import is_usual
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import Source
from itemic.data.readers.tables import Batch, damage
from itemic.errors import ConfigError, DataError

SEPARATORS = (",", ";", "\t", "|", " ")
BLOCK_BYTES = 8 << 20
SEPARATOR_WORDS = {"tab": "\t", "space": " ", "\\t": "\t"}
UNNAMED = "unnamed column"  # pandas' index; left out


@dataclass(frozen=True)
class Layout:
    """How text files are laid out.

    Attributes:
        separator: one character, or ``"tab"``, ``"space"``; None finds it from the header.
        quoted: a field may stand in double quotes.
        encoding: of the text.
        columns: the names of the columns where the files have no header.
    """

    separator: str | None = None
    quoted: bool = True
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        separator = SEPARATOR_WORDS.get(self.separator, self.separator) if self.separator else None
        if separator is not None and len(separator.encode()) != 1:
            raise ConfigError(f"the separator is {self.separator!r}", "Give one character, tab or space.")
        object.__setattr__(self, "separator", separator)
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise ConfigError(f"unknown encoding {self.encoding!r}", "Use e.g. utf-8 or cp1252.") from error


class TextTable:
    """A text file with one row a line."""

    def __init__(self, source: Source, file: str, layout: Layout) -> None:
        self.where = source.where(file)
        self._source, self._file, self._layout = source, file, layout

    @cached_property
    def separator(self) -> str:
        """One character."""
        return self._layout.separator or find_separator(self._first, self._layout.columns)

    @cached_property
    def header(self) -> tuple[str, ...]:
        if self._layout.columns:
            return self._layout.columns
        names = split_line(self._first, self.separator, quoted=self._layout.quoted)
        twice = sorted({name for name in names if names.count(name) > 1 and name})
        if twice:
            raise DataError(f"{self.where} has the column {twice[0]!r} twice", "Rename one of them.")
        if names and all(name.replace(".", "").isdigit() for name in names):
            raise DataError(
                f"{self.where} has no header: its first line is {self._first!r}",
                "Name the columns with the option columns, e.g. [user, item, rating, timestamp].",
            )
        return tuple(names)

    @cached_property
    def _first(self) -> str:
        """The first line, without its end."""
        encoding = (
            "utf-8-sig" if codecs.lookup(self._layout.encoding).name == "utf-8" else self._layout.encoding
        )
        try:
            with self._source.open(self._file) as stream:
                line = io.TextIOWrapper(stream, encoding=encoding, errors="replace").readline()
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            raise DataError(f"{self.where} can't be read: {error}", "Check the file.") from error
        if "\ufffd" in line:
            raise DataError(
                f"{self.where} is not {self._layout.encoding}: its first line is {line!r}",
                "Set the option encoding, e.g. cp1252.",
            )
        return line.rstrip("\r\n")

    def batches(self, rows: BadRows) -> Iterator[Batch]:
        header = self.header
        if not self._layout.columns and len(self._source.head(self._file, 2)) < 2:
            return  # pyarrow takes a header alone for a row that was cut
        numbers = _LineNumbers(1 if self._layout.columns else 2)
        odd: list[Any] = []
        with damage(self.where), self._source.open(self._file) as stream:
            for part in self._parts(stream, odd):
                numbers.skipped += [row.number for row in odd]
                for row in odd:
                    what = f"{row.actual_columns} fields where the header has {len(header)}"
                    rows.report("broken line", f"{self.where}, line {row.number}", what)
                odd.clear()
                if part.num_rows:
                    yield self._batch(part, numbers, rows)

    def _parts(self, stream: Any, odd: list[Any]) -> Iterator[pa.RecordBatch]:
        from pyarrow import csv as arrow

        def keep(row: Any) -> str:
            odd.append(row)
            return "skip"

        names = [str(i) for i in range(len(self.header))]
        skipped = 0 if self._layout.columns else 1
        yield from arrow.open_csv(
            stream,
            read_options=arrow.ReadOptions(
                use_threads=False,  # with threads rows that are odd have no number
                block_size=BLOCK_BYTES,
                column_names=names,
                skip_rows_after_names=skipped,
                encoding=self._layout.encoding,
            ),
            parse_options=arrow.ParseOptions(
                delimiter=self.separator,
                quote_char='"' if self._layout.quoted else False,
                newlines_in_values=self._layout.quoted,
                ignore_empty_lines=False,
                invalid_row_handler=keep,
            ),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                check_utf8=False,  # looked at below, where the row can be told
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )

    def _batch(self, part: pa.RecordBatch, numbers: _LineNumbers, rows: BadRows) -> Batch:
        lines = numbers.take(part.num_rows, _line_ends(part) if self._layout.quoted else None)
        broken = _undecodable(part)
        for i in broken:
            what = f"the text is not {self._layout.encoding}"
            rows.report("broken line", f"{self.where}, line {lines[i]}", what)
        if broken:
            lines = np.delete(lines, broken)
            part = part.take(pa.array(np.delete(np.arange(part.num_rows), broken)))
        frame = pl.DataFrame(part)
        frame.columns = [name or UNNAMED for name in self.header]
        blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
        if blank.any():
            frame, lines = frame.filter(~blank), lines[~blank.to_numpy()]
        return Batch(frame.drop(UNNAMED, strict=False), lines)


def _line_ends(part: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """How many line ends the fields of each row hold."""
    import pyarrow.compute as compute

    total = np.zeros(part.num_rows, np.int64)
    for column in part.columns:
        total += compute.fill_null(compute.count_substring(column, "\n"), 0).to_numpy()
    return total


def _undecodable(part: pa.RecordBatch) -> list[int]:
    """The rows that hold bytes which are no UTF-8."""
    try:
        part.validate(full=True)
    except pa.ArrowInvalid:
        return sorted({i for column in part.columns for i in _not_utf8(column)})
    return []


def _not_utf8(column: pa.Array) -> Iterator[int]:
    for i, value in enumerate(column.cast(pa.binary()).to_pylist()):
        try:
            (value or b"").decode()
        except UnicodeDecodeError:
            yield i


class _LineNumbers:
    """Where rows stand in their file: odd rows are left out, and fields may hold line ends."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._ends = 0
        self.skipped: list[int] = []  # counted as rows

    def take(self, count: int, ends: npt.NDArray[np.int64] | None) -> npt.NDArray[np.uint32]:
        """The lines of the next ``count`` rows, whose fields hold so many line ends."""
        numbers = np.arange(self._next, self._next + count + len(self.skipped))
        numbers = np.setdiff1d(numbers, self.skipped, assume_unique=True)[:count]
        self._next = int(numbers[-1]) + 1
        self.skipped = [number for number in self.skipped if number >= self._next]
        if ends is not None:
            numbers = numbers + self._ends + np.cumsum(ends) - ends
            self._ends += int(ends.sum())
        return numbers.astype(np.uint32)


def find_separator(line: str, names: Sequence[str] | None = None) -> str:
    """The separator that a header line is written with: the one that parts it into names of columns.

    What gives more names that are usual wins, then what gives more fields.

    Args:
        line: the header, or the first row where there is none.
        names: of the columns, where the file has no header.
    """

    def worth(separator: str) -> tuple[bool, int, int]:
        fields = split_line(line, separator)
        return len(fields) == len(names or ()), sum(map(is_usual, fields)), len(fields)

    return max(SEPARATORS, key=worth)


def split_line(line: str, separator: str, *, quoted: bool = True) -> list[str]:
    """The fields of one line, white space around them taken off."""
    if not quoted:
        return [field.strip() for field in line.split(separator)]
    return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]

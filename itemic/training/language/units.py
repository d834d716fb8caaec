"""Conversations on disk as row groups: listed from the files' footers, read a slice at a time, never whole.

pyarrow reads them, through fsspec: it fetches the row groups and columns that are asked for and nothing else, where
polars takes all bytes of a file that isn't local.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from itemic import schema as c
from itemic.artifact import digest_of
from itemic.errors import DataError
from itemic.forest.rows import Int32, Int64
from itemic.progress import progress_bar
from itemic.tasks.conversation import check_columns

READERS = 8  # files whose footers are read at the same time: most of it is waiting
BATCH = 4096  # rows that are decoded at once


class Span(NamedTuple):
    """Rows ``begin … stop`` of a row group."""

    group: int
    begin: int
    stop: int


@dataclass(frozen=True)
class RowGroups:
    """The row groups of Parquet files, in the order of the files.

    Attributes:
        files: ``F`` paths.
        sizes: their bytes.
        file: int32 ``[G]``, the file of each row group.
        number: int32 ``[G]``, its number within the file.
        start: int64 ``[G]``, the number within the file of its first row.
        rows: int64 ``[G]``, how many rows it has, at least 1.
        sources: the names in the column ``source``, sorted.
    """

    files: tuple[str, ...]
    sizes: tuple[int, ...]
    file: Int32
    number: Int32
    start: Int64
    rows: Int64
    sources: tuple[str, ...]

    @classmethod
    def scan(cls, files: Sequence[str]) -> RowGroups:
        """Read the footers and the columns ``source`` of files.

        Raises:
            DataError: a file is broken or lacks columns.
        """
        sizes, counts = [], []
        sources: set[str] = set()
        with ThreadPoolExecutor(READERS) as pool, progress_bar("files", len(files)) as bar:
            for size, count, names in pool.map(_scan, files):
                sizes.append(size)
                counts.append(count)
                sources |= names
                bar.advance()
        rows = np.array([n for count in counts for n in count], np.int64)
        file = np.repeat(np.arange(len(files), dtype=np.int32), [len(count) for count in counts])
        number = np.array([k for count in counts for k in range(len(count))], np.int32)
        begin = [np.cumsum([0, *count[:-1]])[: len(count)] for count in counts]
        start = np.concatenate([np.zeros(0, np.int64), *begin]).astype(np.int64)
        full = np.flatnonzero(rows)
        return cls(
            tuple(files),
            tuple(sizes),
            file[full],
            number[full],
            start[full],
            rows[full],
            tuple(sorted(sources)),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def total(self) -> int:
        """All rows."""
        return int(self.rows.sum())

    @cached_property
    def digest(self) -> str:
        """Of the files' names (below what they share), their bytes, row groups and sources. A file whose content
        changes while all these stay is not noticed."""
        paths = [file.split("/") for file in self.files]
        folders = zip(*(path[:-1] for path in paths), strict=False)
        depth = sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, folders))
        names = ["/".join(path[depth:]) for path in paths]
        return digest_of([names, self.sizes, self.file.tolist(), self.rows.tolist(), self.sources])

    def read(self, spans: Sequence[Span]) -> pl.DataFrame:
        """The conversations of spans, in their order, with exactly the five columns.

        Args:
            spans: in rising order, and apart.

        Raises:
            DataError: a file is gone, is broken, or has changed since it was listed.
        """
        frames = [pl.DataFrame(schema=dict.fromkeys(c.CONVERSATION_COLUMNS, pl.String))]
        for file, mine in itertools.groupby(spans, key=lambda span: int(self.file[span.group])):
            with _opened(self.files[file]) as (parquet, size):
                if size != self.sizes[file]:
                    raise _changed(self.files[file])
                for group, parts in itertools.groupby(mine, key=itemgetter(0)):
                    number = int(self.number[group])
                    found = parquet.metadata
                    if found.num_row_groups <= number or found.row_group(number).num_rows != self.rows[group]:
                        raise _changed(self.files[file])
                    table = _slices(parquet, number, [(part.begin, part.stop) for part in parts])
                    frame = pl.from_arrow(table)
                    assert isinstance(frame, pl.DataFrame)
                    frames.append(check_columns(frame, self.files[file]))
        return pl.concat(frames)

    def place(self, spans: Sequence[Span], row: int) -> str:
        """Where a row that :meth:`read` gave stands: file and row number, from 0."""
        for group, begin, stop in spans:
            if row < stop - begin:
                return f"{self.files[self.file[group]]}, row {self.start[group] + begin + row}"
            row -= stop - begin
        raise IndexError(row)

    def describe(self, spans: Sequence[Span]) -> str:
        """Files and rows in words, for messages."""
        first, last = self.place(spans, 0), self.place(spans[-1:], spans[-1].stop - spans[-1].begin - 1)
        return f"{first} … {last}" if first != last else first


def _scan(file: str) -> tuple[int, list[int], set[str]]:
    """A file's bytes, the rows of its row groups, and its sources."""
    with _opened(file) as (parquet, size):
        schema = pl.DataFrame(pl.from_arrow(parquet.schema_arrow.empty_table()))
        check_columns(schema, file)
        names: set[str] = set()
        for batch in parquet.iter_batches(columns=[c.SOURCE], use_threads=False):
            column = pl.Series(pl.from_arrow(batch.column(0)))
            names.update(column.cast(pl.String).fill_null("unnamed").unique().to_list())
        found = parquet.metadata
        return size, [found.row_group(k).num_rows for k in range(found.num_row_groups)], names


@contextmanager
def _opened(file: str) -> Iterator[tuple[Any, int]]:
    """A Parquet file and its bytes.

    Raises:
        DataError: it is gone or broken, which may turn out while it is read.
    """
    try:
        with fsspec.open(file, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            yield pq.ParquetFile(stream), int(size)
    except FileNotFoundError as error:
        raise DataError(f"{file} is gone", "Put it back, or start a new run without it.") from error
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise DataError(f"{file} can't be read: {error}", "Build or download the file again.") from error


def _slices(parquet: Any, number: int, ranges: Sequence[tuple[int, int]]) -> pa.Table:
    """Rows of a row group; what comes after the last of them is not decoded."""
    there = set(parquet.schema_arrow.names)
    columns = [name for name in c.CONVERSATION_COLUMNS if name in there]
    parts, at = [], 0
    batches = parquet.iter_batches(BATCH, row_groups=[number], columns=columns, use_threads=False)
    schema = pa.schema([parquet.schema_arrow.field(name) for name in columns])
    for batch in batches:
        for begin, stop in ranges:
            low, high = max(begin - at, 0), min(stop - at, len(batch))
            if low < high:
                parts.append(batch.slice(low, high - low))
        at += len(batch)
        if at >= ranges[-1][1]:
            break
    return pa.Table.from_batches(parts, parts[0].schema if parts else schema)


def _changed(file: str) -> DataError:
    return DataError(
        f"{file} has changed since the run began",
        "Put the old file back, or start a new run on the new data.",
    )

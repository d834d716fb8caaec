"""Tables in files, read in batches: text with separators, Parquet, Arrow and JSON Lines."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import AGAIN, Lines, Source
from itemic.errors import DataError

ENDINGS = {
    **dict.fromkeys(("csv", "tsv", "tab", "psv", "ssv", "txt", "dat"), "text"),
    **dict.fromkeys(("parquet", "pq"), "parquet"),
    **dict.fromkeys(("arrow", "feather", "ipc"), "arrow"),
    **dict.fromkeys(("jsonl", "ndjson", "json"), "lines"),
}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
BATCH_ROWS = 1 << 18
LOOK_AT = 20  # lines of a JSON file whose keys are its columns, until it is read


@dataclass(frozen=True)
class Batch:
    """Some rows of a table.

    Attributes:
        frame: the columns of the table's header that its file has here; all of type String in text files.
        lines: uint32 ``[N]``, where each row stands in its file, counted from 1.
    """

    frame: pl.DataFrame
    lines: npt.NDArray[np.uint32]


class Table(Protocol):
    """A table in a file: its columns, and its rows batch by batch.

    ``batches`` reports rows that are none to ``rows``; it raises DataError where the file is damaged.
    """

    @property
    def where(self) -> str: ...

    @property
    def header(self) -> tuple[str, ...]: ...

    def batches(self, rows: BadRows) -> Iterator[Batch]: ...


def table_kind(file: str) -> str | None:
    """``"text"``, ``"parquet"``, ``"arrow"`` or ``"lines"`` by a file's ending; None for other files."""
    name = file.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return ENDINGS.get(name.rpartition(".")[2])


@contextmanager
def damage(where: str) -> Iterator[None]:
    """What libraries say of a damaged file, as an error of ours."""
    try:
        yield
    except (
        pa.ArrowException,
        pl.exceptions.PolarsError,
        OSError,
        EOFError,
        zlib.error,
        UnicodeError,
    ) as error:
        if "straddling" in str(error):
            raise DataError(
                f"{where} has a quote that is never closed", "Mend it, or set quoted: false."
            ) from error
        raise DataError(f"{where} is damaged or cut short: {error}", AGAIN) from error


def _whole(stream: IO[bytes], file: str) -> IO[bytes]:
    """A stream to jump about in."""
    return io.BytesIO(stream.read()) if file.lower().endswith(COMPRESSED) else stream


class ParquetTable:
    """A Parquet file."""

    def __init__(self, source: Source, file: str) -> None:
        self.where = source.where(file)
        self._source, self._file = source, file

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow.parquet

        with damage(self.where), self._source.open(self._file) as stream:
            yield pyarrow.parquet.ParquetFile(_whole(stream, self._file))

    @cached_property
    def header(self) -> tuple[str, ...]:
        with self._open() as table:
            return tuple(table.schema_arrow.names)

    def batches(self, rows: BadRows) -> Iterator[Batch]:
        with self._open() as table:
            yield from _numbered(table.iter_batches(batch_size=BATCH_ROWS))


class ArrowTable:
    """An Arrow file (also called Feather) or stream."""

    def __init__(self, source: Source, file: str) -> None:
        self.where = source.where(file)
        self._source, self._file = source, file

    @contextmanager
    def _open(self) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        import pyarrow.ipc

        with damage(self.where), self._source.open(self._file) as stream:
            held = _whole(stream, self._file)
            try:
                reader = pyarrow.ipc.open_file(held)
            except pa.ArrowInvalid:
                held.seek(0)
                flow = pyarrow.ipc.open_stream(held)
                yield flow.schema, iter(flow)
            else:
                yield reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))

    @cached_property
    def header(self) -> tuple[str, ...]:
        with self._open() as (schema, _):
            return tuple(schema.names)

    def batches(self, rows: BadRows) -> Iterator[Batch]:
        with self._open() as (_, parts):
            yield from _numbered(parts)


def _numbered(parts: Iterator[pa.RecordBatch]) -> Iterator[Batch]:
    first = 1
    for part in parts:
        frame = pl.DataFrame(part)
        yield Batch(frame, np.arange(first, first + len(frame), dtype=np.uint32))
        first += len(frame)


class LinesTable:
    """A file with a JSON object in each line."""

    def __init__(self, source: Source, file: str) -> None:
        self.where = source.where(file)
        self._source, self._file = source, file

    @cached_property
    def header(self) -> tuple[str, ...]:
        keys: dict[str, None] = {}
        for line in self._source.head(self._file, LOOK_AT):
            try:
                keys |= dict.fromkeys(_object(line))
            except ValueError:
                continue
        return tuple(keys)

    def batches(self, rows: BadRows) -> Iterator[Batch]:
        for lines in self._source.batches(self._file):
            if not lines.data.strip():
                continue
            try:
                frame = pl.read_ndjson(io.BytesIO(lines.data), infer_schema_length=None)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
                frame = pl.DataFrame()
            if len(frame) == lines.count:
                yield Batch(frame, np.arange(lines.first, lines.first + len(frame), dtype=np.uint32))
            else:
                yield self._slowly(lines, rows)

    def _slowly(self, lines: Lines, rows: BadRows) -> Batch:
        """One by one, to find out which lines are odd."""
        found, numbers = [], []
        for number, raw in lines:
            if not raw.strip():
                continue
            try:
                found.append(_object(raw.decode()))
                numbers.append(number)
            except ValueError as error:
                rows.report("broken line", f"{self.where}, line {number}", str(error))
        frame = pl.DataFrame(found, infer_schema_length=None, strict=False)
        return Batch(frame, np.array(numbers, np.uint32))


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"the line is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("the line holds no JSON object")
    return value

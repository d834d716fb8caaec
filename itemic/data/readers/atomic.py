"""The form of RecBole's atomic files: a header of ``name:type`` fields, and what parts them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import Source

SEPARATORS = ("\t", ",", ";", "|", " ")
TYPES = ("token", "token_seq", "float", "float_seq")


@dataclass(frozen=True)
class Header:
    """The first line of a file.

    Attributes:
        separator: what parts the fields.
        types: column → ``token``, ``token_seq``, ``float``, ``float_seq``, or empty where the header gives none.
    """

    separator: str
    types: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.types)

    @property
    def quoted(self) -> bool:
        """Fields that are parted by commas and the like may stand in quotes; tabs need none."""
        return self.separator != "\t"

    def split(self, line: str) -> list[str]:
        """The fields of a line."""
        return (
            next(csv.reader([line], delimiter=self.separator)) if self.quoted else line.split(self.separator)
        )


def read_header(source: Source, file: str, separator: str | None) -> Header:
    """The header of a file; without a ``separator`` the one under which all fields are ``name:type``."""
    line = next(iter(source.head(file)), "").removeprefix("\ufeff")
    return _header(line, separator if separator is not None else find_separator(line))


def find_separator(line: str) -> str:
    """Of the usual ones the one that gives the most columns, all of them typed if that can be; else a tab."""
    headers = [_header(line, separator) for separator in SEPARATORS]
    typed = [header for header in headers if all(kind in TYPES for kind in header.types.values())]
    return max(typed or headers, key=lambda header: len(header.types)).separator


def _header(line: str, separator: str) -> Header:
    pairs = (field.strip().strip('"').rpartition(":") for field in line.split(separator))
    return Header(
        separator, {(name or kind).strip(): kind.strip() if name else "" for name, _, kind in pairs}
    )


def atomic_rows(
    source: Source, file: str, header: Header, rows: BadRows
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a small file, each with the number of its line; those that don't fit the header are bad rows."""
    columns = header.columns
    for lines in source.batches(file):
        for number, raw in lines:
            if number == 1 or not raw.strip():
                continue
            where = f"{source.where(file)}, line {number}"
            try:
                values = header.split(raw.decode())
            except (UnicodeDecodeError, csv.Error) as error:
                rows.report("broken line", where, str(error))
                continue
            if len(values) != len(columns):
                rows.report("broken line", where, f"{len(values)} fields where the header has {len(columns)}")
                continue
            yield number, dict(zip(columns, values, strict=True))

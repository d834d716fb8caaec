"""The few ways in which the writers put things into files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from itemic.errors import DataError


def dump(file: Path, value: Any) -> None:
    """A JSON file."""
    with file.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, ensure_ascii=False, indent=2 if _nested(value) else None)


def _nested(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(next(iter(value.values()), None), dict)


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file, quoted where it must be, as pandas writes it; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)


def write_lines(file: Path, separator: str, rows: Iterable[Sequence[str]]) -> None:
    """Rows of plain fields, which know no quotes."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        stream.writelines(separator.join(row) + "\n" for row in rows)


def check_ids(ids: Iterable[str], what: str, format: str, *, spaces: bool) -> None:
    """Raises:
    DataError: an id has white space in it that would part it (``spaces``: a blank alone does).
    """
    for value in ids:
        if value != value.strip() or (len(value.split()) != 1 if not spaces else set(value) & set("\t\n\r")):
            raise DataError(
                f"{what} {value!r} can't stand in files of {format}: white space would part it",
                "Rename it in the source.",
            )

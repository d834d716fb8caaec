"""A look at raw files: what they are, before anybody says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers import READERS, read
from itemic.data.readers.missing import in_words
from itemic.data.readers.source import Source
from itemic.data.statistics import describe
from itemic.screen import Table

SHOWN_FILES = 20
SHOWN_ROWS = 3
UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Found:
    """What raw files hold.

    Attributes:
        path: where they are.
        formats: the formats that fit, the likeliest first; ``table`` comes last.
        format: the one that they were read as.
        options: of its reader.
        files: name and bytes of each file.
        dataset: all of it, bad rows left out.
        counts: what :func:`itemic.data.describe` says of it.
    """

    path: str
    formats: tuple[str, ...]
    format: str
    options: dict[str, Any]
    files: tuple[tuple[str, int], ...]
    dataset: Dataset
    counts: dict[str, Any]

    @property
    def dropped(self) -> int:
        """How many rows are bad."""
        return sum(self.dataset.notes["read"]["dropped"].values())

    def tables(self) -> list[Table]:
        """What was found, for the screen: files, counts, first rows of interactions and of items."""
        return [
            _files_table(self),
            _counts_table(self),
            _rows_table("interactions", self.dataset.interactions),
            _rows_table("items", self.dataset.items),
        ]


def fitting_formats(path: str | Path) -> tuple[str, ...]:
    """The formats that files may be read as, the likeliest first.

    Raises:
        DataError: there is nothing there.
    """
    source = Source(path)
    fits = [name for name, reader in READERS.items() if reader.finds(source)]
    return tuple(sorted(fits, key=lambda name: READERS[name].general))


def look(path: str | Path, format: str | None = None, options: dict[str, Any] | None = None) -> Found:
    """See what raw files hold, by reading them all.

    Args:
        path: a folder, a file or a pattern of files; any URL that fsspec knows.
        format: read it as this; by default as the likeliest that fits.
        options: of the format.

    Raises:
        DataError: no format fits, or the files can't be read so.
        ConfigError: unknown format or option.
    """
    formats = fitting_formats(path)
    if format is None and not formats:
        format = "table"  # whose error says what the tables have and which options help
    chosen = format or formats[0]
    dataset = read(chosen, path, on_bad_row="drop", **(options or {}))
    source = Source(path)
    sizes = tuple((file, source.size(file)) for file in source.files)
    return Found(str(path), formats, chosen, dict(options or {}), sizes, dataset, describe(dataset))


def _files_table(found: Found) -> Table:
    table = Table("file", "size")
    for name, size in found.files[:SHOWN_FILES]:
        table.add_row(name, _readable(size))
    if len(found.files) > SHOWN_FILES:
        table.add_row(f"{len(found.files) - SHOWN_FILES} more", "")
    return table


def _counts_table(found: Found) -> Table:
    counts, notes = found.counts, found.dataset.notes["read"]
    table = Table(show_header=False)
    for name in ("users", "items", "interactions"):
        table.add_row(name, f"{counts[name]:,}")
    lengths = counts["sequence_length"]
    table.add_row(
        "of a user", f"{lengths['mean']:.1f}, median {lengths['median']:g}, at most {lengths['max']:,.0f}"
    )
    table.add_row("repeats", f"{counts['repeats']['share']:.1%}")
    period = counts["time"]
    table.add_row(
        "time", f"{period['first'][:16]} to {period['last'][:16]}" if period else "only the order is known"
    )
    shares = [f"{name} {share:.0%}" for name, share in counts["text"].items() if share]
    table.add_row("texts of items", ", ".join(shares) or "none: items are known by id alone")
    if lacking := in_words(notes["missing_text"]):
        table.add_row("missing texts", lacking)
    for kind, number in notes["dropped"].items():
        table.add_row(kind, f"{number:,} rows left out")
    return table


def _rows_table(what: str, frame: pl.DataFrame) -> Table:
    kept = [column for column in frame.columns if _says_something(frame[column])]
    table = Table(*kept, title=f"first {what}", title_justify="left")
    shown = frame.select(kept).head(SHOWN_ROWS)
    if c.TIMESTAMP in kept:
        shown = shown.with_columns(pl.from_epoch(c.TIMESTAMP, "ms"))
    for row in shown.rows():
        table.add_row(*(_cell(value) for value in row))
    return table


def _says_something(series: pl.Series) -> bool:
    if isinstance(series.dtype, pl.List):
        return bool((series.list.len() > 0).any())
    return bool((series != "").any()) if series.dtype == pl.String else series.null_count() < len(series)


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _readable(size: float) -> str:
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"

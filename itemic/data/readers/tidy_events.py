"""Rows of anybody's table become interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.readers import values
from itemic.data.readers.columns import ITEM, USER, Columns
from itemic.data.readers.events import EVENT_SCHEMA, LINE
from itemic.data.readers.further import RESERVED
from itemic.data.readers.rows import BadRows
from itemic.data.readers.tables import Batch
from itemic.data.readers.times import milliseconds
from itemic.errors import ConfigError, DataError

KINDS = {"missing user": USER, "missing item": ITEM, "bad time": c.TIMESTAMP, "bad rating": c.RATING}


def further_name(name: str, *taken: str) -> str:
    """The name under which a column without a part travels: its own, unless that has a meaning or is ``taken``."""
    return f"source_{name}" if name in (*RESERVED, *taken) else name


@dataclass(frozen=True)
class Reading:
    """How values are written.

    Attributes:
        unit: of times, see :func:`itemic.data.readers.times.milliseconds`; None tells it from the values.
        decimal: the decimal mark of numbers in text; None tells it from the values.
        commas: whether a decimal comma may be guessed (the separator is none).
        category_separator: parts the names of a category path; None tells it from the values.
        tag_separator: parts tags; None tells it from the values.
        from_text: the table is a text file, which knows no types.
    """

    unit: str | None = None
    decimal: str | None = None
    commas: bool = False
    category_separator: str | None = None
    tag_separator: str | None = None
    from_text: bool = False

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise ConfigError(f"decimal is {self.decimal!r}", "Use . or , for the decimal mark.")

    def typed(self, series: pl.Series) -> pl.Series:
        """A further column; of a text file with the type that all its values have."""
        return values.typed(series, self.decimal, commas=self.commas) if self.from_text else series

    def mark(self, series: pl.Series) -> str:
        return values.decimal_mark(series, self.decimal, commas=self.commas)


@dataclass
class TidyEvents:
    """Makes interactions of the batches of one table or several alike; the unit of times is that of the first batch."""

    columns: Columns
    reading: Reading
    rows: BadRows
    unit: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.unit = self.reading.unit
        self._sources = {further_name(name, c.REVIEW): name for name in self.columns.others}

    @property
    def further(self) -> list[str]:
        """The columns that travel along, under the names that they have then."""
        return list(self._sources)

    def batch(self, batch: Batch, where: str) -> pl.DataFrame:
        """Interactions as :class:`itemic.data.readers.events.Events` takes them, with their lines and further columns.

        Raises:
            DataError: a row lacks its user, item or time, or its rating is no number (policy error); a column can't be
                what it is taken for.
        """
        named = self.columns.named
        parts = {role: column(batch.frame, name) for role, name in named.items()}
        try:
            found = {c.USER_ID: values.ids(parts[USER]), c.ITEM_ID: values.ids(parts[ITEM])}
            bad = {"missing user": found[c.USER_ID].is_null(), "missing item": found[c.ITEM_ID].is_null()}
            if c.TIMESTAMP in parts:
                found[c.TIMESTAMP] = self._times(parts[c.TIMESTAMP])
                bad["bad time"] = found[c.TIMESTAMP].is_null()
            if c.RATING in parts:
                found[c.RATING] = values.numbers(parts[c.RATING], self.reading.mark(parts[c.RATING]))
                bad["bad rating"] = found[c.RATING].is_null() & written(parts[c.RATING])
        except DataError as error:
            raise DataError(f"{where}: {error.message}", error.remedy) from error
        if c.REVIEW in parts:
            found[c.REVIEW] = parts[c.REVIEW].cast(pl.String).fill_null("")
        keep = self._keep(bad, parts, batch, where)
        frame = pl.DataFrame(found | {name: column(batch.frame, old) for name, old in self._sources.items()})
        empty = [name for name in (c.RATING, c.TIMESTAMP) if name not in found]
        frame = frame.with_columns(
            *(pl.lit(None, EVENT_SCHEMA[name]).alias(name) for name in empty), pl.Series(LINE, batch.lines)
        )
        return frame if keep is None else frame.filter(keep)

    def _times(self, series: pl.Series) -> pl.Series:
        times, told = milliseconds(series, self.unit if series.dtype != pl.Null else None)
        if self.unit is None and series.null_count() < len(series):
            self.unit = None if told == "datetime" else told
        return times

    def _keep(
        self, bad: Mapping[str, pl.Series], parts: Mapping[str, pl.Series], batch: Batch, where: str
    ) -> pl.Series | None:
        """Which rows are good, after the others were reported; None for all."""
        lost = pl.Series(np.zeros(len(batch.frame), bool))
        for kind, mask in bad.items():
            fresh = mask & ~lost
            if not fresh.any():
                continue
            first, series = int(fresh.arg_true()[0]), parts[KINDS[kind]]
            what = f"{series.name} is {_shown(series[first], KINDS[kind])}"
            self.rows.report(kind, f"{where}, line {batch.lines[first]}", what, int(fresh.sum()))
            lost |= fresh
        return ~lost if lost.any() else None


def _shown(value: Any, role: str) -> str:
    kinds = {USER: "id", ITEM: "id", c.TIMESTAMP: "time", c.RATING: "number"}
    return "empty" if value is None or value == "" else f"{value!r}, which is no {kinds[role]}"


def written(series: pl.Series) -> pl.Series:
    """Where a value stands that claims to be something."""
    text = series.cast(pl.String).str.strip_chars().str.to_lowercase()
    return ~text.fill_null("").is_in(["", "nan", "null", "none", "na", "\\n"])


def column(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column, or nulls where a part of a table lacks it (objects of JSON leave keys out)."""
    return frame[name] if name in frame.columns else pl.Series(name, [None] * len(frame), pl.Null)

"""OpenOneRec's Parquet of conversations as ``itemic data export`` writes it, see
:mod:`itemic.data.writers.openonerec`.

``train.parquet`` has a row a user, ``valid.parquet`` and ``test.parquet`` a row a request. Who had which items is read
from the rows' metadata (:mod:`itemic.data.readers.openonerec_rows`), not from their texts; ``items.parquet`` has the
catalogue as it is, ``dataset.split.json`` the dataset's name and its split. Conversations without these, such as those
that OpenOneRec publishes, name neither users nor items: they are no dataset, but what a stage trains on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.events import FILE, LINE, Events
from itemic.data.readers.openonerec_rows import Row, parse
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import ITEM_SCHEMA, BadRows
from itemic.data.readers.source import Source
from itemic.data.readers.tables import Batch, ParquetTable
from itemic.data.readers.tidy_items import TidyItems, unique_items
from itemic.data.settings import SplitRule
from itemic.errors import ConfigError, DataError

ITEMS, ABOUT = "items.parquet", "dataset.split.json"
NAME, SPLIT = "name", "split"  # the keys of the latter
NEEDED = (ABOUT, ITEMS, f"{c.TRAIN}.parquet")
ORDER, COUNT = "_order", "_count"
AGAIN = "Write the files again with `itemic data export --format openonerec`."
OWNERS: dict[str, Any] = {c.USER_ID: pl.String, ORDER: pl.Int64, LINE: pl.UInt32, COUNT: pl.Int64}
SCHEMA: dict[str, Any] = {
    c.ITEM_ID: pl.String,
    c.SPLIT: pl.String,
    c.TIMESTAMP: pl.Int64,
    c.RATING: pl.Float64,
}


def finds(source: Source) -> bool:
    return all(file in source.files for file in NEEDED)


def read(source: Source, rows: BadRows) -> Dataset:
    """Read the folder.

    Args:
        source: the folder.
        rows: what to do with bad ones.

    Raises:
        DataError: a file is missing, damaged or not as the export writes it, or a row is bad (policy error).
    """
    if missing := [file for file in NEEDED if file not in source.files]:
        raise DataError(
            f"{source.path} lacks {', '.join(missing)}; conversations alone name no users and items",
            f"{AGAIN} Conversations alone are for the `files` of a recipe's stage.",
        )
    name, rule = _about(source)
    catalogue = _catalogue(source, rows)
    users, events = _Users(rule, rows), Events()
    counts = {}
    for split in c.SPLITS:
        if f"{split}.parquet" in source.files:
            table = ParquetTable(source, f"{split}.parquet")
            counts[f"{split}.parquet"] = _add_rows(table, split, users, events)
    dataset = assemble(
        name=name,
        catalogue=catalogue,
        events=events,
        rows=rows,
        files={**counts, ITEMS: catalogue.taken},
        rule=rule,
        notes={"format": "openonerec"},
    )
    # users without a training row come last in the files
    ordered = dataset.interactions.sort(ORDER, maintain_order=True).drop(ORDER)
    if rule.method != "published":  # any other rule makes the labels, as it made those of the files
        ordered = ordered.with_columns(pl.lit(None, pl.String).alias(c.SPLIT))
    return replace(dataset, interactions=ordered)


def _about(source: Source) -> tuple[str, SplitRule]:
    """The dataset's name and its split."""
    content = source.json(ABOUT)
    try:
        name, rule = content[NAME], SplitRule.from_json(content[SPLIT])
        if rule.history is not None and type(rule.history) is not int:
            raise ValueError(f"history is {rule.history!r}, not a whole number")
    except KeyError as error:
        raise DataError(f"{source.where(ABOUT)} lacks the key {error}", AGAIN) from error
    except (TypeError, ValueError, ConfigError) as error:
        fault = error.message if isinstance(error, ConfigError) else str(error)
        raise DataError(f"{source.where(ABOUT)} has no split rule: {fault}", AGAIN) from error
    return str(name), rule


def _catalogue(source: Source, rows: BadRows) -> TidyItems:
    """The items as they stand: an export's texts are clean, and cleaning again could change them."""
    table = ParquetTable(source, ITEMS)
    _require(table, c.ITEM_COLUMNS)
    place = pl.lit(0, pl.UInt32).alias(FILE)
    parts = [batch.frame.with_columns(pl.Series(LINE, batch.lines), place) for batch in table.batches(rows)]
    items = (
        pl.concat(parts) if parts else pl.DataFrame(schema=ITEM_SCHEMA | {LINE: pl.UInt32, FILE: pl.UInt32})
    )
    for column, dtype in ITEM_SCHEMA.items():
        if items.schema[column] != dtype:
            raise DataError(f"{table.where}: {column} holds {items.schema[column]}, not {dtype}", AGAIN)
    key = pl.col(c.ITEM_ID)
    items = items.with_columns(
        pl.when(key != "").then(key).alias(c.ITEM_ID),
        pl.col(c.TITLE, c.DESCRIPTION, c.BRAND).fill_null(""),
        pl.col(c.CATEGORIES).fill_null([]),
    )
    return unique_items(items, [table.where], rows)


def _require(table: ParquetTable, columns: Sequence[str]) -> None:
    """Raises:
    DataError: the table lacks some of the columns.
    """
    if missing := [name for name in columns if name not in table.header]:
        raise DataError(f"{table.where} lacks the column {', '.join(missing)}", AGAIN)


@dataclass
class _Users:
    """Every user's items so far, which the next row of the user must go on from."""

    rule: SplitRule
    rows: BadRows
    items: dict[str, list[str]] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)

    def take(self, row: Row, split: str, where: str) -> bool:
        """Add what a row tells; a row that doesn't fit is reported, and not taken."""
        if fault := self._training_fault(row) if split == c.TRAIN else self._request_fault(row):
            kind, what = fault
            self.rows.report(kind, where, what)
            return False
        self.items.setdefault(row.user, []).extend(row.told)
        self.order.setdefault(row.user, row.order)
        return True

    def _training_fault(self, row: Row) -> tuple[str, str] | None:
        if row.user in self.items:
            return "duplicate user", f"user {row.user!r} has a row already"
        return None if row.told else ("empty sequence", f"user {row.user!r} has no items")

    def _request_fault(self, row: Row) -> tuple[str, str] | None:
        known = self.items.get(row.user)
        if known is None:
            if row.opens:
                return None
            return "broken sequence", f"user {row.user!r} has no earlier row that the history continues"
        shown = known if self.rule.history is None else known[-self.rule.history :]
        if row.opens or row.history != shown:
            return "broken sequence", f"the history does not continue user {row.user!r}'s earlier rows"
        return None


def _add_rows(table: ParquetTable, split: str, users: _Users, events: Events) -> int:
    """The events that a file's rows tell go into ``events``; how many rows it has."""
    _require(table, [c.METADATA])
    count = 0
    for batch in table.batches(users.rows):
        events.add(_frame(batch, table.where, split, users), table.where)
        count += len(batch.frame)
    return count


def _frame(batch: Batch, file: str, split: str, users: _Users) -> pl.DataFrame:
    texts = batch.frame[c.METADATA]
    if texts.dtype not in (pl.String, pl.Null):
        raise DataError(f"{file}: {c.METADATA} holds {texts.dtype}, not JSON texts", AGAIN)
    answered = users.rule.method != "leave-last-out" or split != c.TEST
    good: list[tuple[str, int, int, int]] = []
    told: dict[str, list[Any]] = {column: [] for column in SCHEMA}
    for line, text in zip(batch.lines.tolist(), texts, strict=True):
        where = f"{file}, line {line}"
        try:
            row = parse(text, split, answered=answered)
        except ValueError as error:
            users.rows.report("broken line", where, str(error))
            continue
        if users.take(row, split, where):
            good.append((row.user, users.order[row.user], line, len(row.told)))
            told[c.ITEM_ID] += row.told
            told[c.SPLIT] += row.splits
            told[c.TIMESTAMP] += row.times
            told[c.RATING] += row.ratings
    owners = pl.DataFrame(good, schema=OWNERS, orient="row")
    each = np.repeat(np.arange(len(owners)), owners[COUNT].to_numpy())
    return pl.concat([owners.drop(COUNT)[each], pl.DataFrame(told, schema=SCHEMA)], how="horizontal")


READER = Reader("openonerec", f"{', '.join(NEEDED)}, as itemic exports them", finds, read)

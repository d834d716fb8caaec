"""From tables, in files or in memory, to a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.columns import EVENT_ROLES, ITEM, ITEM_ROLES, USER, Columns, Names, choose_columns
from itemic.data.readers.events import Events
from itemic.data.readers.inline_items import InlineItems
from itemic.data.readers.rows import BadRows
from itemic.data.readers.table_files import Tables
from itemic.data.readers.tables import Batch, Table
from itemic.data.readers.text_table import TextTable
from itemic.data.readers.tidy_events import Reading, TidyEvents
from itemic.data.readers.tidy_items import TidyItems, tidy_items
from itemic.data.readers.users import tidy_users
from itemic.errors import DataError
from itemic.progress import log

UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
UNIT_WORDS |= {"iso": "ISO 8601", "yyyymmdd": "dates", "datetime": "a type of time"}
SEPARATOR_WORDS = {"\t": "a tab", " ": "a space"}


@dataclass(frozen=True)
class FrameTable:
    """A table in memory."""

    where: str
    frame: pl.DataFrame

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.frame.columns)

    def batches(self, rows: BadRows) -> Iterator[Batch]:
        yield Batch(self.frame, np.arange(1, len(self.frame) + 1, dtype=np.uint32))


def build(
    name: str,
    tables: Tables,
    names: Names,
    about: Names,
    reading: Reading,
    rows: BadRows,
    *,
    promise_order: bool,
    users_key: str | None = None,
) -> Dataset:
    """Make a dataset of tables.

    Args:
        name: the dataset's.
        tables: of interactions, and of items where there are some.
        names: role → column of the interactions, as options name them.
        about: likewise of the items.
        reading: how values are written.
        rows: what to do with bad ones.
        promise_order: an event earlier than one before it of the same user is a bad row, not one to be sorted.
        users_key: the users' column of ids, as an option names it.

    Raises:
        DataError: a table lacks what is needed, is damaged or has bad rows.
        ConfigError: an option names a column that isn't there.
    """
    events, counts = Events(), dict[str, int]()
    tidy, inline = _read_events(tables, names, about, reading, rows, events, counts)
    notes: dict[str, Any] = {"format": "table", "columns": {"interactions": dict(tidy.columns.named)}}
    notes["time_unit"] = tidy.unit
    notes["told"] = [_say_events(tables.interactions[0], tidy)]
    catalogue = None
    if tables.items:
        columns, catalogue = _read_items(tables.items, about, reading, rows, like=tidy.columns.named[ITEM])
        counts[catalogue.file] = catalogue.taken
        notes["columns"]["items"] = dict(columns.named)
        notes["told"].append(_say_items(tables.items[0], columns, catalogue))
    elif inline:
        first = tables.interactions[0]
        catalogue = inline.tidy(first.where, tidy.reading, rows)
        notes["columns"]["items"] = dict(inline.columns.named)
        notes["told"].append(
            f"items are told by the same rows: {_say_items(first, inline.columns, catalogue)}"
        )
    users = None
    if tables.users:
        people, where = tables.users, tables.users[0].where
        users, counts[where] = tidy_users(people, {USER: users_key}, tidy.columns.named[USER], reading, rows)
        notes["columns"]["users"] = users.columns
        notes["told"].append(f"{where}: {', '.join(users.columns[1:])} are known of users")
    for line in notes["told"]:
        log.info(line)
    dataset = assemble(
        name=name,
        catalogue=catalogue,
        events=events,
        rows=rows,
        files=counts,
        promise_order=promise_order,
        notes=notes,
        users=users,
    )
    table = dataset.interactions
    further = [tidy.reading.typed(table[name]) for name in tidy.further if name in table.columns]
    return replace(dataset, interactions=table.with_columns(further))


def _read_events(
    tables: Tables,
    names: Names,
    about: Names,
    reading: Reading,
    rows: BadRows,
    events: Events,
    counts: dict[str, int],
) -> tuple[TidyEvents, InlineItems]:
    """The interactions go into ``events``; what their rows say of items is kept where there is no table of items."""
    first = tables.interactions[0]
    columns = choose_columns(first.header, EVENT_ROLES, names, first.where)
    _require(columns, EVENT_ROLES[:2], first)
    inline = InlineItems(columns, () if tables.items else first.header, about, first.where)
    columns = replace(
        columns, others=tuple(name for name in columns.others if name not in inline.columns.named.values())
    )
    tidy = TidyEvents(columns, _of(first, reading), rows)
    for table in tables.interactions:
        _require_same(columns, table)
        counts[table.where] = 0
        for batch in table.batches(rows):
            events.add(tidy.batch(batch, table.where), table.where)
            if inline:
                inline.take(batch)
            counts[table.where] += len(batch.frame)
    return tidy, inline


def _read_items(
    tables: Sequence[Table], about: Names, reading: Reading, rows: BadRows, like: str
) -> tuple[Columns, TidyItems]:
    first = tables[0]
    columns = choose_columns(first.header, ITEM_ROLES, about, first.where, like=like)
    _require(columns, (ITEM,), first)
    for table in tables:
        _require_same(columns, table)
    parts = ((table.where, batch) for table in tables for batch in table.batches(rows))
    return columns, tidy_items(parts, columns, _of(first, reading), rows)


def _of(table: Table, reading: Reading) -> Reading:
    """How values of a table are written: texts know no types, and semicolons leave commas to numbers."""
    if isinstance(table, TextTable):
        return replace(reading, from_text=True, commas=table.separator == ";")
    return reading


def _require(columns: Columns, roles: Sequence[str], table: Table) -> None:
    missing = [role for role in roles if role not in columns.named]
    if missing:
        option = "items_key" if roles == (ITEM,) else missing[0]
        raise DataError(
            f"{table.where} has no column that looks like the {missing[0]}; it has {', '.join(table.header) or 'none'}",
            f"Name it with the option {option}.",
        )


def _require_same(columns: Columns, table: Table) -> None:
    lacking = [column for column in columns.named.values() if column not in table.header]
    if lacking:
        raise DataError(
            f"{table.where} lacks the column {lacking[0]!r} that the parts before it have",
            "Give parts of one table, or name the right files.",
        )


def _say_events(table: Table, tidy: TidyEvents) -> str:
    parts = [*_say_file(table), *(f"{role} = {column}" for role, column in tidy.columns.named.items())]
    if c.TIMESTAMP not in tidy.columns.named:
        parts.append("no times: the order of rows is the order of time")
    elif tidy.unit:
        parts.append(f"times are in {UNIT_WORDS.get(tidy.unit, tidy.unit)}")
    return f"{table.where}: {', '.join([*parts, *_say_others(tidy.further)])}"


def _say_items(table: Table, columns: Columns, items: TidyItems) -> str:
    parts = [
        *_say_file(table),
        *(f"{role} = {column}" for role, column in columns.named.items()),
        *items.told,
    ]
    return f"{table.where}: {', '.join([*parts, *_say_others(items.further)])}"


def _say_file(table: Table) -> list[str]:
    if not isinstance(table, TextTable):
        return []
    return [f"parted at {SEPARATOR_WORDS.get(table.separator, repr(table.separator))}"]


def _say_others(names: Sequence[str]) -> list[str]:
    return [f"{' and '.join(names)} travel{'s' * (len(names) == 1)} along"] if names else []

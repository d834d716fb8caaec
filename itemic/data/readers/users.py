"""What sources know of users: a table with one row a user, its columns the source's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.readers import values
from itemic.data.readers.columns import USER, Names, choose_columns, is_id
from itemic.data.readers.rows import BadRows
from itemic.data.readers.tables import Table
from itemic.data.readers.text_table import TextTable
from itemic.data.readers.tidy_events import Reading, column
from itemic.errors import DataError


class UserRows:
    """Users that are read row by row; a row without an id, and a second one of the same user, is a bad row.

    Args:
        rows: what to do with bad ones.
        file: their file, for messages.
        columns: further columns and their types.
    """

    def __init__(self, rows: BadRows, file: str, columns: Mapping[str, Any]) -> None:
        self._rows, self.file, self._columns = rows, file, columns
        self._found: dict[str, dict[str, Any]] = {}
        self.taken = 0

    def add(self, where: str, user: str, known: Mapping[str, Any]) -> None:
        """One user; ``where`` is the place in the file."""
        self.taken += 1
        if not user.strip():
            self._rows.report("missing user id", f"{self.file}, {where}", "the user's id is empty")
        elif user.strip() in self._found:
            self._rows.report(
                "duplicate user", f"{self.file}, {where}", f"user {user.strip()!r} is there twice"
            )
        else:
            self._found[user.strip()] = {c.USER_ID: user.strip(), **known}

    def frame(self) -> pl.DataFrame:
        """All of them."""
        schema = {c.USER_ID: pl.String, **self._columns}
        return pl.DataFrame(list(self._found.values()), schema=schema, orient="row")


def tidy_users(
    tables: Sequence[Table], given: Names, like: str, reading: Reading, rows: BadRows
) -> tuple[pl.DataFrame, int]:
    """The users of a table, or of its parts, and how many rows there were.

    Args:
        tables: of users.
        given: ``user`` → its column of ids, as an option names it.
        like: what the table of interactions calls the user.
        reading: how values are written.
        rows: what to do with bad ones.

    Raises:
        DataError: no column looks like the user's id, or a row has none (policy error).
    """
    first = tables[0]
    key = _key(first, given, like)
    if isinstance(first, TextTable):
        reading = Reading(decimal=reading.decimal, from_text=True, commas=first.separator == ";")
    parts, taken = [], 0
    known: set[str] = set()
    for table in tables:
        for batch in table.batches(rows):
            ids = values.ids(column(batch.frame, key))
            lost = ids.is_null()
            _report(rows, table, batch.lines, lost, "missing user id", f"{key} is empty")
            again = ~lost & (ids.is_in(list(known)) | ~ids.is_first_distinct())
            _report(rows, table, batch.lines, again, "duplicate user", "a user is there twice")
            known |= set(ids.drop_nulls())
            others = [column(batch.frame, name) for name in first.header if name != key]
            named = [each.alias("source_user_id") if each.name == c.USER_ID else each for each in others]
            parts.append(pl.DataFrame([ids.alias(c.USER_ID), *named]).filter(~lost & ~again))
            taken += len(batch.frame)
    whole = pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame(schema={c.USER_ID: pl.String})
    return whole.with_columns(reading.typed(whole[name]) for name in whole.columns[1:]), taken


def _key(table: Table, given: Names, like: str) -> str:
    """The column of ids: as named, as in the interactions, by a usual name, or the one that is called "id"."""
    if given.get(USER) is None:
        if like in table.header:
            return like
        alone = [name for name in table.header if is_id(name)]
        if len(alone) == 1 and not choose_columns(table.header, (USER,), {}, table.where).named:
            return alone[0]
    found = choose_columns(table.header, (USER,), given, table.where).named.get(USER)
    if found is None:
        raise DataError(
            f"{table.where} has no column that looks like the user; it has {', '.join(table.header) or 'none'}",
            "Name it with the option users_key.",
        )
    return found


def _report(rows: BadRows, table: Table, lines: Any, bad: pl.Series, kind: str, what: str) -> None:
    if bad.any():
        rows.report(
            kind, f"{table.where}, line {lines[int(np.flatnonzero(bad.to_numpy())[0])]}", what, int(bad.sum())
        )

"""From a catalogue and events to a dataset: items without text, order, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.candidates import candidates_left
from itemic.data.dataset import Dataset, users_left
from itemic.data.readers.events import FILE, LINE, Events
from itemic.data.readers.further import has_value
from itemic.data.readers.missing import Items, place, settle
from itemic.data.readers.rows import BadRows
from itemic.data.readers.times import EARLIEST, LATEST
from itemic.data.settings import SplitRule
from itemic.errors import DataError


def assemble(
    *,
    name: str,
    catalogue: Items | None,
    events: Events,
    rows: BadRows,
    files: Mapping[str, int],
    promise_order: bool = False,
    rule: SplitRule | None = None,
    notes: Mapping[str, Any] | None = None,
    users: pl.DataFrame | None = None,
    candidates: pl.DataFrame | None = None,
) -> Dataset:
    """Put a dataset together.

    Users come in the order of their first event; a user's events by time, those of one time as the files
    have them.

    Args:
        name: the dataset's.
        catalogue: the items; None where the source has no file of them.
        events: the interactions.
        rows: what to do with bad ones.
        files: what was read: name of file → lines or entries.
        promise_order: an event earlier than one before it of the same user is a bad row, not a row to be
            sorted.
        rule: the split that the source suggests.
        notes: more to say in ``Dataset.notes["read"]``.
        users: ``user_id``, and what is known of users; those without interactions are left out.
        candidates: ``user_id`` and ``candidates``; what names no user or item that is left is left out.

    Raises:
        DataError: an item has no text (``missing_text: error``), or nothing is left.
    """
    settled = settle(catalogue, events.table(), events.files, rows.missing_text)
    table = settled.events
    if not len(table):
        raise DataError(
            f"no interactions are left of {', '.join(files)}", "Check the files, or the rows dropped."
        )
    table = _possible(table, events.files, rows)
    if promise_order:
        table = _ordered(table, events.files, rows)
    order, late = _order(table)
    chosen = table.drop(LINE, FILE)
    del table
    if (np.diff(order) != 1).any():
        chosen = chosen[order]
    interactions = chosen.with_columns(pl.col(c.USER_ID, c.ITEM_ID, c.SPLIT).cast(pl.String)).rechunk()
    record = {
        "files": dict(files),
        **rows.notes(),
        "missing_text": settled.notes,
        "out_of_order": late,
        **(notes or {}),
    }
    return Dataset(
        _told(settled.items, c.ITEM_COLUMNS),
        _told(interactions, c.INTERACTION_COLUMNS),
        name,
        rule or SplitRule(),
        {"read": record},
        _told_users(users, interactions),
        candidates_left(candidates, settled.items, interactions),
    )


def _told_users(users: pl.DataFrame | None, interactions: pl.DataFrame) -> pl.DataFrame | None:
    """The users that are there, with the columns in which any has a value; None where nothing is known of them."""
    left = users_left(users, interactions)
    if left is None or len((told := _told(left, (c.USER_ID,))).columns) == 1:
        return None
    return told


def _told(table: pl.DataFrame, known: Sequence[str]) -> pl.DataFrame:
    """The known columns, and of the further ones those in which any row has a value."""
    further = [name for name in table.columns if name not in known and has_value(table[name]).any()]
    return table.select(*known, *further)


def _possible(table: pl.DataFrame, files: list[str], rows: BadRows) -> pl.DataFrame:
    """The events whose time is between 1900 and 2200, or unknown; the others are reported."""
    time = table.get_column(c.TIMESTAMP)
    strange = ~time.is_between(EARLIEST, LATEST).fill_null(True)
    if not strange.any():
        return table
    first = table.row(int(strange.arg_true()[0]), named=True)
    what = f"the time {first[c.TIMESTAMP]} ms is not between 1900 and 2200"
    rows.report("impossible time", place(first, files), what, int(strange.sum()))
    return table.filter(~strange)


def _ordered(table: pl.DataFrame, files: list[str], rows: BadRows) -> pl.DataFrame:
    """The events that are not earlier than one before them of the same user; the others are reported."""
    time = pl.col(c.TIMESTAMP)
    late = table.select(time < time.cum_max().over(c.USER_ID)).to_series().fill_null(False)
    if not late.any():
        return table
    first = table.row(int(late.arg_true()[0]), named=True)
    what = f"user {first[c.USER_ID]!r} goes back in time, to {first[c.TIMESTAMP]} ms"
    rows.report("unordered time", place(first, files), what, int(late.sum()))
    return table.filter(~late)


def _order(table: pl.DataFrame) -> tuple[npt.NDArray[np.int64], int]:
    """Users by first event, then time, then file order; and how often the file went back in time."""
    user = _by_first_event(table.get_column(c.USER_ID).to_physical().to_numpy())
    times = table.get_column(c.TIMESTAMP)
    if times.null_count() == len(times):
        return np.argsort(user, kind="stable").astype(np.int64), 0
    order = _by_user_and_time(user, times)
    back = (np.diff(order) < 0) & (np.diff(user[order]) == 0)
    return order, int(back.sum())


def _by_first_event(code: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Each user's rank by first event, for codes that are small numbers."""
    first = np.full(int(code.max()) + 1, len(code))
    first[code[::-1]] = np.arange(len(code) - 1, -1, -1)  # of several values the last one written stays
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[code]


def _by_user_and_time(user: npt.NDArray[np.int64], times: pl.Series) -> npt.NDArray[np.int64]:
    """A stable order; one key of both is sorted twice as fast as two, where it fits into 63 bits."""
    if times.null_count() == 0:
        time = times.to_numpy()
        span = int(time.max()) - int(time.min()) + 1
        if span * (int(user.max()) + 1) < 1 << 63:
            return np.argsort(user * span + (time - time.min()), kind="stable").astype(np.int64)
    return np.lexsort((times.to_numpy(), user)).astype(np.int64)

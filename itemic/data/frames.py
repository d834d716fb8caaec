"""Datasets of tables in memory."""

from __future__ import annotations

from typing import Any

import polars as pl

from itemic.data.dataset import Dataset
from itemic.data.readers.columns import EVENT_ROLES, ITEM, ITEM_ROLES
from itemic.data.readers.missing import check_policy
from itemic.data.readers.rows import BadRows
from itemic.data.readers.table_build import FrameTable, build
from itemic.data.readers.table_files import Tables
from itemic.data.readers.tidy_events import Reading
from itemic.errors import ConfigError, DataError

READING = ("unit", "decimal", "category_separator", "tag_separator")


def dataset(
    interactions: Any,
    items: Any = None,
    users: Any = None,
    *,
    name: str = "dataset",
    on_bad_row: str = "error",
    missing_text: str = "keep",
    promise_order: bool = False,
    **options: Any,
) -> Dataset:
    """Make a dataset of tables in memory, with the checks and errors of the reader of tables in files.

    Args:
        interactions: a polars DataFrame or LazyFrame, a pandas DataFrame (its index is left out), an Arrow table, a
            mapping of columns, or a list of mappings; one row an event.
        items: likewise, one row an item; None where nothing but ids is known.
        users: likewise, one row a user, whose columns are known of them; None where nothing is.
        name: for tables.
        on_bad_row: ``"error"``: the first bad row is an error that names it. ``"drop"``: bad rows are left out and
            counted in ``Dataset.notes``.
        missing_text: of items without a title: ``"keep"``, ``"drop"`` or ``"error"``, see :func:`itemic.read`.
        promise_order: an event earlier than one before it of the same user is a bad row, not one to be sorted.
        options: the columns that can't be told from their names, and how values are written: ``user``, ``item``,
            ``timestamp``, ``rating``, ``review``, ``items_key``, ``users_key``, ``title``, ``description``, ``brand``,
            ``categories``, ``tags``, ``price``, ``unit``, ``decimal``, ``category_separator``, ``tag_separator``; see
            :func:`itemic.data.readers.table.read`.

    Raises:
        DataError: a table lacks what is needed or has bad rows.
        ConfigError: an option is unknown or names no column.
    """
    known = [*EVENT_ROLES, "items_key", "users_key", *ITEM_ROLES[1:], *READING]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"dataset() has no option {', '.join(unknown)}", f"It has {', '.join(known)}.")
    check_policy(missing_text)
    tables = Tables(
        (FrameTable("interactions", _frame(interactions, "interactions")),),
        () if items is None else (FrameTable("items", _frame(items, "items")),),
        () if users is None else (FrameTable("users", _frame(users, "users")),),
    )
    return build(
        name,
        tables,
        {role: options.get(role) for role in EVENT_ROLES},
        {ITEM: options.get("items_key"), **{role: options.get(role) for role in ITEM_ROLES[1:]}},
        Reading(**{key: options[key] for key in READING if key in options}),
        BadRows(on_bad_row, missing_text),
        promise_order=promise_order,
        users_key=options.get("users_key"),
    )


def _frame(table: Any, what: str) -> pl.DataFrame:
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, str | bytes) or table is None:
        raise ConfigError(
            f"{what} is {table!r}, not a table", "Give a DataFrame; files are read by itemic.read."
        )
    try:
        return pl.DataFrame(table, infer_schema_length=None, strict=False)
    except Exception as error:  # of polars, pyarrow or whatever library the table is from
        raise DataError(
            f"{what} can't be made a table: {error}",
            "Give a polars or pandas DataFrame, an Arrow table, or a mapping of columns of one length.",
        ) from error

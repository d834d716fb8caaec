"""Filters: which interactions and items of a dataset stay.

The rules are applied in one fixed order, and each writes what it left into ``Dataset.notes["filters"]``:

1. ``min_rating``, 2. the time window, 3. ties (the order of events of one time), 4. duplicates, 5. the
k-core, 6. ``max_history``, 7. items that nobody interacts with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.candidates import candidates_left
from itemic.data.dataset import Dataset, users_left
from itemic.data.settings import FilterRule
from itemic.errors import DataError

USER_CODE, ITEM_CODE = "_user", "_item"  # of the interactions while they are filtered
Codes = npt.NDArray[np.integer[Any]]


def apply_filters(dataset: Dataset, rule: FilterRule) -> Dataset:
    """The dataset under a rule; ``notes["filters"]`` has the rule and the counts before it and after each
    step.

    Raises:
        DataError: a rule needs ratings or times that are not there, or nothing is left.
    """
    table = _coded(dataset.interactions)
    steps = [_count("before", table)]
    for name, step in (
        ("min_rating", _by_rating),
        ("window", _by_time),
        ("ties", _by_tie),
        ("duplicates", _by_duplicate),
        ("k_core", _by_k_core),
        ("max_history", _by_history),
    ):
        kept = step(table, rule)
        if kept is not table:
            table = kept
            steps.append(_count(name, table))
        if not len(table):
            counts = "; ".join(f"{step['rule']}: {step['interactions']}" for step in steps)
            raise DataError(
                f"the filters leave no interactions of {dataset.name} ({counts})", "Weaken the filters."
            )
    table, items = table.drop(USER_CODE, ITEM_CODE), dataset.items
    if rule.drop_cold_items:
        items = items.join(table.select(c.ITEM_ID).unique(), on=c.ITEM_ID, how="semi", maintain_order="left")
    notes = {"rule": rule.to_json(), "steps": steps, "cold_items_dropped": len(dataset.items) - len(items)}
    earlier = dataset.notes.get("filters", [])
    return replace(
        dataset,
        items=items,
        interactions=table,
        notes={**dataset.notes, "filters": [*earlier, notes]},
        users=users_left(dataset.users, table),
        candidates=candidates_left(dataset.candidates, items, table),
    )


def _coded(table: pl.DataFrame) -> pl.DataFrame:
    """The interactions with small numbers of their users and items, which are compared and counted faster than ids."""
    items = pl.col(c.ITEM_ID).cast(pl.Categorical(pl.Categories.random())).to_physical()
    return table.with_columns(pl.col(c.USER_ID).rle_id().alias(USER_CODE), items.alias(ITEM_CODE))


def _count(rule: str, table: pl.DataFrame) -> dict[str, Any]:
    return {
        "rule": rule,
        "users": table[USER_CODE].n_unique(),
        "items": table[ITEM_CODE].n_unique(),
        "interactions": len(table),
    }


def _by_rating(table: pl.DataFrame, rule: FilterRule) -> pl.DataFrame:
    if rule.min_rating is None:
        return table
    if table[c.RATING].null_count() == len(table):
        raise DataError("min_rating is set, but the source has no ratings", "Leave min_rating out.")
    return table.filter(pl.col(c.RATING) >= rule.min_rating)


def _by_time(table: pl.DataFrame, rule: FilterRule) -> pl.DataFrame:
    start, end = rule.window
    if start is None and end is None:
        return table
    if table[c.TIMESTAMP].null_count():
        raise DataError("a time window is set, but the source has no times", "Leave start and end out.")
    time = pl.col(c.TIMESTAMP)
    return table.filter(
        (time >= start) if start is not None else True, (time < end) if end is not None else True
    )


def _by_tie(table: pl.DataFrame, rule: FilterRule) -> pl.DataFrame:
    if rule.ties == "file-order" or table[c.TIMESTAMP].null_count():
        return table
    return table.sort(USER_CODE, c.TIMESTAMP, c.ITEM_ID, maintain_order=True)


def _by_duplicate(table: pl.DataFrame, rule: FilterRule) -> pl.DataFrame:
    if rule.duplicates == "keep-all":
        return table
    if rule.duplicates == "drop-consecutive":
        return table.filter(pl.struct(USER_CODE, ITEM_CODE).rle_id().diff().fill_null(1) != 0)
    keys = [USER_CODE, ITEM_CODE]
    return table.unique(
        keys, keep="first" if rule.duplicates == "keep-first" else "last", maintain_order=True
    )


def _by_k_core(table: pl.DataFrame, rule: FilterRule) -> pl.DataFrame:
    if rule.user_k_core <= 1 and rule.item_k_core <= 1:
        return table
    users, items = table[USER_CODE].to_numpy(), table[ITEM_CODE].to_numpy()
    return table.filter(k_core(users, items, rule.user_k_core, rule.item_k_core))


def k_core(users: Codes, items: Codes, user_k: int, item_k: int) -> npt.NDArray[np.bool_]:
    """Which pairs stay when users with fewer than ``user_k`` and items with fewer than ``item_k`` go, again
    and again.

    The fixed point is the largest part of the data in which both hold; it doesn't depend on the order of
    removal.

    Args:
        users: small non-negative integers ``[N]``.
        items: likewise.
        user_k: the least number of pairs of a user.
        item_k: the least number of pairs of an item.

    Returns:
        bool ``[N]``.
    """
    alive = np.arange(len(users))
    while True:
        user, item = users[alive], items[alive]
        enough = (np.bincount(user) >= user_k)[user] & (np.bincount(item) >= item_k)[item]
        if enough.all():
            break
        alive = alive[enough]
    kept = np.zeros(len(users), bool)
    kept[alive] = True
    return kept


def _by_history(table: pl.DataFrame, rule: FilterRule) -> pl.DataFrame:
    if rule.max_history is None:
        return table
    lengths = table[c.USER_ID].rle().struct.field("len").to_numpy().astype(np.int64)
    ends = np.repeat(np.cumsum(lengths), lengths)
    return table.filter(ends - np.arange(len(table)) <= rule.max_history)

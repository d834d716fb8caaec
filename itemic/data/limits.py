"""A part of a dataset, for a quick trial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.candidates import candidates_left
from itemic.data.dataset import Dataset, users_left
from itemic.errors import ConfigError, DataError
from itemic.progress import log

Int64 = npt.NDArray[np.int64]


def apply_limits(
    dataset: Dataset,
    *,
    limit_users: int | None = None,
    limit_items: int | None = None,
    limit_rows: int | None = None,
    seed: int = 0,
) -> Dataset:
    """At most so many users, items and interactions, in this order, each of what the one before left.

    The catalogue is cut to the items that are left in interactions. ``notes["limits"]`` has the limits and the counts
    before and after. Without any limit the dataset is returned as it is.

    Args:
        dataset: as read, before filters.
        limit_users: a random sample of users, each with all interactions; a smaller sample is part of a larger one.
        limit_items: the items with the most interactions, of equal ones those that come first in the catalogue.
        limit_rows: whole users in random order as long as their interactions fit, so that no history is cut.
        seed: of the random choices.

    Raises:
        ConfigError: a limit is less than 1.
        DataError: no user's interactions fit into ``limit_rows``.
    """
    limits = {"limit_users": limit_users, "limit_items": limit_items, "limit_rows": limit_rows}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    for name, limit in given.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"{name} is {limit!r}", "Give a positive whole number, or leave it out.")
    if not given:
        return dataset
    table = dataset.interactions
    if limit_users is not None:
        table = _of_users(table, _shuffled(table, seed)[:limit_users])
    if limit_items is not None:
        table = _popular(table, dataset.items, limit_items)
    if limit_rows is not None:
        table = _fitting(table, limit_rows, seed)
    items = dataset.items.join(
        table.select(c.ITEM_ID).unique(), on=c.ITEM_ID, how="semi", maintain_order="left"
    )
    counts = {"before": _counts(dataset.items, dataset.interactions), "after": _counts(items, table)}
    log.info("limits: %s", in_words(counts))
    notes = {**dataset.notes, "limits": given | {"seed": seed} | counts}
    users = users_left(dataset.users, table)
    candidates = candidates_left(dataset.candidates, items, table)
    return replace(dataset, items=items, interactions=table, notes=notes, users=users, candidates=candidates)


def in_words(counts: dict[str, Any]) -> str:
    """What is left of what, as a person reads it."""
    return ", ".join(
        f"{counts['after'][name]:,} of {counts['before'][name]:,} {name}" for name in counts["before"]
    )


def _counts(items: pl.DataFrame, table: pl.DataFrame) -> dict[str, int]:
    return {"users": table[c.USER_ID].n_unique(), "items": len(items), "interactions": len(table)}


def _shuffled(table: pl.DataFrame, seed: int) -> Int64:
    """The numbers of the users, counted by first appearance, in random order."""
    users = int(table[c.USER_ID].rle_id().max() or 0) + 1  # type: ignore[arg-type]
    return np.random.default_rng(seed).permutation(users).astype(np.int64)


def _of_users(table: pl.DataFrame, users: Int64) -> pl.DataFrame:
    number = table[c.USER_ID].rle_id().to_numpy()
    return table.filter(np.isin(number, users))


def _popular(table: pl.DataFrame, items: pl.DataFrame, limit: int) -> pl.DataFrame:
    counts = (
        items.select(c.ITEM_ID).with_row_index("_row").join(table.group_by(c.ITEM_ID).len(), on=c.ITEM_ID)
    )
    kept = counts.sort("len", "_row", descending=[True, False]).head(limit)
    return table.filter(pl.col(c.ITEM_ID).is_in(kept[c.ITEM_ID].implode()))


def _fitting(table: pl.DataFrame, limit: int, seed: int) -> pl.DataFrame:
    order = _shuffled(table, seed)
    lengths = table[c.USER_ID].rle().struct.field("len").to_numpy().astype(np.int64)
    taken = order[np.cumsum(lengths[order]) <= limit]
    if not len(taken):
        raise DataError(
            f"limit_rows is {limit}, and the first user drawn has {lengths[order[0]]} interactions",
            "Raise limit_rows, or use limit_users.",
        )
    return _of_users(table, taken)

"""Candidates: for some users, the items that a ranker is to put in order beside the next one."""

from __future__ import annotations

import polars as pl

from itemic import schema as c


def candidates_left(
    candidates: pl.DataFrame | None, items: pl.DataFrame, interactions: pl.DataFrame
) -> pl.DataFrame | None:
    """What is left of candidates where users and items went; None where nothing is.

    Args:
        candidates: as ``Dataset.candidates``.
        items: those that are left.
        interactions: those that are left.
    """
    if candidates is None:
        return None
    there = interactions.select(pl.col(c.USER_ID).cast(pl.String)).unique()
    lists = candidates.join(there, on=c.USER_ID, how="semi", maintain_order="left")
    known = items.select(pl.col(c.ITEM_ID).alias(c.CANDIDATES))
    pairs = lists.explode(c.CANDIDATES).join(known, on=c.CANDIDATES, how="semi", maintain_order="left")
    left = pairs.group_by(c.USER_ID, maintain_order=True).agg(c.CANDIDATES)
    return left if len(left) else None

"""Small catalogues for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.sid.index import ItemIndex


def make_index(
    codes: Sequence[Sequence[int]], sizes: Sequence[int], form: str = "onerec", **kwargs: object
) -> ItemIndex:
    ids = [f"item{row}" for row in range(len(codes))]
    return ItemIndex(ids, np.array(codes, np.int32), tuple(sizes), form, **kwargs)  # type: ignore[arg-type]


def make_dataset(
    titles: Sequence[str],
    histories: dict[str, Sequence[int]] | None = None,
    *,
    ids: Sequence[str] | None = None,
    descriptions: Sequence[str] | None = None,
    brands: Sequence[str] | None = None,
    categories: Sequence[Sequence[str]] | None = None,
) -> Dataset:
    """Items with the given texts; histories name item rows."""
    n = len(titles)
    names = list(ids) if ids is not None else [f"item{row}" for row in range(n)]
    items = pl.DataFrame(
        {
            c.ITEM_ID: names,
            c.TITLE: list(titles),
            c.DESCRIPTION: list(descriptions or [""] * n),
            c.BRAND: list(brands or [""] * n),
            c.CATEGORIES: [list(path) for path in (categories or [[]] * n)],
        },
        schema={c.ITEM_ID: pl.String, c.TITLE: pl.String, c.DESCRIPTION: pl.String, c.BRAND: pl.String}
        | {c.CATEGORIES: pl.List(pl.String)},
    )
    events = [(user, names[row]) for user, rows in (histories or {}).items() for row in rows]
    interactions = pl.DataFrame(
        {
            c.USER_ID: [user for user, _ in events],
            c.ITEM_ID: [item for _, item in events],
            c.TIMESTAMP: [None] * len(events),
            c.RATING: [None] * len(events),
            c.SPLIT: [None] * len(events),
        },
        schema={c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.TIMESTAMP: pl.Int64}
        | {c.RATING: pl.Float32, c.SPLIT: pl.String},
    )
    return Dataset(items, interactions, name="small")

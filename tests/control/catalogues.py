"""Small catalogues to ask things of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.control.labels import Labels
from itemic.data.dataset import Dataset
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie


def dataset(
    paths: Sequence[Sequence[str]], users: Sequence[Sequence[int]] = ((0,),), **columns: Sequence[Any]
) -> Dataset:
    """Items with these category paths and further columns, and users who took some of them, a day apart."""
    ids = [f"i{row}" for row in range(len(paths))]
    items = pl.DataFrame(
        {
            c.ITEM_ID: ids,
            c.TITLE: [f"Item {row}" for row in range(len(paths))],
            c.DESCRIPTION: [""] * len(ids),
            c.BRAND: [""] * len(ids),
            c.CATEGORIES: pl.Series([list(path) for path in paths], dtype=pl.List(pl.String)),
        }
    ).with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    events = [
        (f"u{user}", ids[row], 86_400_000 * at)
        for user, own in enumerate(users)
        for at, row in enumerate(own)
    ]
    schema = {c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.TIMESTAMP: pl.Int64}
    interactions = pl.DataFrame(events, schema, orient="row").with_columns(
        pl.lit(None, pl.Float32).alias(c.RATING), pl.lit(None, pl.String).alias(c.SPLIT)
    )
    return Dataset(items, interactions)


def tagged(tags: Sequence[Sequence[str]], brands: Sequence[str] | None = None) -> Labels:
    """Labels by tags, and by brands where there are any."""
    more = {} if brands is None else {c.BRAND: brands}
    own = pl.Series([list(some) for some in tags], dtype=pl.List(pl.String))
    found = dataset([()] * len(tags), **{c.TAGS: own, **more})
    return Labels.of(found, [c.TAGS] if brands is None else [c.TAGS, c.BRAND])


def trie_of(items: Sequence[Sequence[int]]) -> tuple[Trie, np.ndarray]:
    """Their trie, and the number of each one's name."""
    numbers = {tuple(item): number for number, item in enumerate(dict.fromkeys(map(tuple, items)))}
    return Trie.build(TokenRows.of(items)), np.array([numbers[tuple(item)] for item in items], np.int64)

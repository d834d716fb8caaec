"""Small datasets for the tests of this room."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset


def make_dataset(sequences: dict[str, list[str]], items: list[str]) -> Dataset:
    """A dataset without texts from each user's item ids."""
    catalogue = pl.DataFrame(
        {
            c.ITEM_ID: items,
            c.TITLE: [f"Item {name}" for name in items],
            c.DESCRIPTION: [""] * len(items),
            c.BRAND: [""] * len(items),
            c.CATEGORIES: [["All"]] * len(items),
        }
    )
    pairs = [(user, item) for user, row in sequences.items() for item in row]
    events = pl.DataFrame(
        pairs, schema={c.USER_ID: pl.String, c.ITEM_ID: pl.String}, orient="row"
    ).with_columns(
        pl.lit(None, pl.Int64).alias(c.TIMESTAMP),
        pl.lit(None, pl.Float32).alias(c.RATING),
        pl.lit(None, pl.String).alias(c.SPLIT),
    )
    return Dataset(catalogue, events, "tiny")


def scientific(shared: Path) -> Dataset:
    """The real sequences of Amazon Industrial & Scientific, without texts."""
    rows = json.loads((shared / "scientific" / "Scientific.inter.json").read_text())
    items = json.loads((shared / "scientific" / "Scientific.item.json").read_text())
    return make_dataset({user: [str(item) for item in row] for user, row in rows.items()}, list(items))


def random_dataset(users: int, items: int = 40, seed: int = 0) -> Dataset:
    """Sequences of 5 to 12 items in which the next item is often the next number."""
    rng = np.random.default_rng(seed)
    sequences = {}
    for user in range(users):
        steps = np.where(rng.random(rng.integers(5, 13)) < 0.6, 1, rng.integers(0, items, 1))
        sequences[f"user-{user}"] = [f"i{row}" for row in np.cumsum(steps) % items]
    return make_dataset(sequences, [f"i{row}" for row in range(items)])

"""A small dataset made by hand, with ratings, reviews, prices and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset

Event = tuple[int, int, float | None, str]  # item, time, rating, review
TITLES = ["Pan", "Pot", "Tent", "Stove", "Pen", "Ink", "Drum", "Lute"]
BRANDS = ["Alba", "Alba", "Boro", "Boro", "Cera", "Cera", "Dova", "Alba"]
PATHS = [
    ["Kitchen", "Cookware"],
    ["Kitchen", "Cookware"],
    ["Outdoors", "Camping"],
    ["Outdoors", "Camping"],
    ["Office", "Writing"],
    ["Office", "Writing"],
    ["Music", "Percussion"],
    ["Music", "Strings"],
]
PRICES: list[float | None] = [10.0, 20.0, 100.0, 40.0, 5.0, 3.0, 300.0, None]


def people(events: Mapping[str, Sequence[Event]], **columns: Sequence[object]) -> Dataset:
    """Users and what they took; ``columns`` take the place of the items' own."""
    items = pl.DataFrame(
        {
            c.ITEM_ID: [f"i{row}" for row in range(len(TITLES))],
            c.TITLE: TITLES,
            c.DESCRIPTION: [f"A {title.lower()} for everybody." for title in TITLES],
            c.BRAND: BRANDS,
            c.CATEGORIES: PATHS,
            c.PRICE: pl.Series(PRICES, dtype=pl.Float64),
        }
        | columns
    )
    rows = [(user, *event) for user, own in events.items() for event in own]
    interactions = pl.DataFrame(
        {
            c.USER_ID: [row[0] for row in rows],
            c.ITEM_ID: [f"i{row[1]}" for row in rows],
            c.TIMESTAMP: pl.Series([row[2] for row in rows], dtype=pl.Int64),
            c.RATING: pl.Series([row[3] for row in rows], dtype=pl.Float32),
            c.SPLIT: pl.Series([None] * len(rows), dtype=pl.String),
            c.REVIEW: [row[4] for row in rows],
        }
    )
    return Dataset(items, interactions)


def walk(items: Sequence[int], start: int, rating: float | None = 5.0, review: str = "fine") -> list[Event]:
    return [(item, start + step, rating, review) for step, item in enumerate(items)]

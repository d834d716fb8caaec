"""Amazon 2023 dumps: ``X.jsonl.gz`` and ``meta_X.jsonl.gz``.

Items are the parents of their variants; times are milliseconds; the store stands for the brand.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.readers.amazon import Dump, Item, rank_of
from itemic.data.readers.further import price_of
from itemic.data.readers.reader import Reader
from itemic.data.readers.text import brand_of, category_path, clean

FURTHER = {
    c.PRICE: pl.Float64,
    "main_category": pl.String,
    "average_rating": pl.Float64,
    "rating_number": pl.Int64,
}


def _item(meta: dict[str, Any]) -> Item:
    return (
        meta.get("parent_asin"),
        meta.get("title"),
        meta.get("description") or meta.get("features"),
        brand_of(meta.get("store")),
        category_path(meta.get("categories")),
        {
            c.PRICE: price_of(meta.get("price")),
            "main_category": clean(meta.get("main_category")) or None,
            "average_rating": price_of(meta.get("average_rating")),
            "rating_number": rank_of(meta.get("rating_number")),
        },
    )


DUMP = Dump(
    name="amazon-2023",
    user="user_id",
    item="parent_asin",
    rating="rating",
    time="timestamp",
    scale=1,
    text="text",
    headline="title",
    meta_key="parent_asin",
    item_of=_item,
    further=FURTHER,
)
READER = Reader(
    DUMP.name, "X.jsonl.gz with user_id and meta_X.jsonl.gz with parent_asin", DUMP.finds, DUMP.read
)

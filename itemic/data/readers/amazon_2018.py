"""Amazon 2018 dumps: ``X.json.gz`` or ``X_5.json.gz`` and ``meta_X.json.gz`` (Ni et al. 2019)."""

from __future__ import annotations

from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.readers.amazon import Dump, Item, rank_of
from itemic.data.readers.further import price_of
from itemic.data.readers.reader import Reader
from itemic.data.readers.text import brand_of, category_path, clean

FURTHER = {c.PRICE: pl.Float64, "main_category": pl.String, "sales_rank": pl.Int64}


def _item(meta: dict[str, Any]) -> Item:
    return (
        meta.get("asin"),
        meta.get("title"),
        meta.get("description"),
        brand_of(meta.get("brand")),
        category_path(meta.get("category")),
        {
            c.PRICE: price_of(meta.get("price")),
            "main_category": clean(meta.get("main_cat"), markup=True) or None,
            "sales_rank": rank_of(meta.get("rank")),
        },
    )


DUMP = Dump(
    name="amazon-2018",
    user="reviewerID",
    item="asin",
    rating="overall",
    time="unixReviewTime",
    scale=1000,
    text="reviewText",
    headline="summary",
    meta_key="category",
    item_of=_item,
    further=FURTHER,
)
READER = Reader(
    DUMP.name, "X.json.gz with reviewerID and meta_X.json.gz with category", DUMP.finds, DUMP.read
)

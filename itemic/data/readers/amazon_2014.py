"""Amazon 2014 dumps: ``reviews_X_5.json.gz`` and ``meta_X.json.gz`` (McAuley et al. 2015).

Some of these files hold Python literals in place of JSON.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.readers.amazon import Dump, Item, rank_of
from itemic.data.readers.further import price_of
from itemic.data.readers.reader import Reader
from itemic.data.readers.text import brand_of, category_path

FURTHER = {c.PRICE: pl.Float64, "main_category": pl.String, "sales_rank": pl.Int64}


def _item(meta: dict[str, Any]) -> Item:
    rank = meta.get("salesRank")
    return (
        meta.get("asin"),
        meta.get("title"),
        meta.get("description"),
        brand_of(meta.get("brand")),
        category_path(meta.get("categories")),
        {
            c.PRICE: price_of(meta.get("price")),
            "main_category": next(iter(rank), None) if isinstance(rank, dict) else None,
            "sales_rank": rank_of(rank),
        },
    )


DUMP = Dump(
    name="amazon-2014",
    user="reviewerID",
    item="asin",
    rating="overall",
    time="unixReviewTime",
    scale=1000,
    text="reviewText",
    headline="summary",
    meta_key="categories",
    item_of=_item,
    further=FURTHER,
)
READER = Reader(
    DUMP.name, "reviews_X.json.gz with reviewerID and meta_X.json.gz with categories", DUMP.finds, DUMP.read
)

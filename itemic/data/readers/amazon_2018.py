"""Amazon 2018 dumps: ``X.json.gz`` or ``X_5.json.gz`` and ``meta_X.json.gz`` (Ni et al. 2019)."""

from __future__ import annotations

from typing import Any

from itemic.data.readers.amazon import Dump, Item
from itemic.data.readers.reader import Reader
from itemic.data.readers.text import brand_of, category_path


def _item(meta: dict[str, Any]) -> Item:
    return (
        meta.get("asin"),
        meta.get("title"),
        meta.get("description"),
        brand_of(meta.get("brand")),
        category_path(meta.get("category")),
    )


DUMP = Dump("amazon-2018", "reviewerID", "asin", "overall", "unixReviewTime", 1000, "category", _item)
READER = Reader(
    DUMP.name, "X.json.gz with reviewerID and meta_X.json.gz with category", DUMP.finds, DUMP.read
)

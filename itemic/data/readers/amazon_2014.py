"""Amazon 2014 dumps: ``reviews_X_5.json.gz`` and ``meta_X.json.gz`` (McAuley et al. 2015).

Some of these files hold Python literals in place of JSON.
"""

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
        category_path(meta.get("categories")),
    )


DUMP = Dump("amazon-2014", "reviewerID", "asin", "overall", "unixReviewTime", 1000, "categories", _item)
READER = Reader(
    DUMP.name, "reviews_X.json.gz with reviewerID and meta_X.json.gz with categories", DUMP.finds, DUMP.read
)

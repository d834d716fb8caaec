"""Amazon 2023 dumps: ``X.jsonl.gz`` and ``meta_X.jsonl.gz``.

Items are the parents of their variants; times are milliseconds; the store stands for the brand.
"""

from __future__ import annotations

from typing import Any

from itemic.data.readers.amazon import Dump, Item
from itemic.data.readers.reader import Reader
from itemic.data.readers.text import brand_of, category_path


def _item(meta: dict[str, Any]) -> Item:
    return (
        meta.get("parent_asin"),
        meta.get("title"),
        meta.get("description") or meta.get("features"),
        brand_of(meta.get("store")),
        category_path(meta.get("categories")),
    )


DUMP = Dump("amazon-2023", "user_id", "parent_asin", "rating", "timestamp", 1, "parent_asin", _item)
READER = Reader(
    DUMP.name, "X.jsonl.gz with user_id and meta_X.jsonl.gz with parent_asin", DUMP.finds, DUMP.read
)

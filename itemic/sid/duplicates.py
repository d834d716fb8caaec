"""True duplicates: items that say the very same about themselves."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.sid.text import TEXT_FIELDS, item_texts

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]
DUPLICATES = ("apart", "share")  # each gets a semantic ID of its own; or all of them the same one


def duplicate_groups(items: pl.DataFrame) -> Int64:
    """int64 ``[n]``: equal numbers for items whose cleaned texts are all equal; an item without any text is alone.

    Numbers count from 0 in the order of the first items.
    """
    first: dict[str, int] = {}
    keys = [text or f"\0{row}" for row, text in enumerate(_texts(items))]
    return np.array([first.setdefault(key, len(first)) for key in keys], np.int64)


def text_digests(items: pl.DataFrame) -> UInt64:
    """uint64 ``[n]``: 64 bits of a hash of each item's cleaned text, 0 for an item without any."""
    return np.array(
        [
            int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) if text else 0
            for text in _texts(items)
        ],
        np.uint64,
    )


def _texts(items: pl.DataFrame) -> list[str]:
    fields = [field for field in TEXT_FIELDS if field in items.columns]
    return [text.casefold() for text in item_texts(items, fields)]

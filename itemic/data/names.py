"""What people know items by."""

from __future__ import annotations

import polars as pl

from itemic import schema as c


def names_of(items: pl.DataFrame) -> list[str]:
    """What a reader knows each item by: its title, or its id where it has none."""
    return items.select(pl.when(pl.col(c.TITLE) != "").then(c.TITLE).otherwise(c.ITEM_ID))[c.TITLE].to_list()

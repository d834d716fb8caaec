"""What a format can't hold of a dataset, in a few words each."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.settings import SplitRule

WORDS = {c.TIMESTAMP: "times", c.RATING: "ratings", c.REVIEW: "reviews"}


def lost_columns(table: pl.DataFrame, kept: Collection[str]) -> list[str]:
    """The columns that say anything and aren't among those kept."""
    return [WORDS.get(name, name) for name in table.columns if name not in kept and _says(table[name])]


def _says(column: pl.Series) -> bool:
    if column.dtype == pl.String:
        return bool((column.fill_null("") != "").any())
    if isinstance(column.dtype, pl.List):
        return bool((column.list.len().fill_null(0) > 0).any())
    return column.null_count() < len(column)


def lost_times(dataset: Dataset) -> list[str]:
    """What files of nothing but ordered items lose of the interactions."""
    return lost_columns(dataset.interactions, (c.USER_ID, c.ITEM_ID, c.SPLIT))


def lost_split(dataset: Dataset) -> list[str]:
    """What files lose that name no split, so that leave-one-out with the usual history is read."""
    usual, rule = SplitRule(), dataset.rule
    if rule.method == "leave-last-out":
        return ["the split (leave-last-out: name it when the files are read)"]
    if rule.method != usual.method:
        return [f"the {rule.method} split"]
    return lost_history(dataset)


def lost_history(dataset: Dataset) -> list[str]:
    """What files lose that say nothing of the length of a request's history."""
    history = dataset.rule.history
    return (
        [] if history == SplitRule().history else [f"the length of a request's history ({history or 'all'})"]
    )

"""Category paths and tags: what items are filed under, one way or the other."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError

KINDS = ("path", "tags")


def check_labels(kind: str | None) -> None:
    """Raises:
    ConfigError: there is no such kind.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"categories_are is {kind!r}", f"Use one of {', '.join(KINDS)}.")


def as_labels(dataset: Dataset, kind: str | None) -> Dataset:
    """The dataset with its category paths as tags, or with the tags of items that have no path as their path.

    Args:
        dataset: as a reader gives it.
        kind: ``"path"``, ``"tags"``, or None to change nothing.
    """
    items = dataset.items
    tags = pl.col(c.TAGS) if c.TAGS in items.columns else pl.lit(None, pl.List(pl.String))
    path, tags = pl.col(c.CATEGORIES), tags.fill_null([])
    nothing = path.list.head(0)
    if kind == "tags":
        items = items.with_columns(nothing, path.list.concat(tags).alias(c.TAGS))
    elif kind == "path" and c.TAGS in items.columns:
        alone = path.list.len() == 0
        items = items.with_columns(
            pl.when(alone).then(tags).otherwise(path).alias(c.CATEGORIES),
            pl.when(alone).then(nothing).otherwise(tags).alias(c.TAGS),
        )
        if items[c.TAGS].list.len().sum() == 0:
            items = items.drop(c.TAGS)
    return replace(dataset, items=items)

"""Categories by name, as files have them that list the items of each: cumulative prefixes of paths, or tags.

An item under Beauty, then Makeup, then Lips is in ``"Beauty"``, ``"Beauty, Makeup"`` and ``"Beauty, Makeup, Lips"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c

BETWEEN = ", "  # the names of a path, where this project writes such files
SEPARATORS = (BETWEEN, " > ", "|", "/")


def path_of(names: Sequence[str], separator: str) -> list[str] | None:
    """The path whose cumulative prefixes these names are, in any order; None where they are no such prefixes.

    ``["A, B", "A"]`` → ``["A", "B"]``; ``["A", "B"]`` → None.
    """
    path, before = [], ""
    for name in sorted(names, key=len):
        if before and not name.startswith(before + separator):
            return None
        path.append(name[len(before) + len(separator) :] if before else name)
        before = name
    return path


def paths_of(names: Sequence[Sequence[str]]) -> list[list[str]] | None:
    """A path for each item, where one separator makes the names of every item the prefixes of its path."""
    for separator in SEPARATORS:
        found = [path_of(each, separator) for each in names]
        paths = [path for path in found if path is not None]
        if len(paths) == len(names):
            return paths
    return None


def prefixes(path: Sequence[str], separator: str = BETWEEN) -> list[str]:
    """``["A", "B"]`` → ``["A", "A, B"]``."""
    return [separator.join(path[: depth + 1]) for depth in range(len(path))]


def named_rows(
    items: pl.DataFrame, separators: Sequence[str] = (BETWEEN,)
) -> dict[str, npt.NDArray[np.int32]]:
    """The item rows of each category, ascending, by its names: prefixes of paths, and tags.

    Categories that share a name share their items, as they do in a file.

    Args:
        items: ``Dataset.items``.
        separators: each gives a path's prefixes another name.
    """
    tags = items[c.TAGS].to_list() if c.TAGS in items.columns else [None] * len(items)
    found: dict[str, list[int]] = {}
    for row, (path, more) in enumerate(zip(items[c.CATEGORIES].to_list(), tags, strict=True)):
        names = [name for separator in separators for name in prefixes(path or [], separator)]
        for name in dict.fromkeys([*names, *(more or [])]):
            found.setdefault(name, []).append(row)
    return {name: np.array(rows, np.int32) for name, rows in found.items()}

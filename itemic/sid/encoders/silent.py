"""Items that say nothing: they get the mean of the others' vectors, counted and told."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.errors import DataError
from itemic.progress import log
from itemic.sid.vectors import Float32, normalize

Known = npt.NDArray[np.bool_]


def require_text(known: Known, fields: Iterable[str]) -> None:
    """Make sure that at least one item has text.

    Raises:
        DataError: none has.
    """
    if not known.any():
        raise DataError(
            f"none of the {len(known)} items has text in {', '.join(fields)}",
            "Use encoder collaborative, which looks at behaviour alone, import the texts, or encode another field.",
        )


def mean_vector(vectors: Float32, known: Known, unit: bool) -> Float32:
    """The mean ``[1, d]`` of the known rows, of length 1 if ``unit``."""
    mean = vectors[known].mean(axis=0, keepdims=True, dtype=np.float64)
    return normalize(mean) if unit else mean.astype(np.float32)


def fill_silent(
    vectors: Float32, known: Known, mean: Float32, items: pl.DataFrame, why: str = "have no text"
) -> int:
    """Write the mean into the rows that nothing is known of; how many there are."""
    silent = np.flatnonzero(~known)
    if len(silent):
        vectors[silent] = mean
        first = items[c.ITEM_ID][int(silent[0])]
        log.warning("%d items %s (first %r) and get the mean vector", len(silent), why, first)
    return len(silent)

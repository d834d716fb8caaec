"""Checks and small operations on item vectors, shared by encoders and quantizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.errors import DataError

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
ROWS = 1 << 16  # vectors looked at a time, so that a table larger than the memory is possible


def check_vectors(vectors: npt.NDArray[np.floating], what: str = "the item vectors") -> Float32:
    """``vectors`` as float32 ``[n, d]``.

    Raises:
        DataError: not a table of numbers, empty, or with NaN or infinite values (the rows are named).
    """
    table = np.asarray(vectors, np.float32)
    if table.ndim != 2 or 0 in table.shape:
        raise DataError(
            f"{what} have the shape {list(table.shape)}", "Give one row an item, at least one column."
        )
    parts = (table[i : i + ROWS] for i in range(0, len(table), ROWS))
    broken = np.flatnonzero(np.concatenate([~np.isfinite(part).all(axis=1) for part in parts]))
    if len(broken):
        some = ", ".join(str(row) for row in broken[:5])
        raise DataError(
            f"{what} have NaN or infinite values in {len(broken)} rows, first {some}",
            "Look at what made them; half precision overflows easily.",
        )
    return table


def normalize(vectors: npt.NDArray[np.floating]) -> Float32:
    """Rows of length 1, float32; rows of zeros stay as they are."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32 = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return unit

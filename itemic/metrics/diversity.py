"""How different the items of one list are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from itemic.errors import ConfigError

Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
CELLS = 4_000_000  # numbers that one batch of lists may hold


def intra_list_distance(items: Int32, k: int, features: Any) -> Float64:
    """The mean cosine distance over all pairs of each list's first k items (ILD). float64 ``[R]``.

    Formula: ``ILD@k = 2 / (m (m - 1)) · Σ_{i < j} (1 - cos(x_i, x_j))`` over the m items that have features; those
    without (an empty row) are left out, and a list with fewer than two gives NaN. With one label an item that is the
    share of pairs with different labels.

    The sum over pairs is not walked: of unit vectors ``Σ_{i < j} cos = (‖Σ x‖² - m) / 2``.

    Args:
        items: int32 ``[R, K]``, item rows, best first; -1 is padding.
        k: how many places count.
        features: ``[n, d]``, sparse (labels) or dense (vectors), a row an item.

    Raises:
        ConfigError: k is below 1.

    Source: Ziegler, McNee, Konstan and Lausen, "Improving recommendation lists through topic diversification", WWW
    2005; RecTools' ``IntraListDiversity`` with cosine distances.

    Example:
        Three items with labels a, a, b: ``intra_list_distance([[0, 1, 2]], 3, [[1, 0], [1, 0], [0, 1]])`` is
        ``[2 / 3]``: two of three pairs differ.
    """
    if k < 1:
        raise ConfigError(f"a metric at k = {k}", "Give a k of 1 or more.")
    units, known = _units(features)
    shown = np.asarray(items)[:, :k]
    found = np.full(len(shown), np.nan)
    step = max(1, CELLS // max(units.shape[1] if isinstance(units, np.ndarray) else k, k))
    for start in range(0, len(shown), step):
        part = shown[start : start + step]
        real = (part >= 0) & known[part]
        m = real.sum(axis=1)
        offsets = np.concatenate([[0], np.cumsum(m)])
        pick = sparse.csr_array((np.ones(offsets[-1]), part[real], offsets), shape=(len(part), len(known)))
        total = pick @ units
        square = (total * total).sum(axis=1) if isinstance(total, np.ndarray) else total.power(2).sum(axis=1)
        pairs = m * (m - 1.0)
        enough = pairs > 0
        distance = 1 - (np.asarray(square).reshape(-1)[enough] - m[enough]) / pairs[enough]
        found[start : start + len(part)][enough] = np.clip(distance, 0.0, 2.0)
    return found


def _units(features: Any) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Rows of length 1, and which rows aren't empty."""
    if not sparse.issparse(features):
        rows = np.asarray(features, np.float64)
        lengths = np.linalg.norm(rows, axis=1)
        return rows / np.where(lengths > 0, lengths, 1.0)[:, None], lengths > 0
    rows = sparse.csr_array(features, dtype=np.float64)
    lengths = np.sqrt(np.asarray(rows.power(2).sum(axis=1)).reshape(-1))
    return sparse.diags_array(1 / np.where(lengths > 0, lengths, 1.0)) @ rows, lengths > 0

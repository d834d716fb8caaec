"""Whether a list has the proportions of a person's interests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from itemic.errors import ConfigError

Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]


def calibration(history: Any, items: Int32, k: int, labels: Any, alpha: float = 0.01) -> Float64:
    """How far the labels of each list are from those of its history, in nats; 0 is calibrated. float64 ``[R]``.

    Formula: ``C_KL = Σ_g p(g) ln(p(g) / q̃(g))`` with ``p(g)`` the mean of ``p(g|i)`` over the history's items,
    ``q(g)`` the same over the first k of the list, ``q̃ = (1 - α) q + α p``, and ``p(g|i)`` equal shares of the item's
    labels. Items without labels are left out; NaN where a history or list has none that has.

    Args:
        history: sparse ``[R, n]``, how often (or with what weight) each item stands in each history.
        items: int32 ``[R, K]``, item rows, best first; -1 is padding.
        k: how many places count.
        labels: sparse or dense ``[n, C]``, which items carry which label.
        alpha: keeps the figure finite where a list lacks a label; Steck's value.

    Raises:
        ConfigError: k is below 1, or alpha outside (0, 1].

    Source: Steck, "Calibrated recommendations", RecSys 2018, equations 2, 3 and 6.

    Example:
        A history of 7 romances and 3 thrillers, and a list of romances only: ``.7 ln(.7 / .997) + .3 ln(.3 / .003) =
        1.134``.
    """
    if k < 1 or not 0 < alpha <= 1:
        raise ConfigError(
            f"calibration at k = {k} with alpha {alpha}", "Give a k of 1 or more and an alpha such as .01."
        )
    shares = sparse.csr_array(labels, dtype=np.float64)
    shares = _scaled(shares, np.asarray(shares.sum(axis=1)).reshape(-1))
    shown = np.asarray(items)[:, :k]
    offsets = np.concatenate([[0], np.cumsum((shown >= 0).sum(axis=1))])
    ones = np.ones(offsets[-1])
    listed = sparse.csr_array((ones, shown[shown >= 0], offsets), shape=(len(shown), shares.shape[0]))
    wanted = _profile(sparse.csr_array(history, dtype=np.float64), shares)
    given = _profile(listed, shares)
    rows = np.repeat(np.arange(len(shown)), np.diff(wanted.indptr))
    p, q = wanted.data, _at(given, rows, wanted.indices)
    terms = p * np.log(p / ((1 - alpha) * q + alpha * p))
    found = np.bincount(rows, terms, minlength=len(shown))
    known = (np.diff(wanted.indptr) > 0) & (np.diff(given.indptr) > 0)
    return np.where(known, found, np.nan)


def _profile(picked: Any, shares: Any) -> Any:
    """Shares of the labels in each row of picked items, sparse ``[R, C]``, sorted."""
    found = sparse.csr_array(picked @ shares)
    found = _scaled(found, np.asarray(found.sum(axis=1)).reshape(-1))
    found.eliminate_zeros()
    found.sort_indices()
    return found


def _scaled(rows: Any, totals: Float64) -> Any:
    return sparse.csr_array(sparse.diags_array(1 / np.where(totals > 0, totals, 1.0)) @ rows)


def _at(table: Any, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.integer]) -> Float64:
    """Values of a sorted CSR array at many places, 0 where it has none."""
    width = table.shape[1]
    stored = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr)) * width + table.indices
    asked = rows * width + columns
    place = np.minimum(np.searchsorted(stored, asked), max(len(stored) - 1, 0))
    if not len(stored):
        return np.zeros(len(asked))
    return np.where(stored[place] == asked, table.data[place], 0.0)

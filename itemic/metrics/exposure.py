"""What a recommender shows, whether it is right or not: coverage, concentration, validity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, DataError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def exposure(items: Int32, catalogue: int, k: int) -> Int64:
    """How often each item stands among the first k: int64 ``[catalogue]``. Adds up over parts of a ranking.

    Args:
        items: int32 ``[R, K]``, item rows; -1 is padding.
        catalogue: the number of items.
        k: how many places count.

    Raises:
        DataError: a row lies outside the catalogue.
        ConfigError: k is below 1.
    """
    if k < 1:
        raise ConfigError(f"exposure at k = {k}", "Give a k of 1 or more.")
    shown = np.asarray(items)[:, :k].reshape(-1)
    shown = shown[shown >= 0]
    if len(shown) and shown.max() >= catalogue:
        raise DataError(
            f"item row {shown.max()} is not among the {catalogue} items",
            "Give the dataset that the ranking was made for.",
        )
    return np.bincount(shown, minlength=catalogue).astype(np.int64)


def coverage(counts: Int64) -> float:
    """The share of the catalogue that was shown at all, from the counts of :func:`exposure`.

    Formula: ``|{i: counts[i] > 0}| / n``. Counts ``[3, 0, 1, 0]`` give .5.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy", RecSys 2010.
    """
    return float(np.count_nonzero(counts) / len(counts)) if len(counts) else 0.0


def gini(counts: Int64) -> float:
    """How unequal exposure is: 0 where all items are shown equally often, near 1 where one gets everything.

    Formula, counts sorted rising, i from 1: ``Σ (2i - n - 1) · c_i / (n · Σ c)``. Counts ``[0, 0, 0, 4]``
    give ``3 · 4 / (4 · 4) = .75``. 0 where nothing was shown.
    """
    ranked = np.sort(np.asarray(counts, np.float64))
    total = ranked.sum()
    if not total:
        return 0.0
    n = len(ranked)
    share = ((2 * np.arange(1, n + 1) - n - 1) * ranked).sum() / (n * total)
    return float(max(share, 0.0))  # of equal ones rounding may leave less


def entropy(counts: Int64) -> float:
    """Entropy of exposure as a share of the highest possible: 1 where all items are shown equally often.

    Formula: ``-Σ p_i · ln p_i / ln n`` with ``p = counts / Σ counts``. Counts ``[2, 2, 0, 0]`` give ``ln 2 /
    ln 4 = .5``. 0 where nothing was shown or the catalogue is one item.
    """
    shown = np.asarray(counts, np.float64)
    if len(shown) < 2 or not shown.sum():
        return 0.0
    share = shown[shown > 0] / shown.sum()
    return float(abs(-(share * np.log(share)).sum()) / np.log(len(shown)))


def validity(items: Int32, catalogue: int, k: int | None = None) -> npt.NDArray[np.float64]:
    """The share of each request's first k places that hold a real item, float64 ``[R]``.

    Formula: ``|{j ≤ k: 0 ≤ items[j] < catalogue}| / k``. Under exact constrained search only lists that ran
    out of items fall below 1; free generation falls below whenever it spells an item that isn't there.

    Example:
        ``validity([[4, 2, -1, -1]], catalogue=5)`` is ``[.5]``.
    """
    shown = np.asarray(items)
    width = shown.shape[1] if k is None else k
    if width < 1:
        raise ConfigError(f"validity at k = {width}", "Give a k of 1 or more.")
    real = (shown[:, :width] >= 0) & (shown[:, :width] < catalogue)
    return np.asarray(real.sum(axis=1) / width, np.float64)

"""Accuracy of a ranking with one target per request.

Each function gives a value per request; the metric is the mean.

Ranks are those of :func:`itemic.metrics.ranks_of`: 1 is best, 0 means that the target was not found.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError

Float64 = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int64]


def hit_rate(ranks: Ranks, k: int) -> Float64:
    """HR@k of each request: 1 where the target is among the first k, else 0. float64 ``[R]``.

    Formula: ``HR@k = 1[1 ≤ rank ≤ k]``. Ranks ``[1, 3, 0]`` at ``k = 2`` give ``[1, 0, 0]``.

    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004.

    Raises:
        ConfigError: k is below 1.
    """
    return _hits(ranks, k).astype(np.float64)


def recall(ranks: Ranks, k: int) -> Float64:
    """Recall@k of each request: the share of its targets among the first k. float64 ``[R]``.

    Formula: ``R@k = |targets ∩ first k| / |targets|``. With the one target per request that next-item
    prediction has, this is HR@k, and papers use either name.

    Raises:
        ConfigError: k is below 1.
    """
    return hit_rate(ranks, k)


def ndcg(ranks: Ranks, k: int) -> Float64:
    """NDCG@k of each request. float64 ``[R]``.

    Formula: ``1[1 ≤ rank ≤ k] / log2(rank + 1)``; the ideal list has the one target first, so its DCG is 1.
    Ranks ``[1, 3, 0]`` at ``k = 3`` give ``[1, 1/log2(4), 0] = [1, .5, 0]``.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.

    Raises:
        ConfigError: k is below 1.
    """
    hits = _hits(ranks, k)
    return np.where(hits, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def mrr(ranks: Ranks, k: int) -> Float64:
    """Reciprocal rank, cut at k, of each request. float64 ``[R]``.

    Formula: ``1[1 ≤ rank ≤ k] / rank``. Ranks ``[1, 4, 0]`` at ``k = 5`` give ``[1, .25, 0]``.

    Source: Voorhees, "The TREC-8 question answering track report", 1999.

    Raises:
        ConfigError: k is below 1.
    """
    hits = _hits(ranks, k)
    return np.where(hits, 1.0 / np.maximum(ranks, 1), 0.0)


def _hits(ranks: Ranks, k: int) -> npt.NDArray[np.bool_]:
    if k < 1:
        raise ConfigError(f"a metric at k = {k}", "Give a k of 1 or more.")
    found = np.asarray(ranks)
    return (found >= 1) & (found <= k)

"""What lists hold beside what is right: how popular, how novel, and how serendipitous it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, DataError
from itemic.metrics.ranks import ranks_of

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def popularity(items: Int32, k: int, counts: Int64) -> Float64:
    """The average popularity of each list (ARP): how often training saw its items. float64 ``[R]``.

    Formula: ``ARP@k = mean of counts[i] over the first k items i``. NaN where a list is empty.

    Args:
        items: int32 ``[R, K]``, item rows, best first; -1 is padding and counts nowhere.
        k: how many places count.
        counts: int64 ``[n]``, interactions of each item in training.

    Raises:
        ConfigError: k is below 1.
        DataError: a row lies outside the catalogue.

    Source: Yin, Cui, Li, Yao and Chen, "Challenging the long tail recommendation", VLDB 2012; RecTools'
    ``AvgRecPopularity``.

    Example:
        ``popularity([[0, 2]], 2, [4, 1, 0])`` is ``[2.]``.
    """
    return mean_over(items, k, np.asarray(counts, np.float64))


def novelty(items: Int32, k: int, users: Int64, total: int) -> Float64:
    """The mean self-information of each list's items in bits: high where few people know them. float64 ``[R]``.

    Formula: ``MIUF@k = mean of -log2(users[i] / total) over the first k items i``. An item that nobody had counts
    as one that a single user had. NaN where a list is empty.

    Args:
        items: int32 ``[R, K]``, as in :func:`popularity`.
        k: how many places count.
        users: int64 ``[n]``, how many different users had each item in training.
        total: users in training.

    Raises:
        ConfigError: k is below 1, or there are no users.
        DataError: a row lies outside the catalogue.

    Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma", PNAS 2010 (self-information); Vargas and
    Castells, "Rank and relevance in novelty and diversity metrics", RecSys 2011 (MIUF, without rank and relevance);
    RecTools' ``MeanInvUserFreq``.

    Example:
        Of three users all had item 0 and one had item 1: ``novelty([[0, 1]], 2, [3, 1, 0], 3)`` is
        ``[(0 + log2(3)) / 2] = [.792]``.
    """
    if total < 1:
        raise ConfigError("novelty among no users", "Give the number of users in training.")
    known = np.maximum(np.asarray(users, np.float64), 1.0)
    return mean_over(items, k, -np.log2(known / total))


def serendipity(items: Int32, targets: Int32, k: int, counts: Int64) -> Float64:
    """How much of each list is relevant and not what everybody would be shown: RecTools' definition. float64 ``[R]``.

    Formula: ``mean over the first k places r of rel(r) · max(p(r) - p'(r), 0)`` with ``p(r) = (n + 1 - r) / n`` for
    rank r in a catalogue of n items, and ``p'`` the same with the item's rank by popularity, where items with the same
    count share a rank and the next count takes the next rank; 0 for an item that training never saw. 0 where a list
    is empty.

    Args:
        items: int32 ``[R, K]``, as in :func:`popularity`.
        targets: int32 ``[R]``, the relevant item of each request.
        k: how many places count.
        counts: int64 ``[n]``, interactions of each item in training.

    Raises:
        ConfigError: k is below 1.
        DataError: a target is unknown, or a row lies outside the catalogue.

    Source: RecTools' ``Serendipity``, which follows Lab41, "Recommender systems: it's not all about the accuracy",
    2016. It is one of several definitions; that of Ge et al. (RecSys 2010) compares with a primitive recommender.

    Example:
        Four items with counts ``[3, 2, 0, 0]``: item 2, right and at the first place of two, gives ``(1 - 0) / 2 =
        .5``: ``serendipity([[2, 0]], [2], 2, [3, 2, 0, 0])`` is ``[.5]``.
    """
    shown = _shown(items, k, len(counts))
    n = len(counts)
    counts = np.asarray(counts)
    place = ranks_of(shown, targets)
    popular = np.unique(-counts[counts > 0], return_inverse=True)[1] + 1
    anybody = np.zeros(n)
    anybody[counts > 0] = (n + 1 - popular) / n
    gain = np.maximum((n + 1 - place) / n - anybody[np.asarray(targets)], 0.0)
    listed = (shown >= 0).sum(axis=1)
    return np.where(place > 0, gain / np.maximum(listed, 1), 0.0)


def mean_over(items: Int32, k: int, values: Float64) -> Float64:
    """The mean of ``values[item]`` over the real items of each list's first k places, NaN where there are none.

    Raises:
        ConfigError: k is below 1.
        DataError: a row lies outside the catalogue.
    """
    shown = _shown(items, k, len(values))
    real = shown >= 0
    sums = np.where(real, values[np.where(real, shown, 0)], 0.0).sum(axis=1) if len(values) else 0.0
    listed = real.sum(axis=1)
    return np.where(listed > 0, sums / np.maximum(listed, 1), np.nan)


def _shown(items: Int32, k: int, catalogue: int) -> Int32:
    if k < 1:
        raise ConfigError(f"a metric at k = {k}", "Give a k of 1 or more.")
    shown = np.asarray(items)[:, :k]
    if shown.size and shown.max() >= catalogue:
        raise DataError(
            f"item row {shown.max()} is not among the {catalogue} items",
            "Give the dataset that the ranking was made for.",
        )
    return shown

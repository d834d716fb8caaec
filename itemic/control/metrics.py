"""How well lists do what they are told. A value for each request; the metric is the mean, and failures are in it.

Lists are arrays as in :mod:`itemic.control.rewards`: ``items`` int32 ``[R, K]`` with -1 for an entry that names
no item, ``lengths`` int64 ``[R]``. A request whose answer failed has length 0 and gets the worst value of each metric.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.control.rewards import repeated
from itemic.errors import ConfigError
from itemic.metrics import mrr, ndcg, recall

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

HOWS = ("at most", "at least", "about")


def accuracy(items: Int32, lengths: Int64, targets: Int32, k: int) -> dict[str, Float64]:
    """``recall@k``, ``mrr@k`` and ``ndcg@k``, each float64 ``[R]``. An entry that names no item keeps its place.

    Args:
        items: the lists.
        lengths: of each.
        targets: int32 ``[R]``; -1 is found nowhere.
        k: entries that count.

    Example:
        ``[[7, -1, 3]]`` and target 3 at ``k = 3``: recall 1, mrr 1/3, ndcg ``1 / log2(4) = .5``.
    """
    hit = _first(items, lengths, k) & (items == targets[:, None]) & (items >= 0)
    ranks = np.where(hit.any(1), hit.argmax(1) + 1, 0).astype(np.int64)
    return {f"recall@{k}": recall(ranks, k), f"mrr@{k}": mrr(ranks, k), f"ndcg@{k}": ndcg(ranks, k)}


def correct_count(lengths: Int64, counts: Int64) -> Float64:
    """1 where a list has as many entries as were asked for, float64 ``[R]``."""
    return np.asarray(np.asarray(lengths) == np.asarray(counts), np.float64)


def non_existing(items: Int32, lengths: Int64, k: int) -> Float64:
    """The share of the first k entries that name no item, float64 ``[R]``; 1 for a list without any.

    Example:
        ``[[5, -1, 7, 7]]`` of length 4 at ``k = 4``: ¼. Of length 1: 0.
    """
    first = _first(items, lengths, k)
    return _share(first & (items < 0), first)


def repeating(items: Int32, lengths: Int64, k: int) -> Float64:
    """The share of the first k entries that name an item again, float64 ``[R]``; 1 for a list without any.

    Example:
        ``[[5, -1, 7, 7]]`` of length 4 at ``k = 4``: ¼.
    """
    first = _first(items, lengths, k)
    return _share(first & repeated(items, lengths), first)


def in_history(items: Int32, lengths: Int64, history: Bool, k: int) -> Float64:
    """The share of the first k entries that are in the history, float64 ``[R]``; 1 for a list without any.

    Args:
        items: the lists.
        lengths: of each.
        history: bool ``[R, K]``, whether each entry is.
        k: entries that count.
    """
    first = _first(items, lengths, k)
    return _share(first & history & (items >= 0), first)


def target_category(items: Int32, lengths: Int64, inside: Bool, k: int, *, wanted: bool) -> Float64:
    """The share of the first k entries that have the label, float64 ``[R]``.

    Args:
        items: the lists.
        lengths: of each.
        inside: bool ``[R, K]``, whether each entry has it.
        k: entries that count.
        wanted: whether the label was wanted, so that more is better; it says what a list without entries gets: 0, or
            under an unwanted label 1. A repeated entry doesn't count for a wanted label.

    Example:
        In, in, out, unknown: ½ at ``k = 4``, 1 at ``k = 2``.
    """
    first = _first(items, lengths, k)
    own = first & inside & (items >= 0)
    if wanted:
        own &= ~repeated(items, lengths)
    return _share(own, first, empty=0.0 if wanted else 1.0)


def category_rate_correct(
    items: Int32, lengths: Int64, inside: Bool, how: str, quotas: Int64, *, slack: int = 1
) -> Float64:
    """1 where a list has its share of the label, float64 ``[R]``; 0 for a list without entries.

    ``at most`` (RecLM-gen's LP): no more than the quota. ``at least`` (MP): no fewer. ``about`` (EP): as many, give or
    take ``slack``. Entries that come again count for an upper limit, and not for a lower one.

    Args:
        items: the lists.
        lengths: of each.
        inside: bool ``[R, K]``, whether each entry has the label.
        how: one of the three.
        quotas: int64 ``[R]``, of items.
        slack: for ``about``.

    Raises:
        ConfigError: another ``how``.

    Example:
        Four entries with the label and a quota of 3: at most 0, at least 1, about 1; a quota of 2: 0, 1, 0.
    """
    if how not in HOWS:
        raise ConfigError(f"a share that is {how!r}", f"Use one of {', '.join(HOWS)}.")
    there = _first(items, lengths, items.shape[1]) & (items >= 0) & inside
    every = there.sum(1)
    once = (there & ~repeated(items, lengths)).sum(1)
    fine = {
        "at most": every <= quotas,
        "at least": once >= quotas,
        "about": (every <= quotas + slack) & (once >= quotas - slack),
    }[how]
    return np.asarray(fine & (lengths > 0), np.float64)


def reclm_category(items: Int32, lengths: Int64, inside: Bool, k: int) -> Float64:
    """The share of the first k entries that have the label as RecLM-gen counts it, float64 ``[R]``: an entry that comes
    again counts like any other (``TargetCategoryRate`` over k). 0 for a list without entries.

    Args:
        items: the lists.
        lengths: of each.
        inside: bool ``[R, K]``, whether each entry has it.
        k: entries that count.

    Example:
        In, the same again, out: ⅔ at ``k = 3``, where :func:`target_category` gives ⅓.
    """
    first = _first(items, lengths, k)
    return _share(first & inside & (items >= 0), first, empty=0.0)


def reclm_rate_correct(
    items: Int32, lengths: Int64, inside: Bool, how: str, quotas: Int64, counts: Int64
) -> Float64:
    """1 where a list has its share as RecLM-gen counts it (``CategoryRateCorrect``), float64 ``[R]``.

    Of the entries that were asked for those with the label are counted, also when they come again, give or take one for
    ``about``; what names no item counts towards an upper limit. 0 for a list without entries.

    Args:
        items: the lists.
        lengths: of each.
        inside: bool ``[R, K]``, whether each entry has the label.
        how: as for :func:`category_rate_correct`.
        quotas: int64 ``[R]``, of items.
        counts: int64 ``[R]``, entries that were asked for.

    Raises:
        ConfigError: another ``how``.

    Example:
        In, the same again, out and a quota of 2: at least 1, at most 1; with one that names nothing at most 0.
    """
    if how not in HOWS:
        raise ConfigError(f"a share that is {how!r}", f"Use one of {', '.join(HOWS)}.")
    first = np.arange(items.shape[1]) < np.minimum(lengths, counts)[:, None]
    have = (first & inside & (items >= 0)).sum(1)
    unreal = (first & (items < 0)).sum(1)
    fine = {
        "at most": have + unreal <= quotas,
        "at least": have >= quotas,
        "about": np.abs(have - quotas) <= 1,
    }[how]
    return np.asarray(fine & (lengths > 0), np.float64)


def _first(items: Int32, lengths: Int64, k: int) -> Bool:
    if k < 1:
        raise ConfigError(f"a metric at k = {k}", "Give a k of 1 or more.")
    return np.asarray(np.arange(items.shape[1]) < np.minimum(lengths, k)[:, None])


def _share(own: Bool, of: Bool, empty: float = 1.0) -> Float64:
    total = of.sum(1)
    return np.where(total > 0, own.sum(1) / np.maximum(total, 1), empty)

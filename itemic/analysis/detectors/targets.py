"""Patterns of what was asked: a rare target, a short history, an item without text."""

from __future__ import annotations

import numpy as np
import polars as pl

from itemic import schema as c
from itemic.analysis.detector import Found, Thresholds
from itemic.analysis.evidence import Bools, Evidence, Int64


def cold_start(evidence: Evidence, told: Thresholds) -> Found:
    """The target was hardly ever seen in training."""
    count = evidence.counts[evidence.requests.targets]
    return Found(count <= told.cold, {"count": count})


def long_tail(evidence: Evidence, told: Thresholds) -> Found:
    """The target is one of the rarest items."""
    targets = evidence.requests.targets
    return Found(tail_of(evidence.counts, told.tail)[targets], {"count": evidence.counts[targets]})


def short_history(evidence: Evidence, told: Thresholds) -> Found:
    """There is little to go by."""
    return Found(evidence.lengths <= told.short, {"length": evidence.lengths})


def history_cut(evidence: Evidence, told: Thresholds) -> Found:
    """The ranker couldn't read all of the history."""
    return Found(evidence.shortened, {"length": evidence.lengths})


def repeat_target(evidence: Evidence, told: Thresholds) -> Found:
    """The user has had the target before."""
    requests = evidence.requests
    asking = np.repeat(np.arange(len(requests)), evidence.lengths)
    same = requests.items == requests.targets[asking]
    times = np.bincount(asking[same], minlength=len(requests))
    return Found(times > 0, {"times": times})


def text_missing(evidence: Evidence, told: Thresholds) -> Found:
    """Nothing, or next to nothing, says what the target is."""
    words = words_of(evidence.dataset.items)[evidence.requests.targets]
    return Found(words < told.words, {"words": words})


def memory_knew(evidence: Evidence, told: Thresholds) -> Found:
    """Counting what followed what in training has the target in its list, and this ranker hasn't."""
    from itemic.evaluate.baselines import Transitions
    from itemic.metrics import ranks_of

    place = np.zeros(len(evidence), np.int64)
    asked = np.flatnonzero(evidence.bad)
    requests = evidence.requests.take(asked)
    items, _ = Transitions(evidence.dataset).rank(requests, evidence.k, evidence.excluded)
    place[asked] = ranks_of(items, requests.targets)
    return Found(place > 0, {"place": place}, evidence.bad)


def tail_of(counts: Int64, share: float) -> Bools:
    """The rarest items: those that all rarer ones together leave below ``share`` of the interactions, bool ``[n]``."""
    return np.asarray(_share_before(counts) < share)


def head_of(counts: Int64, share: float) -> Bools:
    """The most frequent items: those that all more frequent ones together leave below ``share``, bool ``[n]``."""
    return np.asarray(_share_before(-counts) < share) & (counts > 0)


def _share_before(order: Int64) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The share of all interactions that items with a smaller number have; equal numbers stand together."""
    distinct, number = np.unique(order, return_inverse=True)
    totals = np.bincount(number, np.abs(order), minlength=len(distinct))
    before = np.cumsum(totals) - totals
    return np.asarray((before / max(totals.sum(), 1.0))[number])


def words_of(items: pl.DataFrame) -> Int64:
    """Words in title and description of each item, int64 ``[n]``."""
    text = pl.concat_str(c.TITLE, c.DESCRIPTION, separator=" ", ignore_nulls=True)
    return items.select(text.str.count_matches(r"\S+")).to_series().to_numpy().astype(np.int64)

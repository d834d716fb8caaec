"""Patterns of semantic IDs: shared ones, crowded prefixes, and the level at which lists go wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from itemic.analysis.detector import Found, Thresholds
from itemic.analysis.evidence import Bools, Evidence, Int32, Int64
from itemic.metrics import sid_numbers

DEEPEST = 4  # levels that have a detector of their own; the last one also stands for those below


def collision(evidence: Evidence, told: Thresholds) -> Found:
    """Other items have the target's semantic ID."""
    sids = _known(evidence.sid_numbers)
    others = (np.bincount(sids)[sids] - 1)[evidence.requests.targets]
    return Found(others > 0, {"others": others})


def found_namesake(evidence: Evidence, told: Thresholds) -> Found:
    """The list holds the target's semantic ID, by another item."""
    sids = _known(evidence.sid_numbers)
    top = evidence.top
    theirs = np.where(top >= 0, sids[top], -1)
    place = _first(theirs == sids[evidence.requests.targets][:, None])
    return Found(evidence.bad & (place > 0), {"place": place}, evidence.bad)


def crowded_prefix(evidence: Evidence, told: Thresholds) -> Found:
    """The target's code of the last level has to be told from those of many items."""
    prefix = sid_numbers(_codes(evidence)[:, :-1])
    size = np.bincount(prefix)[prefix]
    crowded = size >= told.crowded * np.median(size)
    targets = evidence.requests.targets
    return Found(crowded[targets], {"items": size[targets]})


def wrong_level(level: int) -> Callable[[Evidence, Thresholds], Found]:
    """The detector of lists whose longest right prefix ends before ``level``."""

    def find(evidence: Evidence, told: Thresholds) -> Found:
        first = evidence.once("first wrong", lambda: first_wrong(evidence))
        here = first >= level if level == DEEPEST else first == level
        able = evidence.bad if _codes(evidence).shape[1] >= level else np.zeros(len(evidence), bool)
        return Found(here & able, {"level": first}, able)

    return find


def first_wrong(evidence: Evidence) -> Int64:
    """The first level that no listed item gets right after the levels before: int64 ``[R]``, from 1; 0 where a list
    holds the whole semantic ID."""
    codes, top = _codes(evidence), evidence.top
    right = top >= 0
    deepest = np.zeros(len(evidence), np.int64)
    for level in range(codes.shape[1]):
        right = right & (codes[top, level] == codes[evidence.requests.targets, level][:, None])
        deepest += right.any(1)
    return np.where(deepest == codes.shape[1], 0, deepest + 1)


def _first(match: Bools) -> Int64:
    return np.where(match.any(1), match.argmax(1) + 1, 0).astype(np.int64)


def _codes(evidence: Evidence) -> Int32:
    assert evidence.codes is not None  # what the detectors need
    return evidence.codes


def _known(sids: Int32 | None) -> Int32:
    assert sids is not None  # what the detectors need
    return sids

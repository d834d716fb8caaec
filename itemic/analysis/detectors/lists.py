"""Patterns of what was answered: beside the taste, beside the moment, nothing new, nothing but hits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from itemic.analysis.detector import Found, Thresholds
from itemic.analysis.detectors.targets import head_of
from itemic.analysis.evidence import Bools, Evidence, Int32, Int64
from itemic.data.sequences import Requests

CHUNK = 50_000  # requests that are looked at together


def category_mismatch_target(evidence: Evidence, told: Thresholds) -> Found:
    """No listed item is of the target's kind."""
    labels = _labels(evidence)
    targets = evidence.requests.targets
    same = np.zeros(len(evidence), np.int64)
    for start, stop in chunks(evidence):
        kind = labels[targets[start:stop]]
        same[start:stop] = _alike(evidence, start, stop, kind, labels)
    able = np.diff(labels.indptr)[targets] > 0
    return Found(able & (same == 0) & evidence.bad, {"same": same}, able & evidence.bad)


def category_mismatch_history(evidence: Evidence, told: Thresholds) -> Found:
    """The list is mostly of kinds that the user has never had."""
    labels = _labels(evidence)
    size = listed(evidence)
    alike = np.zeros(len(evidence), np.int64)
    had = np.zeros(len(evidence), bool)
    for start, stop in chunks(evidence):
        kinds = _kinds(evidence.history[start:stop] @ labels.astype(np.int32))
        had[start:stop] = np.diff(kinds.indptr) > 0
        alike[start:stop] = _alike(evidence, start, stop, kinds, labels)
    able = had & (size > 0)
    strange = size - alike
    return Found(able & (strange >= told.mostly * size), {"strange": strange, "size": size}, able)


def ignores_recent(evidence: Evidence, told: Thresholds) -> Found:
    """The target has followed a recent item in training, and hardly any listed item has."""
    follows = _follows(evidence, told)
    able = follows.target_recent & (follows.size > 0)
    flags = able & (follows.list_recent <= told.hardly * follows.size)
    return Found(flags, {"follow": follows.list_recent, "size": follows.size}, able)


def only_recent(evidence: Evidence, told: Thresholds) -> Found:
    """The target has followed an earlier item and no recent one, and the list mostly follows the recent ones."""
    follows = _follows(evidence, told)
    able = ~follows.target_recent & follows.target_earlier & (follows.size > 0)
    flags = able & (follows.list_recent >= told.mostly * follows.size)
    return Found(flags, {"follow": follows.list_recent, "size": follows.size}, able)


def repetition(evidence: Evidence, told: Thresholds) -> Found:
    """The target is new to the user, and much of the list isn't, or stands in it twice."""
    size = listed(evidence)
    again = np.zeros(len(evidence), np.int64)
    new = np.zeros(len(evidence), bool)
    for start, stop in chunks(evidence):
        top, targets = evidence.top[start:stop], evidence.requests.targets[start:stop]
        had = _of_history(evidence, start, stop, np.column_stack([targets, top]))
        new[start:stop] = ~had[:, 0]
        order = np.sort(np.where(top >= 0, top, -1 - np.arange(top.shape[1])), axis=1)
        twice = (order[:, 1:] == order[:, :-1]).sum(1)
        again[start:stop] = had[:, 1:].sum(1) + twice
    able = new & (size > 0)
    return Found(able & (again >= told.repeated * size), {"again": again, "size": size}, able)


def popularity_bias(evidence: Evidence, told: Thresholds) -> Found:
    """Mostly the most frequent items, for a user whose history is mostly of others and who chose another."""
    head = head_of(evidence.counts, told.head)
    size, top = listed(evidence), evidence.top
    popular = (head[top] & (top >= 0)).sum(1)
    requests = evidence.requests
    asking = np.repeat(np.arange(len(requests)), evidence.lengths)
    had = np.bincount(asking[head[requests.items]], minlength=len(requests))
    able = ~head[requests.targets] & (2 * had <= evidence.lengths) & (size > 0)
    values = {"popular": popular, "size": size, "had": had, "length": evidence.lengths}
    return Found(able & (popular >= told.mostly * size), values, able)


def near_miss(evidence: Evidence, told: Thresholds) -> Found:
    """The target stands in the list, behind the places that a person sees."""
    return Found(evidence.ranks > evidence.k, {"place": evidence.ranks}, evidence.bad)


def unanswered(evidence: Evidence, told: Thresholds) -> Found:
    """The list has fewer items than were asked for."""
    size = listed(evidence)
    return Found(size < evidence.k, {"size": size})


def pruned_by_beam(evidence: Evidence, told: Thresholds) -> Found:
    """The model itself holds the target for better than what its search put into the last place."""
    assert evidence.forced is not None  # what the detector needs
    last = np.where(evidence.top >= 0, evidence.scores[:, : evidence.k], np.inf).min(1)
    asked = evidence.bad & ~np.isnan(evidence.forced) & np.isfinite(last)
    lost = evidence.ranks == 0
    flags = asked & lost & (np.nan_to_num(evidence.forced, nan=-np.inf) > last)
    return Found(flags, {"forced": evidence.forced, "cutoff": last}, asked)


def listed(evidence: Evidence) -> Int64:
    """How many items a person sees: int64 ``[R]``."""
    return np.asarray((evidence.top >= 0).sum(1), np.int64)


def chunks(evidence: Evidence) -> Iterator[tuple[int, int]]:
    """Bounds of requests that are looked at together."""
    for start in range(0, len(evidence), CHUNK):
        yield start, min(start + CHUNK, len(evidence))


def _labels(evidence: Evidence) -> sparse.csr_array:
    assert evidence.labels is not None  # what the detector needs
    return evidence.labels


def _kinds(counted: sparse.csr_array) -> sparse.csr_array:
    counted.eliminate_zeros()
    counted.data = np.ones(len(counted.data), np.int32)
    return counted


def _alike(
    evidence: Evidence, start: int, stop: int, kinds: sparse.csr_array, labels: sparse.csr_array
) -> Int64:
    """How many listed items have one of the request's ``kinds``: int64 ``[stop - start]``."""
    top = evidence.top[start:stop]
    asking = np.repeat(np.arange(len(top)), (top >= 0).sum(1))
    theirs = labels[top[top >= 0]].astype(np.int32)
    shared = np.asarray((theirs.multiply(kinds.astype(np.int32)[asking])).sum(1)).ravel() > 0
    return np.asarray(np.bincount(asking[shared], minlength=len(top)), np.int64)


def _of_history(evidence: Evidence, start: int, stop: int, items: Int32) -> Bools:
    """Whether the request has had each of its ``items`` ``[stop - start, m]``."""
    size = len(evidence.dataset.item_ids)
    part = evidence.requests[start:stop]
    asking = np.repeat(np.arange(len(part), dtype=np.int64), np.diff(part.offsets))
    had = np.append(np.unique(asking * size + part.items), np.iinfo(np.int64).max)
    keys = np.arange(len(items), dtype=np.int64)[:, None] * size + items
    return np.asarray((had[np.searchsorted(had, keys)] == keys) & (items >= 0))


def _follows(evidence: Evidence, told: Thresholds) -> _Follows:
    return evidence.once(("follows", told.window, told.recent), lambda: _Follows(evidence, told))


class _Follows:
    """Who has followed whom in training: the targets and the lists, against recent and earlier items of histories.

    Attributes:
        size: listed items, int64 ``[R]``.
        list_recent: how many of them have followed a recent item.
        target_recent, target_earlier: whether the target has followed a recent item, an earlier one.
    """

    def __init__(self, evidence: Evidence, told: Thresholds) -> None:
        from itemic.evaluate.counting import count_transitions

        counts = count_transitions(evidence.dataset.train, len(evidence.dataset.item_ids), told.window)
        self._size = counts.shape[0]
        rows = np.repeat(np.arange(self._size, dtype=np.int64), np.diff(counts.indptr))
        self._pairs = np.sort(rows * self._size + counts.indices)
        self.size = listed(evidence)
        self.list_recent = np.zeros(len(evidence), np.int64)
        self.target_recent = np.zeros(len(evidence), bool)
        self.target_earlier = np.zeros(len(evidence), bool)
        requests, recent = evidence.requests, told.recent
        for start, stop in chunks(evidence):
            part = requests[start:stop]
            asking = np.repeat(np.arange(len(part)), np.diff(part.offsets))
            from_end = part.offsets[1:][asking] - np.arange(len(part.items))
            hit = self._followed(part.items, part.targets[asking])
            self.target_recent[start:stop] = (
                np.bincount(asking[hit & (from_end <= recent)], minlength=len(part)) > 0
            )
            self.target_earlier[start:stop] = (
                np.bincount(asking[hit & (from_end > recent)], minlength=len(part)) > 0
            )
            self.list_recent[start:stop] = self._listed(
                evidence.top[start:stop], part, asking, from_end <= recent
            )

    def _followed(self, before: Int32, after: Int32) -> Bools:
        keys = before.astype(np.int64) * self._size + after
        at = np.minimum(np.searchsorted(self._pairs, keys), max(len(self._pairs) - 1, 0))
        return np.asarray(self._pairs[at] == keys) if len(self._pairs) else np.zeros(len(keys), bool)

    def _listed(self, top: Int32, part: Requests, asking: Int64, recent: Bools) -> Int64:
        found = np.zeros(top.shape, bool)
        last, owner = part.items[recent], asking[recent]
        for place in range(top.shape[1]):
            shown = top[owner, place]
            hit = self._followed(last, shown) & (shown >= 0)
            found[owner[hit], place] = True
        return np.asarray(found.sum(1), np.int64)

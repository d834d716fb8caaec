"""What the answers to a test task are worth: a value for each request and metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from itemic.control.answers import control_of, padded
from itemic.control.labels import Labels
from itemic.control.metrics import (
    accuracy,
    category_rate_correct,
    correct_count,
    in_history,
    non_existing,
    reclm_category,
    reclm_rate_correct,
    repeating,
    target_category,
)
from itemic.control.questions import Question
from itemic.control.want import Want

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

OBEYED, COUNT, RATE, REACHABLE = "obeyed", "count_correct", "category_rate_correct", "reachable"
RECLM_RATE = "reclm_rate_correct"


def judge(
    asked: Sequence[Question],
    lists: Sequence[Int32],
    labels: Labels,
    cuts: Sequence[int],
    *,
    targets: Int32,
    names: Int64 | None = None,
) -> dict[str, Float64]:
    """Metrics of lists, each float64 ``[R]``; where targets are unknown, accuracy has fewer values.

    ``recall@k``, ``mrr@k``, ``ndcg@k``, ``non_existing@k``, ``repeated@k``, ``in_history@k`` (of what the prompt
    showed), ``count_correct``; under a wanted or unwanted label ``target_category@k``, under a share
    ``category_rate_correct``, and both as RecLM-gen counts them, ``reclm_category@k`` and ``reclm_rate_correct``;
    ``obeyed``: 1 where a list keeps to everything, and ``reachable``: 1 where the item to be found may come, so that no
    list that obeys finds more.

    Args:
        asked: ``R`` questions.
        lists: their answers, rows, -1 for what names no item; empty for one that failed.
        labels: of the catalogue.
        cuts: the k.
        targets: int32 ``[R]``, the item to be found; -1 where it is unknown.
        names: of all items, where some share one: such items are the same.
    """
    meant = [_meant(own, one, names) for one, own in zip(asked, lists, strict=True)]
    items, lengths = padded(meant)
    alike = _alike(labels.items, names)
    same, wanted = alike[items], alike[targets]
    known = targets >= 0
    history = np.zeros(items.shape, np.bool_)
    for row, one in enumerate(asked):
        history[row] = np.isin(same[row], alike[one.shown]) & (items[row] >= 0)
    counts = np.array([one.want.count for one in asked], np.int64)
    found: dict[str, Float64] = {}
    for k in cuts:
        if known.any():
            found |= accuracy(same[known], lengths[known], wanted[known], k)
        found[f"non_existing@{k}"] = non_existing(items, lengths, k)
        found[f"repeated@{k}"] = repeating(same, lengths, k)
        found[f"in_history@{k}"] = in_history(items, lengths, history, k)
    found[COUNT] = correct_count(lengths, counts)
    found |= _compliance(asked, items, same, lengths, labels, cuts)
    found[OBEYED] = np.array([one.terms.kept_by(own) for one, own in zip(asked, meant, strict=True)], float)
    if known.any():
        may = [bool(np.isin(t, alike[one.terms.rows])) for one, t in zip(asked, wanted, strict=True)]
        found[REACHABLE] = np.array(may, float)[known]
    return found


def _compliance(
    asked: Sequence[Question],
    items: Int32,
    same: Int32,
    lengths: Int64,
    labels: Labels,
    cuts: Sequence[int],
) -> dict[str, Float64]:
    found: dict[str, Float64] = {}
    if not asked:
        return found
    first = asked[0].want
    if first.wanted or first.unwanted:
        own = [one.want.wanted or one.want.unwanted for one in asked]
        inside = _inside(own, items, labels)
        for k in cuts:
            found[f"target_category@{k}"] = target_category(
                same, lengths, inside, k, wanted=bool(first.wanted)
            )
            found[f"reclm_category@{k}"] = reclm_category(same, lengths, inside, k)
    if first.shares:
        parts = [one.want.shares[0] for one in asked]
        inside = _inside([(part.label,) for part in parts], items, labels)
        quotas = np.array(
            [
                control_of(Want(count=one.want.count, shares=(part,)))[1]
                for one, part in zip(asked, parts, strict=True)
            ],
            np.int64,
        )
        counts = np.array([one.want.count for one in asked], np.int64)
        found[RATE] = category_rate_correct(same, lengths, inside, parts[0].how, quotas)
        found[RECLM_RATE] = reclm_rate_correct(same, lengths, inside, parts[0].how, quotas, counts)
    return found


def _inside(named: Sequence[Sequence[str]], items: Int32, labels: Labels) -> Bool:
    """bool ``[R, K]``: which entries have any of the labels of their request."""
    found = np.zeros(items.shape, np.bool_)
    for row, own in enumerate(named):
        mask = np.any([labels.mask(labels.number(name)) for name in own], axis=0)
        found[row] = mask[items[row]] & (items[row] >= 0)
    return found


def _alike(count: int, names: Int64 | None) -> Int32:
    """int32 ``[n + 1]``: for each item the first that has its name; the last place is nobody's, and gives -1."""
    first = np.arange(count)
    if names is not None:
        _, place, number = np.unique(names, return_index=True, return_inverse=True)
        first = place[number]
    return np.append(first, -1).astype(np.int32)


def _meant(items: Int32, one: Question, names: Int64 | None) -> Int32:
    """Of items that share a name the one that the terms mean."""
    if names is None or not len(items):
        return items
    rows = one.terms.rows
    order = np.argsort(names[rows], kind="stable")
    own = names[items]
    place = np.minimum(np.searchsorted(names[rows], own, sorter=order), len(rows) - 1)
    there = rows[order[place]]
    return np.where((items >= 0) & (names[there] == own), there, items).astype(np.int32)

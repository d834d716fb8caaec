"""Hard lists out of a ranking: the items that a model thinks most of, among those that may come.

It asks for one item, as rankings do, and takes the best that the terms allow; so it needs no model that was ever taught
a list. What a filter finds further down a ranking is searched for itself, so nothing is lost to the ranking's length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from itemic.control.labelling import pick
from itemic.control.terms import Terms
from itemic.data.sequences import Requests

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Among = Callable[[Requests, int, Sequence[Int32]], tuple[Int32, Float32]]
"""The best ``k`` of the rows that each request may get, int32 and float32 ``[R, k]``; -1 and -inf where they end."""


def ranked_lists(among: Among, requests: Requests, terms: Sequence[Terms]) -> list[Int32]:
    """For each request the list of the highest scores that keeps to its terms, by the rule of
    :mod:`itemic.control.labelling`: place by place the best item with which the list can still be completed.

    Items of every class of the terms are searched for by themselves, as many as the list could have of it.

    Args:
        among: ranks the items that may come.
        requests: ``R`` of them.
        terms: of each.

    Returns:
        rows of each list, int32 ``[count]``. Shorter, and its shares perhaps not met, only where ``among`` gives up on
        items that may come: a request that it can't ask gets an empty list.
    """
    if not terms:
        return []
    classes = max(len(own.quotas.sizes) for own in terms)
    found: list[list[Int32]] = [[] for _ in terms]
    scores: list[list[Float32]] = [[] for _ in terms]
    for kind in range(classes):
        some = [n for n, own in enumerate(terms) if len(own.quotas.sizes) > kind]
        rows = [terms[n].rows[terms[n].classes == kind] for n in some]
        best, worth = among(requests.take(np.array(some)), max(terms[n].count for n in some), rows)
        for n, items, own in zip(some, best, worth, strict=True):
            there = items >= 0
            found[n].append(items[there])
            scores[n].append(own[there])
    return [
        _list(own, np.concatenate(items), np.concatenate(worth))
        for own, items, worth in zip(terms, found, scores, strict=True)
    ]


def _list(terms: Terms, items: Int32, scores: Float32) -> Int32:
    values = np.full(int(max(terms.rows[-1], items.max(initial=0))) + 1, -np.inf, np.float32)
    values[items] = scores
    own = pick(terms, values)
    return own[np.isfinite(values[own])]

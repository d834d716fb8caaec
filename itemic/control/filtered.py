"""The baseline of control: rank as if nothing had been asked, then drop what isn't wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from itemic.control.quotas import Quotas
from itemic.control.terms import Terms

Int32 = npt.NDArray[np.int32]


def post_filter(ranked: Int32, terms: Sequence[Terms]) -> Int32:
    """Lists of what is left of rankings: down a ranking, every item that may come and with which the shares can still
    be met by what stands further down.

    Args:
        ranked: int32 ``[R, K]``, rows, best first; -1 is padding.
        terms: of each request.

    Returns:
        int32 ``[R, n]``, ``n`` the most that any list is to have; -1 behind lists that are shorter, because the ranking
        doesn't reach down to enough items. Of a ranking that can't meet the shares the best of what may come is left,
        without them.
    """
    found = np.full((len(terms), max((own.count for own in terms), default=0)), -1, np.int32)
    for request, own in enumerate(terms):
        kept = _filtered(ranked[request].astype(np.int64), own)
        found[request, : len(kept)] = kept
    return found


def _filtered(ranked: npt.NDArray[np.int64], terms: Terms) -> Int32:
    place = np.minimum(np.searchsorted(terms.rows, ranked), len(terms.rows) - 1)
    there = np.flatnonzero(terms.rows[place] == ranked)
    _, once = np.unique(ranked[there], return_index=True)
    place = place[there[np.sort(once)]]
    rows, classes = terms.rows[place], terms.classes[place]
    # what the ranking holds is all there is
    sizes = np.bincount(classes, minlength=len(terms.quotas.sizes)).astype(np.int64)
    quotas = Quotas(terms.count, terms.quotas.bounds, terms.quotas.member, sizes)
    if not quotas.possible:
        return np.asarray(rows[: terms.count])
    # every item of a class that is still there stands further down, or has been passed by for good: a class that is
    # closed once opens no more, as what it may have only shrinks
    chosen = [0] * len(sizes)
    kept: list[int] = []
    for row, own in zip(rows.tolist(), classes.tolist(), strict=True):
        if len(kept) == terms.count:
            break
        if quotas.open(chosen)[own]:
            chosen[own] += 1
            kept.append(row)
    return np.array(kept, np.int32)

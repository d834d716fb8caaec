"""Histories of other users that are like a given one, and what came next: found in the training sequences alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from itemic.data.sequences import Sequences
from itemic.tasks.windows import gather_windows

Int64 = npt.NDArray[np.int64]

CELLS = 4_000_000  # similarities that are held at once


def similar_places(
    train: Sequences, places: Int64, items: int, *, latest: int = 10, k: int = 3
) -> list[list[int]]:
    """For each place the ``k`` places of other users whose histories are most like the one before it.

    A history is its last ``latest`` items, as a set; histories are as alike as the cosine of their indicator vectors,
    items weighted by ``log((1 + U) / (1 + u_i))`` with ``u_i`` of ``U`` users who had the item in training. Of a user
    the most similar place counts, and of equals the earlier one. Histories that share nothing aren't alike.

    Args:
        train: the training sequences.
        places: int64 ``[R]``, places in ``train.items``; each is the item after a history.
        items: how many there are in the catalogue.
        latest: how much of a history counts.
        k: the most places of an answer.

    Returns:
        ``R`` lists of places in ``train.items``, the most similar first.
    """
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    known = np.flatnonzero(np.arange(len(train.items)) > train.offsets[user])  # what has a history
    weights = _weights(train, user, items)
    all_rows = _vectors(train, known, user, weights, latest)
    found: list[list[int]] = []
    step = max(1, CELLS // max(1, len(known)))
    for start in range(0, len(places), step):
        asked = places[start : start + step]
        alike = (_vectors(train, asked, user, weights, latest) @ all_rows.T).toarray()
        alike[user[known][None, :] == user[asked][:, None]] = 0.0
        found += [_first_of_users(row, known, user, k) for row in alike]
    return found


def _weights(train: Sequences, user: Int64, items: int) -> npt.NDArray[np.float64]:
    pairs = np.unique(user * items + train.items)
    had = np.bincount(pairs % items, minlength=items)
    return np.asarray(np.log((1 + len(train)) / (1 + had)), np.float64)


def _vectors(
    train: Sequences, places: Int64, user: Int64, weights: npt.NDArray[np.float64], latest: int
) -> sparse.csr_array:
    """The history before each place as a row of norm 1, float64 ``[R, n]``; 0 where all users have all of it."""
    start = np.maximum(places - latest, train.offsets[user[places]])
    offsets, items = gather_windows(train.items, start, places)
    rows = np.repeat(np.arange(len(places)), np.diff(offsets))
    pair = np.unique(rows * len(weights) + items)
    row, item = pair // len(weights), pair % len(weights)
    norm = np.sqrt(np.bincount(row, weights[item] ** 2, len(places)))
    value = weights[item] / np.maximum(norm[row], 1e-12)
    return sparse.csr_array((value, (row, item)), shape=(len(places), len(weights)))


def _first_of_users(alike: npt.NDArray[np.float64], known: Int64, user: Int64, k: int) -> list[int]:
    """The ``k`` best places, one a user; the earlier one of equals."""
    some = np.flatnonzero(alike > 0)
    chosen: dict[int, int] = {}
    for place in known[some[np.argsort(-alike[some], kind="stable")]].tolist():
        chosen.setdefault(int(user[place]), place)
        if len(chosen) == k:
            break
    return list(chosen.values())

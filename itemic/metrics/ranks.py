"""Where the target stands in a ranked list: everything else about accuracy follows from this one number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.errors import DataError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def ranks_of(items: Int32, targets: Int32) -> Int64:
    """The place of each request's target in its list.

    Args:
        items: int32 ``[R, K]``, item rows, best first; -1 is padding and matches nothing, but keeps its
            place.
        targets: int32 ``[R]``, item rows.

    Returns:
        int64 ``[R]``: 1 for the best place, 0 where the target is not among the ``K``. An item that stands in
        a list twice counts at its first place.

    Raises:
        DataError: a target is unknown (negative), or the shapes don't fit.

    Example:
        ``ranks_of([[7, 3, -1], [5, 2, 9]], [3, 8])`` is ``[2, 0]``.
    """
    items, targets = _checked(items, targets)
    return _first_match(items == targets[:, None])


def sid_numbers(codes: Int32) -> Int32:
    """A number for each distinct semantic ID: int32 ``[n]`` from codes ``[n, L]``; collisions share one."""
    codes = np.ascontiguousarray(codes)
    if codes.ndim != 2:
        raise DataError(f"codes have shape {codes.shape}", "Give one row of codes for each item.")
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)


def sid_ranks_of(items: Int32, targets: Int32, codes: Int32) -> Int64:
    """The place of each target's semantic ID among the distinct semantic IDs of its list.

    An item that shares the target's SID counts as a hit, and SIDs that come again in a list collapse to their
    first place. This is the level at which MiniOneRec and most papers on generative retrieval count; where
    items collide it flatters, so the item level stands beside it. With collision-free codes both agree.

    Args:
        items: int32 ``[R, K]``, as in :func:`ranks_of`.
        targets: int32 ``[R]``.
        codes: int32 ``[n, L]``, the codes of each item row; or int32 ``[n]`` from :func:`sid_numbers`, which
            spares the sorting of the codes when a ranking is scored part by part.

    Returns:
        int64 ``[R]``: 1-based place, 0 where no item with the target's SID is among the ``K``.

    Raises:
        DataError: a target is unknown, or a row has no codes.

    Example:
        Items 0 and 1 share a SID, 2 has its own: ``sid_ranks_of([[0, 1, 2]], [2], [[4, 4], [4, 4], [5, 5]])``
        is ``[2]`` (three items, two SIDs), and with target 1 it is ``[1]``.
    """
    items, targets = _checked(items, targets)
    numbers = np.asarray(codes) if np.ndim(codes) == 1 else sid_numbers(codes)
    if max(items.max(initial=-1), targets.max(initial=-1)) >= len(numbers):
        raise DataError(
            f"an item row exceeds the {len(numbers)} rows of codes",
            "Score the ranking with the index it was made with.",
        )
    sids = np.where(items >= 0, numbers[items], -1)
    place = _first_match(sids == numbers[targets][:, None])
    hit = np.flatnonzero(place)
    repeats = np.cumsum(_repeated(sids[hit]), axis=1)
    place[hit] -= repeats[np.arange(len(hit)), place[hit] - 1]
    return place


def _checked(items: Int32, targets: Int32) -> tuple[Int32, Int32]:
    items, targets = np.asarray(items), np.asarray(targets)
    if items.ndim != 2 or targets.shape != items.shape[:1]:
        raise DataError(
            f"{items.shape} ranked items don't fit {targets.shape} targets",
            "Give one list and one target per request.",
        )
    unknown = np.flatnonzero(targets < 0)
    if len(unknown):
        raise DataError(
            f"the target of request {unknown[0]} is unknown ({len(unknown)} of {len(targets)} are)",
            "Score a split whose targets are known; leave-last-out's test has predictions only.",
        )
    return items, targets


def _first_match(match: npt.NDArray[np.bool_]) -> Int64:
    if not match.shape[1]:
        return np.zeros(len(match), np.int64)
    return np.where(match.any(axis=1), match.argmax(axis=1) + 1, 0).astype(np.int64)


def _repeated(sids: Int32) -> npt.NDArray[np.bool_]:
    """True where a SID came before in its row; padding repeats nothing."""
    order = np.argsort(sids, axis=1, kind="stable")
    ranked = np.take_along_axis(sids, order, axis=1)
    again = np.zeros(sids.shape, bool)
    again[:, 1:] = (ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)
    result = np.empty_like(again)
    np.put_along_axis(result, order, again, axis=1)
    return result

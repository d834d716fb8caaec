"""Least-cost re-assignment: every item gets a semantic ID of its own.

From the first level down, no prefix may hold more items than there are semantic IDs below it; where one does,
the items that lose least move to their next-best code that has room. On the last level each prefix then has
at most one item per code to place, and a linear assignment finds the exact optimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from itemic.errors import ConfigError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
STAY = 1e-9  # what an item's own code is worth, as a share of the table's largest cost: ties don't move items


def reassign_codes(
    codes: Int32, vectors: Float32, codebooks: Sequence[Float32], taken: Int32 | None = None
) -> Int32:
    """Codes int32 ``[n, L]`` without any collision, as near to ``codes`` as their vectors allow.

    The cost of a code is the squared distance between its codebook row and what the levels before left over
    of the item's vector. Inside a prefix the sum of the last level's costs is the least possible; an item
    whose prefix was overfull is quantized anew below the code that it moved to.

    Args:
        codes: int32 ``[n, L]``.
        vectors: float32 ``[n, d]``.
        codebooks: float32 ``[K_l, d]`` for every level.
        taken: int32 ``[m, L]``, distinct semantic IDs that other items have already and keep.

    Raises:
        ConfigError: there are more items than free semantic IDs.
    """
    sizes = [len(book) for book in codebooks]
    fixed = np.zeros((0, len(sizes)), np.int32) if taken is None else taken
    if len(codes) + len(fixed) > math.prod(sizes):
        others = f" beside {len(fixed)} others" if len(fixed) else ""
        raise ConfigError(
            f"{len(codes)} items don't fit{others} in the {math.prod(sizes)} semantic IDs of the levels {sizes}",
            "Add a level or larger codebooks.",
        )
    codes = codes.copy()
    residual = vectors.astype(np.float32)
    prefix, above = np.zeros(len(codes), np.int64), np.zeros(len(fixed), np.int64)
    for level, book in enumerate(codebooks):
        below = min(math.prod(sizes[level + 1 :]), len(codes) + len(fixed))
        wanted = codes[:, level].astype(np.int64)
        held = above * len(book) + fixed[:, level]
        for rows, room in _crowded(prefix, wanted, held, len(book), below):
            place = _one_each if level == len(codebooks) - 1 else _spill
            codes[rows, level] = place(residual[rows], book, wanted[rows], room)
        moved = codes[:, level] != wanted
        residual = residual - book[codes[:, level]]
        codes[moved, level + 1 :] = _quantize(residual[moved], codebooks[level + 1 :])
        both = np.concatenate([prefix * len(book) + codes[:, level], held])
        number = np.unique(both, return_inverse=True)[1]
        prefix, above = number[: len(codes)], number[len(codes) :]
    return codes


def _crowded(prefix: Int64, code: Int64, held: Int64, size: int, below: int) -> list[tuple[Int64, Int64]]:
    """The rows of each prefix in which some code holds more items than it has room for, and the room of each code.

    ``held`` are the keys ``prefix * size + code`` of items that keep their place; ``below`` semantic IDs begin with
    each prefix and code.
    """
    key, count = np.unique(prefix * size + code, return_counts=True)
    full, full_count = np.unique(held, return_counts=True)
    kept = np.zeros(len(key), np.int64)
    if len(full):
        place = np.minimum(np.searchsorted(full, key), len(full) - 1)
        kept = np.where(full[place] == key, full_count[place], 0)
    hit = np.unique(key[count + kept > below] // size)
    order = np.argsort(prefix, kind="stable")
    start = np.searchsorted(prefix[order], hit, "left")
    stop = np.searchsorted(prefix[order], hit, "right")
    crowded = []
    for number, low, high in zip(hit, start, stop, strict=True):
        room = np.full(size, below, np.int64)
        mine = slice(*np.searchsorted(full, [number * size, (number + 1) * size]))
        room[full[mine] - number * size] -= full_count[mine]
        crowded.append((order[low:high], room))
    return crowded


def _one_each(residual: Float32, book: Float32, own: Int64, room: Int64) -> Int64:
    """The last level: a different code for each item of a prefix, with the least sum of costs."""
    cost = squared_distances(residual, book)
    cost[np.arange(len(own)), own] -= STAY * cost.max()
    cost[:, room < 1] = np.inf
    return np.asarray(linear_sum_assignment(cost)[1], np.int64)


def _spill(residual: Float32, book: Float32, own: Int64, room: Int64) -> Int64:
    """A level above: no code of the prefix keeps more items than it has room for.

    Of each overfull code those items leave that lose least by their best open code. Then, in rounds, each
    open code takes the ones that fit it best, as far as it has room; the others ask for their next-best.
    """
    cost = squared_distances(residual, book)
    code = own.copy()
    count = np.bincount(code, minlength=len(book))
    loss = np.where(count < room, cost, np.inf).min(axis=1) - cost[np.arange(len(own)), own]
    order = np.lexsort((loss, code))
    place = np.arange(len(own)) - np.searchsorted(code[order], code[order])
    leaving = order[place < np.maximum(count - room, 0)[code[order]]]  # those that lose least
    count = np.minimum(count, room)
    while len(leaving):
        open_cost = np.where(count < room, cost[leaving], np.inf)
        best = open_cost.argmin(axis=1)
        order = np.lexsort((open_cost[np.arange(len(leaving)), best], best))
        place = np.arange(len(leaving)) - np.searchsorted(best[order], best[order])
        taken = order[place < (room - count)[best[order]]]
        code[leaving[taken]] = best[taken]
        count += np.bincount(best[taken], minlength=len(book))
        leaving = np.delete(leaving, taken)
    return code


def _quantize(residual: Float32, codebooks: Sequence[Float32]) -> Int32:
    """Plain residual quantization, for the few items that moved."""
    codes = np.zeros((len(residual), len(codebooks)), np.int32)
    for level, book in enumerate(codebooks):
        for rows in np.array_split(np.arange(len(residual)), 1 + len(residual) * len(book) // (1 << 22)):
            codes[rows, level] = squared_distances(residual[rows], book).argmin(axis=1)
        residual = residual - book[codes[:, level]]
    return codes


def squared_distances(residual: Float32, book: Float32) -> Float64:
    """Squared distances float64 ``[m, K]``."""
    centre = book.mean(axis=0)
    x, y = (residual - centre).astype(np.float64), (book - centre).astype(np.float64)
    table = (x**2).sum(axis=1)[:, None] - 2 * (x @ y.T) + (y**2).sum(axis=1)
    return np.asarray(np.maximum(table, 0), np.float64)

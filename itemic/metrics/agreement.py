"""How alike two lists for the same request are: what another seed changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, DataError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
CELLS = 4_000_000  # comparisons of places that one batch may hold


def overlap(first: Int32, second: Int32, k: int) -> Float64:
    """The share of items that the first k places of two lists have in common. float64 ``[R]``.

    Formula: ``|A ∩ B| / max(|A|, |B|)``, A and B the first k items of each. NaN where both are empty.

    Args:
        first: int32 ``[R, K]``, item rows, best first, none twice; -1 is padding.
        second: int32 ``[R, K']``, of the same requests.
        k: how many places count.

    Raises:
        ConfigError: k is below 1.
        DataError: the lists are of different requests.

    Example:
        ``overlap([[1, 2, 3]], [[3, 1, 9]], 3)`` is ``[2 / 3]``.
    """
    common, lengths = _agreement(first, second, k)
    longest = lengths.max(axis=1)
    return np.where(longest > 0, common[:, -1] / np.maximum(longest, 1), np.nan)


def rbo(first: Int32, second: Int32, p: float = 0.9, k: int | None = None) -> Float64:
    """Rank-biased overlap of two lists, extrapolated: 1 where they are the same, 0 where nothing is. float64 ``[R]``.

    Formula, with ``X_d`` the items that the first d of both have in common, s and l the shorter and longer length:
    ``(1-p)/p · (Σ_{d=1}^{l} X_d p^d / d + Σ_{d=s+1}^{l} X_s (d-s) p^d / (s d)) + ((X_l - X_s) / l + X_s / s) p^l``.
    NaN where both lists are empty.

    Args:
        first: int32 ``[R, K]``, as in :func:`overlap`.
        second: int32 ``[R, K']``, of the same requests.
        p: how far down one looks: the first d places hold ``1 - p^(d-1) + …`` of the weight (86 % of the first 10 at
            .9).
        k: cut both lists here.

    Raises:
        ConfigError: p is outside (0, 1), or k below 1.
        DataError: the lists are of different requests.

    Source: Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", TOIS 2010, equation 32.

    Example:
        Two lists with the first two swapped, ``rbo([[1, 2]], [[2, 1]])``: ``X = 0, 2``, so ``.1/.9 · (.9² · 2/2) + 1 ·
        .9² = .9``.
    """
    if not 0 < p < 1:
        raise ConfigError(f"rank-biased overlap with p = {p}", "Give a p between 0 and 1, such as .9.")
    common, lengths = _agreement(first, second, k)
    depth = np.arange(1, common.shape[1] + 1)
    short, long = lengths.min(axis=1), lengths.max(axis=1)
    rows = np.arange(len(common))
    at_short, at_long = (common[rows, np.maximum(n, 1) - 1] for n in (short, long))
    inside = depth <= long[:, None]
    beyond = inside & (depth > short[:, None])
    safe = np.maximum(short, 1)
    seen = np.where(inside, common / depth, 0.0)
    guessed = np.where(beyond, (at_short / safe)[:, None] * (depth - short[:, None]) / depth, 0.0)
    head = (1 - p) / p * ((seen + guessed) * p**depth).sum(axis=1)
    tail = ((at_long - at_short) / np.maximum(long, 1) + at_short / safe) * p ** long.astype(np.float64)
    return np.where(short > 0, np.minimum(head + tail, 1.0), np.where(long > 0, 0.0, np.nan))


def _agreement(first: Int32, second: Int32, k: int | None) -> tuple[Int64, Int64]:
    """Items in common among the first 1, 2, … of both lists, int64 ``[R, depth]``; and lengths, int64 ``[R, 2]``."""
    if k is not None and k < 1:
        raise ConfigError(f"lists compared at k = {k}", "Give a k of 1 or more.")
    first, second = (np.asarray(items)[:, :k] for items in (first, second))
    if len(first) != len(second):
        raise DataError(
            f"{len(first)} lists beside {len(second)}", "Give two lists for each of the same requests."
        )
    depth = max(first.shape[1], second.shape[1], 1)
    counts = np.zeros((len(first), depth), np.int64)
    step = max(1, CELLS // depth**2)
    for start in range(0, len(first), step):
        a, b = first[start : start + step], second[start : start + step]
        rows, i, j = np.nonzero((a[:, :, None] == b[:, None, :]) & (a[:, :, None] >= 0))
        np.add.at(counts, (start + rows, np.maximum(i, j)), 1)
    lengths = [
        np.where((items >= 0).any(axis=1), items.shape[1] - (items[:, ::-1] >= 0).argmax(axis=1), 0)
        if items.shape[1]
        else np.zeros(len(items), np.int64)
        for items in (first, second)
    ]
    return np.cumsum(counts, axis=1), np.stack(lengths, axis=1).astype(np.int64)

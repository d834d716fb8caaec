"""Confidence intervals by bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError

CELLS = 4_000_000  # draws × categories that one batch of counts may hold


def bootstrap(
    values: npt.NDArray[np.float64],
    seed: int = 0,
    draws: int = 1000,
    level: float = 0.95,
    groups: npt.NDArray[np.integer] | None = None,
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of per-request values.

    Whole groups (users) are resampled where they are given, because several requests of one user are not
    independent; otherwise requests are. Instead of drawing ``R`` requests a thousand times, the counts of
    *distinct* outcomes are drawn from their multinomial distribution: the same distribution exactly, and
    since a metric at k takes at most ``k + 1`` values, a million requests cost no more than a hundred.

    Args:
        values: float64 ``[R]``, one metric value per request.
        seed: of the random numbers.
        draws: how many resamples.
        level: the share of the resampled means between the two ends.
        groups: int ``[R]``, the number of the user of each request.

    Returns:
        The lower and upper end.

    Raises:
        ConfigError: no values, shapes that differ, or a level outside (0, 1).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Example:
        A thousand requests of which a hundred hit: ``bootstrap(hits)`` is about ``(.082, .119)``, as the
        normal approximation ``.1 ± 1.96 · sqrt(.1 · .9 / 1000)`` says.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ConfigError("an interval of no values", "Give at least one request.")
    if not 0 < level < 1 or draws < 1:
        raise ConfigError(
            f"a bootstrap at level {level} with {draws} draws", "Give a level such as .95 and draws of 1 up."
        )
    outcomes, counts = _outcomes(values, groups)
    units = int(counts.sum())
    rng = np.random.default_rng(seed)
    batch = max(1, CELLS // len(counts))
    means = np.empty(draws)
    for start in range(0, draws, batch):
        drawn = rng.multinomial(units, counts / units, size=min(batch, draws - start)).astype(np.float64)
        totals = drawn @ outcomes
        means[start : start + batch] = totals[:, 0] / totals[:, 1]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _outcomes(
    values: npt.NDArray[np.float64], groups: npt.NDArray[np.integer] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The distinct (sum of values, requests) that a unit can have ``[V, 2]``, and how many units have it."""
    if groups is None:
        distinct, counts = np.unique(values, return_counts=True)
        return np.stack([distinct, np.ones_like(distinct)], axis=1), counts.astype(np.int64)
    groups = np.asarray(groups)
    if groups.shape != values.shape:
        raise ConfigError(f"{len(groups)} groups for {len(values)} values", "Give the group of each value.")
    number = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(number)
    sums = np.bincount(number, values)
    rows, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    return rows.astype(np.float64), counts.astype(np.int64)

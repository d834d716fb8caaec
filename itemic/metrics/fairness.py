"""Whether groups of requests (or people) are served equally well: from their mean quality."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, DataError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def group_means(values: Float64, groups: npt.NDArray[np.integer]) -> tuple[Float64, Int64]:
    """The mean of each group that has members, by rising number, and how many it has: two arrays ``[G]``.

    Args:
        values: float64 ``[R]``, quality of each request, such as its NDCG.
        groups: int ``[R]``, the number of its group; -1 for none.

    Raises:
        DataError: the shapes differ.

    Example:
        ``group_means([1, 0, 1], [4, 4, 2])`` is ``([1., .5], [1, 2])``.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    if values.shape != groups.shape:
        raise DataError(f"{len(groups)} groups for {len(values)} values", "Give the group of each value.")
    inside = groups >= 0
    number = np.unique(groups[inside], return_inverse=True)[1]
    sizes = np.bincount(number).astype(np.int64)
    return np.bincount(number, values[inside]) / np.maximum(sizes, 1), sizes


def gap(means: Float64) -> float:
    """By how much the best served group is ahead of the worst served: ``max - min``; 0 of fewer than two groups.

    Source: Ekstrand et al., "All the cool kids, how do they fit in?", FAT* 2018 (quality by group of users).

    Example:
        ``gap([.3, .1, .2])`` is .2.
    """
    means = np.asarray(means, np.float64)
    return float(means.max() - means.min()) if len(means) else 0.0


def atkinson(means: Float64, epsilon: float = 0.5) -> float:
    """Atkinson's index of inequality of the groups' means: 0 where all are equal, up to 1.

    Formula: ``1 - (mean of x^(1-ε))^(1/(1-ε)) / mean of x``, and ``1 - geometric mean / mean`` for ``ε = 1``. It is
    the share of quality that one would give up for having it equal. 0 where all means are 0.

    Args:
        means: float64 ``[G]``, not below 0.
        epsilon: how much inequality is minded; with 1 or more a group at 0 makes it 1.

    Raises:
        ConfigError: epsilon is not above 0, or a mean is below 0.

    Source: Atkinson, "On the measurement of inequality", Journal of Economic Theory 1970.

    Example:
        ``atkinson([1, 4])`` is ``1 - ((1 + 2) / 2)² / 2.5 = .1``, and with ``ε = 1`` it is ``1 - 2 / 2.5 = .2``.
    """
    means = np.asarray(means, np.float64)
    if epsilon <= 0 or (len(means) and means.min() < 0):
        raise ConfigError(
            "Atkinson's index of negative means, or at an epsilon of 0", "Give means and an epsilon above 0."
        )
    if not len(means) or not means.sum():
        return 0.0
    if epsilon >= 1 and not means.all():
        return 1.0
    if epsilon == 1:
        equal = np.exp(np.log(means).mean())
    else:
        equal = (means ** (1 - epsilon)).mean() ** (1 / (1 - epsilon))
    return float(np.clip(1 - equal / means.mean(), 0.0, 1.0))

"""Whether a difference between two rankers is more than chance, and how many requests it would take to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from itemic.errors import ConfigError
from itemic.metrics import bootstrap

Float64 = npt.NDArray[np.float64]
POWER = 0.8  # a difference counts as visible where so many comparisons would show it


@dataclass(frozen=True)
class Gain:
    """By how much the first of two is better.

    Attributes:
        value: the mean over requests and seeds of first minus second.
        low, high: its interval.
        p: how likely a difference of at least this size is if there is none, two-sided.
        users_error: standard error by the users who happened to ask.
        seeds_error: standard error by the seeds of training; 0 where there is one of each.
        requests: how many there are.
        degrees: of freedom: few where few seeds vary much.
    """

    value: float
    low: float
    high: float
    p: float
    users_error: float
    seeds_error: float
    requests: int
    degrees: float = 1e9


@dataclass(frozen=True)
class Discordant:
    """McNemar's test: requests that only the first or only the second hits, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Needed:
    """What it takes to see a difference.

    Attributes:
        visible: a true difference of this size would be shown in four of five comparisons like this one.
        requests: about how many requests would show, as often, one that is as large as the measured one; None where
            no number would, because the seeds differ too much or nothing was measured.
    """

    visible: float
    requests: int | None


def gain(
    first: Float64,
    second: Float64,
    users: npt.NDArray[np.integer] | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> Gain:
    """The paired difference of two rankers on the same requests.

    With one seed each the interval is a bootstrap of whole users (:func:`itemic.metrics.bootstrap`), and p comes from
    the standard error by users. With several seeds, two to five of which can't be resampled honestly (an interval by
    resampling three covers the truth in 85 % where seeds matter), the interval is Student's: the variance by users of
    the gains averaged over seeds, plus the variance of the seeds' means, with Satterthwaite's degrees of freedom. Where
    both have as many seeds they are paired by their places, else the seeds of each vary for themselves.

    Args:
        first: float64 ``[S, R]``, a metric of each request under each seed; or ``[R]``.
        second: float64 ``[T, R]`` or ``[R]``.
        users: int ``[R]``, the number of the user of each request; None where each asks once.
        seed: of the bootstrap.
        level: of the interval.

    Raises:
        ConfigError: no requests, other requests, or a level outside (0, 1).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; Satterthwaite, "An approximate distribution
    of estimates of variance components", Biometrics Bulletin 1946; Cameron and Miller, "A practitioner's guide to
    cluster-robust inference", 2015.
    """
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    if first.shape[1] != second.shape[1] or not first.shape[1]:
        raise ConfigError(
            f"{first.shape[1]} requests against {second.shape[1]}", "Compare the same requests, one or more."
        )
    if not 0 < level < 1:
        raise ConfigError(f"intervals at level {level}", "Give a level such as .95.")
    gains = first.mean(axis=0) - second.mean(axis=0)
    value, (by_users, units) = float(gains.mean()), _users_variance(gains, users)
    by_seeds, freedom = _seeds_variance(first, second)
    variance = by_users + by_seeds
    degrees = variance**2 / (by_users**2 / max(units - 1, 1) + freedom) if variance else 1.0
    p = float(2 * stats.t.sf(abs(value) / np.sqrt(variance), degrees)) if variance else float(value == 0)
    if len(first) == len(second) == 1:
        low, high = bootstrap(gains, seed, level=level, groups=users)
    else:
        half = float(stats.t.ppf((1 + level) / 2, degrees) * np.sqrt(variance))
        low, high = value - half, value + half
    errors = float(np.sqrt(by_users)), float(np.sqrt(by_seeds))
    return Gain(value, low, high, p, *errors, len(gains), float(degrees))


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Discordant:
    """McNemar's exact test on hits: of the requests that one alone hits, is a half each side's?

    It takes requests as independent of each other, so it belongs where each user asks once.

    Args:
        first: bool ``[R]``, which requests the first hits.
        second: bool ``[R]``.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 1947;
    exact by the binomial distribution.

    Example:
        1 request that only the first hits and 5 that only the second does: ``p = 2 · (1 + 6) / 2⁶ = .21875``.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    p = 1.0 if not total else min(1.0, float(2 * stats.binom.cdf(min(only_first, only_second), total, 0.5)))
    return Discordant(only_first, only_second, p)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are, so that all are right at once: Holm's step-down method.

    Formula: of ``m`` sorted rising, ``p'_(i) = max over j ≤ i of min(1, (m - j + 1) p_(j))``.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    Example:
        ``holm([.01, .04, .03])`` is ``[.03, .06, .06]``.
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1.0, (len(values) - np.arange(len(values))) * values[order])
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(steps) if len(values) else steps
    return [float(x) for x in corrected]


def needed(found: Gain, *, level: float = 0.95, tests: int = 1, power: float = POWER) -> Needed:
    """What difference these requests could show, and how many it takes for the one that was measured.

    Formula: with ``z = t⁻¹(1 - α / 2 / tests) + Φ⁻¹(power)`` a difference of ``z · error`` is visible, and one of d
    needs ``R · (users_error · z)² / (d² - (seeds_error · z)²)`` requests: more requests make the error by users smaller
    and leave the one by seeds as it is.

    Args:
        found: what was measured.
        level: of the tests, ``1 - α``.
        tests: how many are corrected for (by Bonferroni, which Holm's method begins with).
        power: how often it is to be shown.
    """
    z = float(stats.t.isf((1 - level) / 2 / max(tests, 1), found.degrees) + stats.norm.ppf(power))
    visible = z * float(np.hypot(found.users_error, found.seeds_error))
    room = found.value**2 - (z * found.seeds_error) ** 2
    if room <= 0:
        return Needed(visible, None)
    return Needed(visible, int(np.ceil(found.requests * (z * found.users_error) ** 2 / room)))


def _users_variance(gains: Float64, users: npt.NDArray[np.integer] | None) -> tuple[float, int]:
    """The variance of the mean gain if other users had asked, and how many there are."""
    rest = gains - gains.mean()
    sums = rest if users is None else np.bincount(np.unique(users, return_inverse=True)[1], rest)
    units = len(sums)
    return float((sums**2).sum() / len(gains) ** 2 * units / max(units - 1, 1)), units


def _seeds_variance(first: Float64, second: Float64) -> tuple[float, float]:
    """The variance of the mean gain if other seeds had been drawn, and ``Σ v² / (seeds - 1)`` of its parts."""
    one, two = first.mean(axis=1), second.mean(axis=1)
    sides = [one - two] if len(one) == len(two) else [one, two]
    parts = [(float(means.var(ddof=1)) / len(means), len(means)) for means in sides if len(means) > 1]
    return sum(v for v, _ in parts), sum(v**2 / (seeds - 1) for v, seeds in parts)

"""Whether a pattern goes with failure: its lift with an interval, and what is left of it beside all others."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from itemic.analysis.evidence import Bools, Float64, Int64
from itemic.evaluate.report import Measure

STEPS = 50  # of Newton's method, which takes some five
NEAR = 1e-8
RIDGE = 1e-6  # so that a pattern that all requests show, or none, leaves the others alone


def lift(flags: Bools, bad: Bools, users: Int64 | None, level: float = 0.95) -> Measure | None:
    """The share of ``flags`` among bad cases over that among good ones.

    Its interval is that of a ratio of two proportions on the scale of logarithms (Katz et al. 1978). With ``users``
    the influences of a user's requests are added up before they are squared, since they are not independent. Where a
    share is 0, half a case is added to each of the four counts (Haldane 1956; Anscombe 1956).

    Args:
        flags: bool ``[R]``.
        bad: bool ``[R]``.
        users: int64 ``[R]``, numbers of users who ask more than once; None where nobody does.
        level: of the interval.

    Returns:
        None where there are no bad cases, or no good ones.

    Example:
        30 of 100 bad cases and 10 of 100 good ones: 3, within ``exp(ln 3 ± 1.96 √(1/30 - 1/100 + 1/10 - 1/100))``.
    """
    sizes = np.array([bad.sum(), (~bad).sum()], np.float64)
    if not sizes.all():
        return None
    hits = np.array([(flags & bad).sum(), (flags & ~bad).sum()], np.float64)
    if not hits.all():
        hits, sizes = hits + 0.5, sizes + 1.0
    shares = hits / sizes
    variance = float((1 / hits - 1 / sizes).sum())
    if users is not None and hits.all():
        part = np.where(bad, 1 / sizes[0], 1 / sizes[1]) * np.where(bad, 1.0, -1.0)
        share = np.where(bad, *shares)
        influence = part * (flags - share) / share
        variance = float((np.bincount(users, influence) ** 2).sum())
    middle = float(np.log(shares[0] / shares[1]))
    wide = NormalDist().inv_cdf((1 + level) / 2) * variance**0.5
    return Measure(*(float(np.exp(end)) for end in (middle, middle - wide, middle + wide)))


def odds(
    flags: Mapping[str, Bools], bad: Bools, users: Int64 | None, level: float = 0.95
) -> dict[str, Measure]:
    """By how much each pattern multiplies the odds of failure where the others are held equal.

    A logistic regression of ``bad`` on all patterns, by maximum likelihood; intervals are Wald's, with the covariance
    of White (1982), by user where users ask more than once. Requests with the same patterns count together, so a
    million of them cost as little as their distinct combinations.

    Args:
        flags: bool ``[R]`` by name.
        bad: bool ``[R]``.
        users: int64 ``[R]``; None where nobody asks twice.
        level: of the intervals.

    Returns:
        by name; patterns that all or no requests show are left out.
    """
    names = [name for name, each in flags.items() if 0 < each.sum() < len(each)]
    if not names or not 0 < bad.sum() < len(bad):
        return {}
    columns = [np.ones(len(bad), bool), *(flags[name] for name in names)]
    keys = sum(column.astype(np.int64) << at for at, column in enumerate(columns))
    distinct, first, number = np.unique(keys, return_index=True, return_inverse=True)
    design = np.stack([column[first] for column in columns], axis=1).astype(np.float64)
    asked = np.asarray(np.bincount(number, minlength=len(distinct)), np.float64)
    failed = np.asarray(np.bincount(number, bad, minlength=len(distinct)), np.float64)
    weights = _fit(design, asked, failed)
    chance = _logistic(design @ weights)
    bread = np.linalg.inv(
        (design.T * (asked * chance * (1 - chance))) @ design + RIDGE * np.eye(len(weights))
    )
    meat = _meat(design, chance, number, bad, users)
    errors = np.sqrt(np.diag(bread @ meat @ bread))
    wide = NormalDist().inv_cdf((1 + level) / 2) * errors
    ends = np.exp(np.clip(np.stack([weights, weights - wide, weights + wide], axis=1), -50, 50))
    return {name: Measure(*map(float, ends[at])) for at, name in enumerate(names, 1)}


def _fit(design: Float64, asked: Float64, failed: Float64) -> Float64:
    """Newton's method, halved where it would go too far."""
    weights = np.zeros(design.shape[1])
    best = _likelihood(design, asked, failed, weights)
    for _ in range(STEPS):
        chance = _logistic(design @ weights)
        slope = design.T @ (failed - asked * chance) - RIDGE * weights
        curve = (design.T * (asked * chance * (1 - chance))) @ design + RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curve, slope)
        while True:
            value = _likelihood(design, asked, failed, weights + step)
            if value >= best - NEAR or np.abs(step).max() < NEAR:
                break
            step = step / 2
        weights, best = weights + step, value
        if np.abs(step).max() < NEAR:
            break
    return weights


def _likelihood(design: Float64, asked: Float64, failed: Float64, weights: Float64) -> float:
    odds = design @ weights
    return float((failed * odds - asked * np.logaddexp(0, odds)).sum() - RIDGE / 2 * (weights @ weights))


def _meat(design: Float64, chance: Float64, number: Int64, bad: Bools, users: Int64 | None) -> Float64:
    """The sum of the outer products of each user's (or request's) gradient."""
    rest = bad - chance[number]
    if users is None:
        squares = np.bincount(number, rest**2, minlength=len(design))
        return np.asarray((design.T * squares) @ design)
    people = int(users.max()) + 1
    sums = np.stack(
        [np.bincount(users, rest * column[number], minlength=people) for column in design.T], axis=1
    )
    return np.asarray(sums.T @ sums)


def _logistic(values: Float64) -> Float64:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))

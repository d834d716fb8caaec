"""Tests and intervals against scipy, R's and papers' figures, and against the truth in simulations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from itemic.errors import ConfigError
from itemic.evaluate.significance import Gain, gain, holm, mcnemar, needed
from itemic.metrics import hit_rate, ndcg

COMPARISONS = 1000


def hits_and_ndcg(rng: np.random.Generator, users: Any, shift: float) -> tuple[Any, Any]:
    """Ranks of two rankers: both find the same requests and users hard, the second a little more."""
    count = len(users)
    hard = rng.normal(0, 1, int(users.max()) + 1)[users] + rng.normal(0, 1, count)
    scores = hard + rng.normal(0, 0.8, (2, count)) + np.array([[0.0], [shift]])
    return tuple(np.clip(np.floor(np.exp(2.2 + 1.2 * one)) + 1, 1, 10**6).astype(np.int64) for one in scores)  # type: ignore[return-value]


def truth_of(shift: float, metric: Any, k: int) -> float:
    """The expected gain, from very many requests."""
    first, second = hits_and_ndcg(np.random.default_rng(99), np.arange(2_000_000), shift)
    return float((metric(first, k) - metric(second, k)).mean())


@pytest.mark.parametrize(
    ("metric", "k", "shift", "each"), [(hit_rate, 10, 0.1, 1), (ndcg, 4, 0.1, 1), (hit_rate, 10, 0.0, 4)]
)
def test_intervals_cover_the_truth(metric: Any, k: int, shift: float, each: int) -> None:
    """In 93 to 97 % of 1,000 comparisons of 600 requests; also where users ask several times."""
    truth = truth_of(shift, metric, k) if shift else 0.0
    rng = np.random.default_rng(1)
    covered = significant = 0
    for _ in range(COMPARISONS):
        users = np.sort(rng.integers(0, 600 // each, 600)) if each > 1 else np.arange(600)
        first, second = hits_and_ndcg(rng, users, shift)
        found = gain(metric(first, k), metric(second, k), users if each > 1 else None)
        covered += found.low <= truth <= found.high
        significant += found.p < 0.05
    assert 0.93 <= covered / COMPARISONS <= 0.97
    if not truth:  # p-values are right as often as they say
        assert 0.03 <= significant / COMPARISONS <= 0.07


@pytest.mark.parametrize(("first_seeds", "second_seeds"), [(3, 3), (5, 5), (4, 3)])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
def test_intervals_over_seeds_cover_the_truth(first_seeds: int, second_seeds: int, spread: float) -> None:
    """Whether seeds matter or not; a bootstrap over three seeds that matter covers 85 %."""
    rng = np.random.default_rng(2)
    covered, comparisons, users = 0, 600, 200
    for _ in range(comparisons):
        hard = rng.normal(0, 1, users)
        taste = rng.normal(0, 0.7, (2, users))
        taste -= taste.mean() - rng.normal(0, 0.7 / np.sqrt(2 * users))
        one, two = (
            hard + taste[side] + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.7, (seeds, users))
            for side, seeds in enumerate((first_seeds, second_seeds))
        )
        found = gain(one, two)
        covered += found.low <= 0 <= found.high
    assert 0.92 <= covered / comparisons <= 0.995


def test_resampling_three_seeds_would_not_do() -> None:
    """Why seeds aren't resampled: where they matter, that covers the truth in about 85 %."""
    rng = np.random.default_rng(6)
    ours = theirs = 0
    for _ in range(400):
        gains = rng.normal(0, 0.2, (3, 1)) + rng.normal(0, 0.5, 300) + rng.normal(0, 1, (3, 300))
        found = gain(gains, np.zeros_like(gains))
        ours += found.low <= 0 <= found.high
        users, seeds = (rng.multinomial(n, np.full(n, 1 / n), 200) / n for n in (300, 3))
        low, high = np.quantile(((seeds @ gains) * users).sum(axis=1), [0.025, 0.975])
        theirs += low <= 0 <= high
    assert 0.8 <= theirs / 400 <= 0.9
    assert ours / 400 >= 0.91


def test_one_seed_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random((2, 80))
    expected = stats.ttest_rel(first, second)
    found = gain(first, second)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.value == pytest.approx((first - second).mean())
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.01)
    twice = gain(np.repeat(first, 2), np.repeat(second, 2), np.repeat(np.arange(80), 2))
    assert twice.p == pytest.approx(expected.pvalue)  # a user who asks the same twice tells nothing new


def test_many_users_leave_the_seeds_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    first = np.repeat(rng.normal(0.3, 0.1, (4, 1)), 50, axis=1)
    second = np.repeat(rng.normal(0.2, 0.1, (4, 1)), 50, axis=1)
    assert gain(first, second).p == pytest.approx(stats.ttest_rel(first[:, 0], second[:, 0]).pvalue)
    unpaired = stats.ttest_ind(first[:, 0], second[:3, 0], equal_var=False)
    assert gain(first, second[:3]).p == pytest.approx(unpaired.pvalue)


def test_equal_rankers_do_not_differ() -> None:
    same = np.array([1.0, 0, 1])
    assert gain(same, same) == Gain(0, 0, 0, 1, 0, 0, 3, 1)
    with pytest.raises(ConfigError, match="3 requests against 2"):
        gain(same, same[:2])
    with pytest.raises(ConfigError):
        gain(same[:0], same[:0])
    with pytest.raises(ConfigError, match="level 2"):
        gain(same, same, level=2)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_binomial_test(hits: list[tuple[bool, bool]]) -> None:
    first, second = (np.array([pair[side] for pair in hits], bool) for side in (0, 1))
    found = mcnemar(first, second)
    ours, theirs = sum(a and not b for a, b in hits), sum(b and not a for a, b in hits)
    assert (found.only_first, found.only_second) == (ours, theirs)
    expected = stats.binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    assert found.p == pytest.approx(expected)


def test_mcnemar_by_hand() -> None:
    first = np.array([1, 0, 0, 0, 0, 0, 1, 0], bool)
    second = np.array([0, 1, 1, 1, 1, 1, 1, 0], bool)
    assert mcnemar(first, second).p == 0.21875


def test_holm_by_hand_and_as_r_has_it() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_never_below_p_nor_above_bonferroni(values: list[float]) -> None:
    corrected = np.array(holm(values))
    assert (corrected >= np.array(values)).all()
    assert (corrected <= np.minimum(1, len(values) * np.array(values)) + 1e-12).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


def test_as_many_requests_as_needed_show_the_difference() -> None:
    """In about four of five comparisons of that size."""
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.05, 1, 400), np.zeros(400)
    first += 0.05 - first.mean()
    first *= 1 / first.std()
    takes = needed(gain(first, second)).requests
    assert takes is not None
    true = float(first.mean())
    shown = [stats.ttest_1samp(rng.normal(true, 1, takes), 0).pvalue < 0.05 for _ in range(600)]
    assert 0.75 <= np.mean(shown) <= 0.85


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 20))
def test_what_is_not_shown_takes_more_requests_than_there_are(seed: int, seeds: int, tests: int) -> None:
    rng = np.random.default_rng(seed)
    found = gain(rng.normal(0.1, 1, (seeds, 40)) + rng.normal(0, 0.1, (seeds, 1)), np.zeros((seeds, 40)))
    takes = needed(found, tests=tests)
    if found.p * tests >= 0.05:
        assert takes.requests is None or takes.requests > found.requests
        assert takes.visible > abs(found.value)


def test_what_is_needed_grows_with_what_is_corrected_for() -> None:
    found = Gain(0.001, -0.001, 0.003, 0.3, 0.001, 0.0, 1000)
    one, ten = needed(found), needed(found, tests=10)
    assert one.visible == pytest.approx(0.0028, abs=1e-4)
    assert one.requests == pytest.approx(7850, abs=5)
    assert ten.visible > one.visible
    assert ten.requests is not None
    assert ten.requests > one.requests  # type: ignore[operator]
    assert (
        needed(Gain(0.001, 0, 0, 0.3, 0.001, 0.001, 1000)).requests is None
    )  # the seeds differ more than that
    assert needed(Gain(0.0, 0, 0, 1, 0.001, 0, 1000)).requests is None

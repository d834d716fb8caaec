from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats.contingency import relative_risk
from sklearn.linear_model import LogisticRegression

from itemic.analysis.lift import lift, odds


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 40), st.integers(0, 40))
def test_lift_is_scipys_relative_risk(bad_yes: int, bad_no: int, good_yes: int, good_no: int) -> None:
    flags = np.repeat([True, False, True, False], [bad_yes, bad_no, good_yes, good_no])
    bad = np.repeat([True, True, False, False], [bad_yes, bad_no, good_yes, good_no])
    found = lift(flags, bad, None)
    exact = relative_risk(bad_yes, bad_yes + bad_no, good_yes, good_yes + good_no)
    interval = exact.confidence_interval(0.95)
    assert found is not None
    assert found.value == pytest.approx(exact.relative_risk)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_lift_of_an_empty_share_gets_half_a_case() -> None:
    flags, bad = np.array([True, True, False, False]), np.array([True, True, False, False])
    found = lift(flags, bad, None)
    assert found is not None
    assert found.value == pytest.approx((2.5 / 3) / (0.5 / 3))


def test_there_is_no_lift_where_all_cases_are_bad() -> None:
    assert lift(np.array([True, False]), np.array([True, True]), None) is None


def test_a_user_who_asks_ten_times_counts_once() -> None:
    rng = np.random.default_rng(0)
    flags, bad = rng.random(300) < 0.4, rng.random(300) < 0.5
    alone = lift(flags, bad, None)
    tenfold = lift(np.repeat(flags, 10), np.repeat(bad, 10), np.repeat(np.arange(300), 10))
    assert alone is not None
    assert tenfold is not None
    assert (tenfold.value, tenfold.low, tenfold.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_lifts_cover_the_truth() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(1000):
        bad = rng.random(400) < 0.6
        flags = rng.random(400) < np.where(bad, 0.3, 0.2)
        found = lift(flags, bad, None)
        assert found is not None
        inside += found.low <= 1.5 <= found.high
    assert 930 <= inside <= 970


def test_odds_are_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    first = rng.random(3000) < 0.3
    second = rng.random(3000) < np.where(first, 0.7, 0.1)  # they go together
    third = rng.random(3000) < 0.5
    bad = rng.random(3000) < 1 / (1 + np.exp(-(-0.5 + 1.2 * first + 0.4 * third)))
    flags = {"first": first, "second": second, "third": third}
    found = odds(flags, bad, None)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.stack(list(flags.values()), axis=1), bad
    )
    values = [found[name].value for name in flags]
    assert values == pytest.approx(np.exp(theirs.coef_[0]), rel=1e-3)
    assert found["first"].low > 1
    assert found["second"].low < 1 < found["second"].high  # goes with the first, and does nothing
    raw = lift(second, bad, None)
    assert raw is not None
    assert raw.low > 1  # which is why its lift alone would mislead


def test_odds_intervals_cover_the_truth() -> None:
    rng, inside = np.random.default_rng(3), 0
    for _ in range(400):
        first, second = rng.random(800) < 0.4, rng.random(800) < 0.5
        bad = rng.random(800) < 1 / (1 + np.exp(-(0.2 + 0.7 * first - 0.3 * second)))
        found = odds({"first": first, "second": second}, bad, None)["first"]
        inside += found.low <= np.exp(0.7) <= found.high
    assert 370 <= inside <= 390


def test_odds_by_user_are_as_wide_as_those_of_one_request_each() -> None:
    rng = np.random.default_rng(4)
    first, bad = rng.random(500) < 0.4, rng.random(500) < 0.5
    alone = odds({"first": first}, bad, None)["first"]
    users = np.repeat(np.arange(500), 5)
    fivefold = odds({"first": np.repeat(first, 5)}, np.repeat(bad, 5), users)["first"]
    assert (fivefold.low, fivefold.high) == pytest.approx((alone.low, alone.high), rel=1e-5)


def test_patterns_that_say_nothing_are_left_out() -> None:
    bad = np.array([True, False] * 20)
    assert odds({"all": np.ones(40, bool), "none": np.zeros(40, bool)}, bad, None) == {}

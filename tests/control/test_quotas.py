"""Shares of a list against all lists."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.control import quotas
from itemic.control.quotas import Quotas, solvable
from itemic.control.want import PartOf


@st.composite
def problems(draw: st.DrawFn) -> Quotas:
    shares = draw(st.integers(0, 3))
    kinds = draw(st.sets(st.integers(0, 2**shares - 1), min_size=1, max_size=5))
    member = np.array([[kind >> at & 1 for at in range(shares)] for kind in sorted(kinds)], np.bool_)
    member = member.reshape(len(kinds), shares)
    sizes = np.array([draw(st.integers(0, 3)) for _ in kinds], np.int64)
    count = draw(st.integers(1, 4))
    lows = [draw(st.integers(0, count)) for _ in range(shares)]
    bounds = [(low, draw(st.integers(low, count))) for low in lows]
    return Quotas(count, np.array(bounds, np.int64).reshape(-1, 2), member, sizes)


def solutions(problem: Quotas) -> list[tuple[int, ...]]:
    """All numbers of each class that make up a list."""
    found = []
    for some in product(*(range(size + 1) for size in problem.sizes.tolist())):
        there = np.array(some) @ problem.member
        if sum(some) == problem.count and all(
            low <= own <= high for own, (low, high) in zip(there, problem.bounds, strict=True)
        ):
            found.append(some)
    return found


@settings(max_examples=300, deadline=None)
@given(problems(), st.integers(0, 2**30))
def test_what_may_come_next_is_what_a_whole_list_begins_with(problem: Quotas, seed: int) -> None:
    whole = solutions(problem)
    assert problem.possible == bool(whole)
    chosen = np.zeros(len(problem.sizes), np.int64)
    rng = np.random.default_rng(seed)
    while whole and chosen.sum() < problem.count:
        after = chosen + np.eye(len(chosen), dtype=np.int64)
        wanted = [any((np.array(some) >= own).all() for some in whole) for own in after]
        assert problem.open(chosen.tolist()).tolist() == wanted
        chosen = after[rng.choice(np.flatnonzero(wanted))]


@settings(max_examples=100, deadline=None)
@given(problems())
def test_a_solver_says_the_same(problem: Quotas) -> None:
    low, high = problem.bounds.T
    own = (problem.member, problem.sizes, low, high, problem.count)
    assert quotas._by_solver(*own) == solvable(*own)


def test_many_overlapping_shares_of_a_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a hundred of each of four labels that all overlap: too many numbers to try."""
    member = np.array([[kind >> at & 1 for at in range(4)] for kind in range(16)], np.bool_)
    bounds, sizes = np.full((4, 2), 50), np.full(16, 40)
    assert Quotas(100, bounds, member, sizes).possible
    asked = []
    monkeypatch.setattr(quotas, "_by_solver", lambda *own: asked.append(own) or True)
    assert Quotas(100, bounds, member, sizes).possible
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("how", "portion", "count", "bounds"),
    [
        ("at most", 0.25, 10, (0, 2)),
        ("at least", 0.25, 10, (3, 10)),
        ("about", 0.25, 10, (2, 3)),
        ("about", 0.3, 10, (3, 3)),
        ("at most", 0.3, 10, (0, 3)),
        ("at least", 0.3, 10, (3, 10)),
        ("at most", 0.7, 10, (0, 7)),
        ("at least", 0.07, 100, (7, 100)),
        ("about", 1 / 3, 7, (2, 2)),
        ("about", 0.0, 1, (0, 0)),
        ("about", 0.5, 1, (0, 1)),
        ("at least", 1.0, 5, (5, 5)),
    ],
)
def test_bounds_of_a_share(how: str, portion: float, count: int, bounds: tuple[int, int]) -> None:
    assert PartOf("Drama", how, portion).bounds(count) == bounds  # type: ignore[arg-type]

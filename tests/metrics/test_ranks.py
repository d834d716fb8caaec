from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import DataError
from itemic.metrics import ranks_of, sid_numbers, sid_ranks_of


def slow_rank(row: list[int], target: int) -> int:
    return next((place for place, item in enumerate(row, 1) if item == target), 0)


def slow_sid_rank(row: list[int], target: int, codes: np.ndarray) -> int:
    seen: list[object] = []
    for place, item in enumerate(row):
        sid: object = ("padding", place) if item < 0 else tuple(codes[item])
        if sid not in seen:
            seen.append(sid)
    wanted = tuple(codes[target])
    return seen.index(wanted) + 1 if wanted in seen else 0


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 8))
    shape = (draw(st.integers(1, 6)), draw(st.integers(0, 9)))
    size = shape[0] * shape[1]
    flat = draw(st.lists(st.integers(-1, n - 1), min_size=size, max_size=size))
    targets = draw(st.lists(st.integers(0, n - 1), min_size=shape[0], max_size=shape[0]))
    codes = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=n, max_size=n))
    return np.array(flat, np.int32).reshape(shape), np.array(targets, np.int32), np.array(codes, np.int32)


def test_worked_examples() -> None:
    assert ranks_of(np.array([[7, 3, -1], [5, 2, 9]]), np.array([3, 8])).tolist() == [2, 0]
    codes = np.array([[4, 4], [4, 4], [5, 5]])
    assert sid_ranks_of(np.array([[0, 1, 2]]), np.array([2]), codes).tolist() == [2]
    assert sid_ranks_of(np.array([[0, 1, 2]]), np.array([1]), codes).tolist() == [1]


@given(rankings())
@settings(deadline=None)
def test_ranks_equal_a_plain_loop(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    items, targets, codes = case
    rows = list(zip(items.tolist(), targets.tolist(), strict=True))
    assert ranks_of(items, targets).tolist() == [slow_rank(row, target) for row, target in rows]
    expected = [slow_sid_rank(row, target, codes) for row, target in rows]
    assert sid_ranks_of(items, targets, codes).tolist() == expected
    assert sid_ranks_of(items, targets, sid_numbers(codes)).tolist() == expected


@given(rankings())
@settings(max_examples=50, deadline=None)
def test_sid_level_never_ranks_worse_than_item_level(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    items, targets, codes = case
    item, sid = ranks_of(items, targets), sid_ranks_of(items, targets, codes)
    found = item > 0
    assert (sid[found] >= 1).all()
    assert (sid[found] <= item[found]).all()


@given(st.permutations(range(6)), st.integers(0, 5))
@settings(deadline=None)
def test_both_levels_agree_without_collisions(order: list[int], target: int) -> None:
    codes = np.stack([np.arange(6) // 3, np.arange(6) % 3], axis=1)
    items, targets = np.array([order[:4]]), np.array([target])
    assert (ranks_of(items, targets) == sid_ranks_of(items, targets, codes)).all()


def test_an_unknown_target_is_refused_by_its_number() -> None:
    with pytest.raises(DataError, match="request 1 is unknown"):
        ranks_of(np.array([[1, 2], [3, 4]]), np.array([1, -1]))


def test_an_item_without_codes_is_refused() -> None:
    with pytest.raises(DataError, match="2 rows of codes"):
        sid_ranks_of(np.array([[0, 5]]), np.array([0]), np.zeros((2, 3), np.int32))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="don't fit"):
        ranks_of(np.array([[1, 2]]), np.array([1, 2]))

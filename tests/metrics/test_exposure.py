from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import ConfigError, DataError
from itemic.metrics import coverage, entropy, exposure, gini, validity


def test_exposure_counts_the_first_k_and_adds_up_over_parts() -> None:
    items = np.array([[0, 1, 2], [1, -1, -1], [1, 0, 3]])
    assert exposure(items, 5, 2).tolist() == [2, 3, 0, 0, 0]
    assert (exposure(items[:1], 5, 2) + exposure(items[1:], 5, 2) == exposure(items, 5, 2)).all()


def test_hand_computed() -> None:
    assert coverage(np.array([3, 0, 1, 0])) == 0.5
    assert gini(np.array([0, 0, 0, 4])) == 0.75
    assert gini(np.array([5, 5, 5])) == 0
    assert entropy(np.array([2, 2, 0, 0])) == pytest.approx(0.5)
    assert validity(np.array([[4, 2, -1, -1], [4, 9, 1, 0]]), 5).tolist() == [0.5, 0.75]
    assert validity(np.array([[4, 2, -1, -1]]), 5, k=2).tolist() == [1]


def test_nothing_shown() -> None:
    none = np.zeros(4, np.int64)
    assert (coverage(none), gini(none), entropy(none)) == (0, 0, 0)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(any))
@settings(deadline=None)
def test_gini_equals_the_mean_difference(counts: list[int]) -> None:
    values = np.array(counts)
    pairs = np.abs(values[:, None] - values[None]).mean()
    assert gini(values) == pytest.approx(pairs / (2 * values.mean()))
    assert 0 <= entropy(values) <= 1 + 1e-12


def test_rows_outside_the_catalogue_and_bad_k_are_refused() -> None:
    with pytest.raises(DataError, match="item row 7"):
        exposure(np.array([[7]]), 5, 1)
    with pytest.raises(ConfigError):
        exposure(np.array([[1]]), 5, 0)
    with pytest.raises(ConfigError):
        validity(np.zeros((2, 0), np.int32), 5)

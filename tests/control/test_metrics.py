"""Metrics of control by hand; failures stay in the denominator."""

from __future__ import annotations

import numpy as np
import pytest

from itemic.control.answers import padded
from itemic.control.metrics import (
    accuracy,
    category_rate_correct,
    correct_count,
    in_history,
    non_existing,
    reclm_category,
    reclm_rate_correct,
    repeating,
    target_category,
)
from itemic.errors import ConfigError

LISTS = [[7, -1, 3, 3], [3], [], [5, 6, 7, 8, 9]]
ITEMS, LENGTHS = padded(LISTS)


def test_accuracy_counts_places_and_failures() -> None:
    found = accuracy(ITEMS, LENGTHS, np.array([3, 3, 3, 9], np.int32), 3)
    assert found["recall@3"].tolist() == [1, 1, 0, 0]
    assert found["mrr@3"].tolist() == pytest.approx([1 / 3, 1, 0, 0])
    assert found["ndcg@3"].tolist() == [0.5, 1, 0, 0]
    assert accuracy(ITEMS, LENGTHS, np.full(4, -1, np.int32), 5)["recall@5"].tolist() == [0] * 4
    assert accuracy(ITEMS, LENGTHS, np.array([3, 3, 3, 9], np.int32), 5)["recall@5"].mean() == 0.75
    with pytest.raises(ConfigError, match="k = 0"):
        accuracy(ITEMS, LENGTHS, np.zeros(4, np.int32), 0)


def test_shares_of_entries() -> None:
    assert correct_count(LENGTHS, np.array([4, 2, 1, 5])).tolist() == [1, 0, 0, 1]
    assert non_existing(ITEMS, LENGTHS, 4).tolist() == [1 / 4, 0, 1, 0]
    assert non_existing(ITEMS, LENGTHS, 2).tolist() == [1 / 2, 0, 1, 0]
    assert repeating(ITEMS, LENGTHS, 4).tolist() == [1 / 4, 0, 1, 0]
    assert repeating(ITEMS, LENGTHS, 3).tolist() == [0, 0, 1, 0]
    assert in_history(ITEMS, LENGTHS, ITEMS == 3, 4).tolist() == [1 / 2, 1, 1, 0]


def test_labels() -> None:
    inside = np.isin(ITEMS, [3, 5, 6])
    assert target_category(ITEMS, LENGTHS, inside, 4, wanted=True).tolist() == [1 / 4, 1, 0, 1 / 2]
    assert target_category(ITEMS, LENGTHS, inside, 4, wanted=False).tolist() == [1 / 2, 1, 1, 1 / 2]
    two = np.full(4, 2)
    assert category_rate_correct(ITEMS, LENGTHS, inside, "at most", two).tolist() == [1, 1, 0, 1]
    assert category_rate_correct(ITEMS, LENGTHS, inside, "at least", two).tolist() == [0, 0, 0, 1]
    assert category_rate_correct(ITEMS, LENGTHS, inside, "about", two).tolist() == [1, 1, 0, 1]
    assert category_rate_correct(ITEMS, LENGTHS, inside, "about", two, slack=0).tolist() == [0, 0, 0, 1]
    assert category_rate_correct(ITEMS, LENGTHS, inside, "at most", two - 1).tolist() == [0, 1, 0, 0]
    nothing = np.zeros(4, np.int64)
    assert category_rate_correct(ITEMS, LENGTHS, inside & False, "at most", nothing).tolist() == [1, 1, 0, 1]
    with pytest.raises(ConfigError, match="at most, at least, about"):
        category_rate_correct(ITEMS, LENGTHS, inside, "LP", two)


def test_labels_as_reclm_counts_them() -> None:
    """By hand from its ``utils/metrics.py``: what comes again counts, what is unknown counts towards an upper limit."""
    inside, counts = np.isin(ITEMS, [3, 5, 6]), np.full(4, 4)
    assert reclm_category(ITEMS, LENGTHS, inside, 4).tolist() == [1 / 2, 1, 0, 1 / 2]
    two = np.full(4, 2)
    assert reclm_rate_correct(ITEMS, LENGTHS, inside, "at least", two, counts).tolist() == [1, 0, 0, 1]
    assert reclm_rate_correct(ITEMS, LENGTHS, inside, "at most", two, counts).tolist() == [0, 1, 0, 1]
    assert reclm_rate_correct(ITEMS, LENGTHS, inside, "about", two + 1, counts).tolist() == [1, 0, 0, 1]
    assert reclm_rate_correct(ITEMS, LENGTHS, inside, "at least", two, counts - 1).tolist() == [0, 0, 0, 1]
    with pytest.raises(ConfigError, match="at most, at least, about"):
        reclm_rate_correct(ITEMS, LENGTHS, inside, "EP", two, counts)

"""Metrics beyond accuracy, against RecTools' own figures, slow loops, and the papers' examples."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import entropy as kl

from itemic.errors import ConfigError, DataError
from itemic.metrics import (
    atkinson,
    calibration,
    gap,
    gini,
    group_means,
    intra_list_distance,
    novelty,
    overlap,
    popularity,
    rbo,
    serendipity,
)

RECTOOLS = json.loads(Path(__file__).with_name("rectools_figures.json").read_text(encoding="utf-8"))
K = 4


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """RecTools' small lists as our arrays, with its figures; ``rectools_figures.py`` made them."""
    items = np.array([one + [-1] * (K - len(one)) for one in RECTOOLS["lists"]], np.int32)
    seen = np.bincount(np.concatenate(RECTOOLS["seen"]), minlength=9)
    targets = np.array(RECTOOLS["targets"], np.int32)
    figures = {name: np.array(value) for name, value in RECTOOLS.items() if name not in ("lists", "seen")}
    return figures | {"items": items, "counts": seen, "targets": targets, "total": len(RECTOOLS["seen"])}


def test_equal_to_rectools(theirs: dict[str, Any]) -> None:
    items, counts = theirs["items"], theirs["counts"]
    near = {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(popularity(items, K, counts), theirs["popularity"], **near)
    np.testing.assert_allclose(novelty(items, K, counts, theirs["total"]), theirs["novelty"], **near)
    np.testing.assert_allclose(
        serendipity(items, theirs["targets"], K, counts), theirs["serendipity"], **near
    )
    np.testing.assert_allclose(intra_list_distance(items, K, theirs["vectors"]), theirs["cosine"], **near)
    hot = np.eye(3)[theirs["label"]]  # two columns differ where two labels do
    for features in (hot, sparse.csr_array(hot.astype(bool))):
        np.testing.assert_allclose(2 * intra_list_distance(items, K, features), theirs["hamming"], **near)


def test_hand_computed() -> None:
    assert popularity(np.array([[0, 2]]), 2, np.array([4, 1, 0])).tolist() == [2]
    assert novelty(np.array([[0, 1]]), 2, np.array([3, 1, 0]), 3)[0] == pytest.approx(np.log2(3) / 2)
    found = serendipity(np.array([[2, 0]]), np.array([2]), 2, np.array([3, 2, 0, 0]))
    assert found.tolist() == [0.5]
    assert intra_list_distance(np.array([[0, 1, 2]]), 3, [[1, 0], [1, 0], [0, 1]])[0] == pytest.approx(2 / 3)
    assert group_means(np.array([1.0, 0, 1, 9]), np.array([4, 4, 2, -1]))[0].tolist() == [1, 0.5]
    assert gap(np.array([0.3, 0.1, 0.2])) == pytest.approx(0.2)
    assert atkinson(np.array([1.0, 4])) == pytest.approx(0.1)
    assert atkinson(np.array([1.0, 4]), 1) == pytest.approx(0.2)
    assert atkinson(np.array([0.0, 4]), 1) == 1
    assert overlap(np.array([[1, 2, 3]]), np.array([[3, 1, 9]]), 3)[0] == pytest.approx(2 / 3)
    assert rbo(np.array([[1, 2]]), np.array([[2, 1]]))[0] == pytest.approx(0.9)


def test_steck_s_example_of_romances_and_thrillers() -> None:
    """Seven romances and three thrillers were watched; the list has romances only."""
    labels = np.repeat(np.eye(2), 10, axis=0)
    history = np.zeros((1, 20))
    history[0, [*range(7), 10, 11, 12]] = 1
    romances = np.arange(10)[None].astype(np.int32)
    expected = 0.7 * np.log(0.7 / 0.997) + 0.3 * np.log(0.3 / 0.003)
    assert calibration(sparse.csr_array(history), romances, 10, labels)[0] == pytest.approx(expected)
    even = np.array([[*range(7), 10, 11, 12]], np.int32)
    assert calibration(sparse.csr_array(history), even, 10, labels)[0] == pytest.approx(0, abs=1e-12)


def test_empty_lists_and_items_without_labels() -> None:
    nothing = np.full((1, 3), -1, np.int32)
    counts = np.array([2, 1])
    assert np.isnan(popularity(nothing, 3, counts)).all()
    assert np.isnan(novelty(nothing, 3, counts, 2)).all()
    assert serendipity(nothing, np.array([0]), 3, counts).tolist() == [0]
    assert np.isnan(overlap(nothing, nothing, 3)).all()
    assert np.isnan(rbo(nothing, nothing)).all()
    assert rbo(nothing, np.array([[0, 1, -1]])).tolist() == [0]
    labels = np.array([[1, 0], [0, 0]])
    assert np.isnan(intra_list_distance(np.array([[0, 1]]), 2, labels)).all()
    history = sparse.csr_array(np.array([[0.0, 1.0]]))
    assert np.isnan(calibration(history, np.array([[0]]), 1, labels)).all()


def test_what_makes_no_sense_is_refused() -> None:
    items = np.array([[3]])
    with pytest.raises(DataError, match="item row 3"):
        popularity(items, 1, np.array([1, 1]))
    for wrong in (
        lambda: popularity(items, 0, np.ones(4)),
        lambda: novelty(items, 1, np.ones(4, np.int64), 0),
        lambda: intra_list_distance(items, 0, np.eye(4)),
        lambda: calibration(sparse.eye_array(4), items, 1, np.eye(4), alpha=0),
        lambda: atkinson(np.array([-1.0])),
        lambda: rbo(items, items, p=1),
        lambda: overlap(items, items, 0),
    ):
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(DataError, match="2 groups"):
        group_means(np.ones(3), np.ones(2, int))
    with pytest.raises(DataError, match="1 lists beside 2"):
        overlap(items, np.ones((2, 1), int), 1)


lists = st.lists(
    st.tuples(
        st.lists(st.integers(0, 7), max_size=5, unique=True),
        st.lists(st.integers(0, 7), max_size=5, unique=True),
    ),
    min_size=1,
    max_size=4,
)


def padded(rows: list[list[int]], width: int = 5) -> Any:
    return np.array([row + [-1] * (width - len(row)) for row in rows], np.int32)


def slow_rbo(a: list[int], b: list[int], p: float) -> float:
    """Equation 32 of the paper, word for word."""
    short, long = sorted((a, b), key=len)
    s, n = len(short), len(long)
    if not n:
        return float("nan")
    if not s:
        return 0.0
    x = {d: len(set(short[:d]) & set(long[:d])) for d in range(1, n + 1)}
    seen = sum(x[d] / d * p**d for d in range(1, n + 1))
    guessed = sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * (seen + guessed) + ((x[n] - x[s]) / n + x[s] / s) * p**n


@given(lists, st.sampled_from([0.5, 0.9, 0.98]))
def test_agreement_equals_slow_loops(pairs: list[tuple[list[int], list[int]]], p: float) -> None:
    first, second = padded([a for a, _ in pairs]), padded([b for _, b in pairs])
    expected = [slow_rbo(a, b, p) for a, b in pairs]
    np.testing.assert_allclose(rbo(first, second, p), expected, atol=1e-12)
    np.testing.assert_allclose(rbo(second, first, p), expected, atol=1e-12)
    same = [len({*a[:3]} & {*b[:3]}) / max(len(a[:3]), len(b[:3])) if a or b else np.nan for a, b in pairs]
    np.testing.assert_allclose(overlap(first, second, 3), same)
    alone = rbo(first, first, p)
    assert all(
        np.isnan(x) if not a else x == pytest.approx(1) for x, (a, _) in zip(alone, pairs, strict=True)
    )


tables = st.integers(0, 2**32 - 1)


@given(tables)
def test_lists_equal_slow_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random((8, 3)) < 0.4
    items = padded([rng.permutation(8)[: rng.integers(0, 6)].tolist() for _ in range(5)])
    history = rng.integers(0, 3, (5, 8))
    apart = intra_list_distance(items, 4, sparse.csr_array(labels))
    far = calibration(sparse.csr_array(history), items, 4, sparse.csr_array(labels))
    for request, row in enumerate(items[:, :4].tolist()):
        real = [i for i in row if i >= 0 and labels[i].any()]
        units = {i: labels[i] / np.linalg.norm(labels[i]) for i in real}
        pairs = [1 - units[i] @ units[j] for i, j in combinations(real, 2)]
        assert apart[request] == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)
        share = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1)
        p, q = history[request] @ share, share[real].sum(axis=0)
        if p.sum() and q.sum():
            p, q = p / p.sum(), q / q.sum()
            assert far[request] == pytest.approx(kl(p, 0.99 * q + 0.01 * p), abs=1e-9)
        else:
            assert np.isnan(far[request])
    assert (far[~np.isnan(far)] >= -1e-12).all()
    assert (apart[~np.isnan(apart)] <= 1 + 1e-12).all()


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=9))
def test_inequality_is_nothing_of_equals_and_ignores_units(means: list[float]) -> None:
    values = np.array(means)
    for index in (atkinson, gini, lambda x: atkinson(x, 1), lambda x: atkinson(x, 2)):
        assert index(np.full(4, means[0])) == pytest.approx(0, abs=1e-9)
        assert index(values * 7) == pytest.approx(index(values), abs=1e-9)
        assert 0 <= index(values) <= 1
    assert gap(values) >= 0


@given(tables)
def test_rarer_is_more_novel_and_less_popular(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = np.sort(rng.integers(0, 50, 6))[::-1]
    items = np.arange(6)[:, None].astype(np.int32)
    assert (np.diff(novelty(items, 1, counts, 60)) >= 0).all()
    assert (np.diff(popularity(items, 1, counts)) <= 0).all()
    found = serendipity(items, np.arange(6).astype(np.int32), 1, counts)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()

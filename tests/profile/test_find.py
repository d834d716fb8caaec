"""The search against a dense table in numpy, against scikit-learn and, where it is there, faiss; memory; faults."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from itemic.errors import ConfigError, DataError
from itemic.profile.find import Found, ItemVectors
from itemic.profile.settings import FindSettings
from itemic.teacher.rows import ItemRows

SMALL = FindSettings(profiles_per_block=3, items_per_block=7)


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def rows_of(rows: list[list[int]]) -> ItemRows:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return ItemRows(np.array([item for row in rows for item in row], np.int32), offsets)


def dense(
    profiles: np.ndarray,
    items: np.ndarray,
    k: int,
    targets: np.ndarray,
    seen: list[list[int]],
    findable: np.ndarray,
) -> Found:
    """One profile at a time, all scores in float64, sorted by score and row."""
    lists = np.full((len(profiles), k), -1, np.int32)
    best = np.full((len(profiles), k), -np.inf)
    ranks, near = np.zeros(len(profiles), np.int64), np.zeros(len(profiles))
    for row, profile in enumerate(profiles):
        scores = np.array(
            [float((profile.astype(np.float64) * item).sum()) for item in items.astype(np.float64)]
        )
        near[row] = scores[targets[row]]
        allowed = [item for item in range(len(items)) if findable[item] and item not in seen[row]]
        order = sorted(allowed, key=lambda item: (-scores[item], item))
        lists[row, : len(order[:k])] = order[:k]
        best[row, : len(order[:k])] = scores[order[:k]]
        ranks[row] = order.index(targets[row]) + 1 if targets[row] in order else 0
    return Found(lists, best, ranks, near)


def case(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[int]], np.ndarray]:
    """Ten profiles, 60 items, targets, what was seen, what can be found."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 40))
    profiles, items = rng.normal(size=(10, width)), rng.normal(size=(60, width))
    if kind == "ties":  # every item several times, a profile of zeros, one that is everybody's opposite
        items = items[rng.integers(0, 9, 60)]
        profiles[0] = 0
        profiles[1] = -items[4]
    if kind == "near":  # closer to each other than float32 can add up
        items = items[:1] + rng.normal(size=items.shape) * 1e-7
    if kind == "lengths":
        items *= 10.0 ** rng.integers(-4, 4, (60, 1))
    seen = [rng.choice(60, rng.integers(0, 8), replace=False).tolist() for _ in range(10)]
    findable = rng.random(60) > (0.1 if kind != "plain" else -1)
    return profiles.astype(np.float32), items.astype(np.float32), rng.integers(0, 60, 10), seen, findable


@pytest.mark.parametrize("kind", ["plain", "ties", "near", "lengths"])
@pytest.mark.parametrize("seed", range(5))
def test_lists_and_ranks_are_those_of_a_dense_table(seed: int, kind: str) -> None:
    profiles, items, targets, seen, findable = case(seed, kind)
    vectors = ItemVectors.of(items, findable)
    for k in (1, 12, 60):
        expected = dense(profiles, items, k, targets, seen, findable)
        for settings in (SMALL, FindSettings()):
            found = vectors.find(profiles, k=k, targets=targets, seen=rows_of(seen), settings=settings)
            np.testing.assert_array_equal(found.ranks, expected.ranks)
            np.testing.assert_array_equal(found.items, expected.items)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-12, atol=1e-12)


def test_ranks_are_places_in_the_list() -> None:
    """Of items that share their vectors the lower row comes first, and the target isn't before its likes."""
    items = unit(np.random.default_rng(0).normal(size=(5, 8)))[[3, 1, 3, 0, 3, 2]]
    found = ItemVectors.of(items).find(items[[0, 0, 0]], k=6, targets=np.array([0, 2, 4]), settings=SMALL)
    assert found.ranks.tolist() == [1, 2, 3]
    assert found.items[:, :3].tolist() == [[0, 2, 4]] * 3
    assert found.scores[0, 0] == found.scores[0, 1] == found.scores[0, 2]


def test_against_libraries() -> None:
    rng = np.random.default_rng(1)
    profiles, items = unit(rng.normal(size=(20, 24))), unit(rng.normal(size=(3000, 24)))
    found = ItemVectors.of(items).find(profiles, k=15, targets=np.arange(20))
    theirs = NearestNeighbors(n_neighbors=15, metric="cosine", algorithm="brute").fit(items)
    distances, rows = theirs.kneighbors(profiles)
    np.testing.assert_array_equal(found.items, rows)
    np.testing.assert_allclose(found.scores, 1 - distances, atol=1e-5)
    every = np.argsort(-(profiles.astype(np.float64) @ items.T.astype(np.float64)), axis=1)
    assert [int(np.flatnonzero(row == n)[0]) + 1 for n, row in enumerate(every)] == found.ranks.tolist()


def test_against_faiss() -> None:
    faiss = pytest.importorskip("faiss", reason="faiss isn't installed (the extra bench brings it)")
    rng = np.random.default_rng(2)
    profiles, items = unit(rng.normal(size=(9, 24))), unit(rng.normal(size=(2500, 24)))
    index = faiss.IndexFlatIP(24)
    index.add(items)
    scores, rows = index.search(profiles, 15)
    found = ItemVectors.of(items).find(profiles, k=15)
    np.testing.assert_array_equal(found.items, rows)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)


def test_memory_does_not_grow_with_users_and_items() -> None:
    """But for what comes back: ten times as many profiles need no more."""
    rng = np.random.default_rng(3)
    vectors = ItemVectors.of(unit(rng.normal(size=(6000, 8))))
    assert vectors.longest == pytest.approx(1, abs=1e-6)

    def peak(count: int) -> int:
        profiles, targets = unit(rng.normal(size=(count, 8))), rng.integers(0, 6000, count)
        torch.set_num_threads(1)
        vectors.find(profiles, k=5, targets=targets)
        tracemalloc.start()
        try:
            vectors.find(profiles, k=5, targets=targets)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(64), peak(640)
    assert many < few + 640 * (5 * 12 + 16) * 2
    assert many < 640 * 6000 * 4 / 5


def test_what_cannot_be_found_has_no_rank() -> None:
    items = unit(np.random.default_rng(4).normal(size=(4, 3)))
    vectors = ItemVectors.of(items, np.array([True, False, True, True]))
    found = vectors.find(items, k=4, targets=np.array([0, 1, 2, 3]), seen=rows_of([[0], [], [2, 3], [1, 1]]))
    assert found.ranks.tolist() == [0, 0, 0, 1]
    assert found.items[2].tolist() == [0, -1, -1, -1]
    assert np.isneginf(found.scores[2, 1:]).all()
    np.testing.assert_allclose(found.similarity, 1, atol=1e-6)
    nobody = vectors.find(np.zeros((0, 3), np.float32), k=2, targets=np.zeros(0, np.int64))
    assert nobody.items.shape == (0, 2)
    assert nobody.ranks.shape == (0,)


def test_faults() -> None:
    items = unit(np.random.default_rng(5).normal(size=(4, 3)))
    vectors = ItemVectors.of(items)
    with pytest.raises(ConfigError, match=r"shape \(4, 2\), and the items' 3 numbers"):
        vectors.find(items[:, :2])
    with pytest.raises(ConfigError, match="k is 5, and there are 4 items"):
        vectors.find(items, k=5)
    with pytest.raises(ConfigError, match="targets are from 0 to 4"):
        vectors.find(items, targets=np.array([0, 1, 2, 4]))
    with pytest.raises(ConfigError, match="3 targets for 4 profiles"):
        vectors.find(items, targets=np.array([0, 1, 2]))
    with pytest.raises(ConfigError, match="1 rows of seen items for 4 profiles"):
        vectors.find(items, seen=rows_of([[1]]))
    with pytest.raises(ConfigError, match="seen items are from 9"):
        vectors.find(items, seen=rows_of([[9], [], [], []]))
    with pytest.raises(DataError, match="vectors of profiles"):
        vectors.find(np.full((1, 3), np.nan, np.float32))
    with pytest.raises(ConfigError, match="findable is of 3 items"):
        ItemVectors.of(items, np.ones(3, np.bool_))
    assert "4 items" in repr(replace(vectors))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same() -> None:
    profiles, items, targets, seen, findable = case(0, "near")
    vectors = ItemVectors.of(items, findable)
    ours = vectors.find(profiles, k=9, targets=targets, seen=rows_of(seen), device="cuda")
    expected = vectors.find(profiles, k=9, targets=targets, seen=rows_of(seen))
    np.testing.assert_array_equal(ours.items, expected.items)
    np.testing.assert_array_equal(ours.ranks, expected.ranks)

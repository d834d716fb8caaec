from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from itemic.sid.prefixes import Prefixes
from itemic.sid.report.metrics import (
    by_chance,
    children,
    count_collisions,
    doubling_histogram,
    mutual_information,
    nearest_neighbours,
    neighbour_recall,
    perplexity,
    purity,
    squared_sums,
    variation,
)
from itemic.sid.vectors import normalize

counts_of = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any)
labelled = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, int]]) -> tuple[Any, Any]:
    table = np.array(pairs, np.int64)
    return table[:, 0], table[:, 1]


def dense(values: Any) -> Any:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def test_usage_by_hand() -> None:
    assert perplexity(np.array([2, 2, 0, 0])) == pytest.approx(2)
    assert perplexity(np.array([4, 0, 0, 0])) == 1
    assert variation(np.array([2, 2, 0, 0])) == 1
    assert variation(np.array([3, 3])) == 0


@settings(max_examples=60, deadline=None)
@given(counts=counts_of)
def test_usage_is_what_loops_say(counts: list[int]) -> None:
    shares = [count / sum(counts) for count in counts if count]
    assert perplexity(np.array(counts)) == pytest.approx(math.prod(p**-p for p in shares))
    mean = sum(counts) / len(counts)
    spread = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert variation(np.array(counts)) == pytest.approx(math.sqrt(spread) / mean)


@settings(max_examples=60, deadline=None)
@given(codes=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=40))
def test_children_are_those_of_a_dictionary(codes: list[tuple[int, int, int]]) -> None:
    prefixes = Prefixes.of(np.array(codes, np.int32), (4, 4, 4))
    for level in range(3):
        below = defaultdict(set)
        for code in codes:
            below[code[:level]].add(code[level])
        assert children(prefixes, level).tolist() == [len(below[prefix]) for prefix in sorted(below)]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_the_histogram_covers_every_value_once(values: list[int]) -> None:
    bins = doubling_histogram(np.array(values))
    assert [count for _, _, count in bins] == [
        sum(low <= value <= high for value in values) for low, high, _ in bins
    ]
    assert sum(count for _, _, count in bins) == len(values)
    assert [low for low, _, _ in bins[1:]] == [high + 1 for _, high, _ in bins[:-1]]
    assert bins[-1][2] > 0


def test_collisions_by_hand() -> None:
    found = count_collisions(np.array([0, 0, 0, 1]), np.array([5, 5, 6, 7]))
    assert (found.items, found.sids, found.rate, found.collided, found.largest) == (4, 2, 0.5, 3, 3)
    assert found.sizes == [(1, 1), (3, 1)]
    assert (found.texts, found.duplicates, found.collided_by_duplicates) == (3, 2, 0)
    assert found.duplicate_rate == pytest.approx(1 / 3)
    only = count_collisions(np.array([0, 0, 1]), np.array([3, 3, 4]))
    assert (only.rate, only.duplicate_rate, only.collided_by_duplicates) == (pytest.approx(1 / 3), 0, 2)
    assert count_collisions(np.array([0, 1])).duplicate_rate is None


@settings(max_examples=60, deadline=None)
@given(pairs=labelled)
def test_collisions_are_what_loops_say(pairs: list[tuple[int, int]]) -> None:
    sids, texts = columns(pairs)
    sids = dense(sids)
    found = count_collisions(sids, texts)
    items = list(zip(sids.tolist(), texts.tolist(), strict=True))
    crowd, copies = Counter(sid for sid, _ in items), Counter(text for _, text in items)
    assert found.collided == sum(crowd[sid] > 1 for sid, _ in items)
    assert found.largest == max(crowd.values())
    assert dict(found.sizes) == Counter(crowd.values())
    assert (found.texts, found.duplicates) == (len(copies), sum(copies[text] > 1 for _, text in items))
    assert found.duplicate_rate == pytest.approx(1 - len(crowd) / len(set(items)))
    alike = {sid for sid in crowd if crowd[sid] > 1 and len({t for s, t in items if s == sid}) == 1}
    assert found.collided_by_duplicates == sum(sid in alike for sid, _ in items)


@settings(max_examples=60, deadline=None)
@given(pairs=labelled)
def test_purity_and_information_are_those_of_references(pairs: list[tuple[int, int]]) -> None:
    groups, labels = columns(pairs)
    members = defaultdict(list)
    for group, label in pairs:
        members[group].append(label)
    best = sum(Counter(inside).most_common(1)[0][1] for inside in members.values())
    assert purity(groups, labels) == pytest.approx(best / len(pairs))
    reference = normalized_mutual_info_score(labels, groups)
    assert mutual_information(groups, labels) == pytest.approx(reference, abs=1e-9)


def test_random_groups_have_the_same_sizes_and_nothing_to_say() -> None:
    groups, labels = np.repeat(np.arange(10), 100), np.repeat(np.arange(10), 100)
    pure, shared = by_chance(groups, labels, np.random.default_rng(0))
    assert purity(groups, labels) == 1
    assert 0.1 < pure < 0.25
    assert 0 < shared < 0.1
    assert by_chance(np.arange(1000), labels, np.random.default_rng(0))[0] == 1
    again = by_chance(groups, labels, np.random.default_rng(0))
    assert again == (pure, shared)


def brute_force(vectors: Any, items: Any, k: int) -> list[list[int]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = []
    for item in items:
        order = sorted(
            (-float(unit[item] @ unit[other]), other) for other in range(len(unit)) if other != item
        )
        found.append([other for _, other in order[:k]])
    return found


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 60), k=st.integers(1, 12), chunk=st.integers(1, 400), seed=st.integers(0, 99))
def test_neighbours_are_those_of_brute_force(n: int, k: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 5)).astype(np.float32)
    items = rng.permutation(n)[: max(1, n // 2)]
    k = min(k, n - 1)
    near = nearest_neighbours(normalize(vectors), items, k, chunk)
    assert near.tolist() == brute_force(vectors.astype(np.float64), items.tolist(), k)


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(0, 3), min_size=4, max_size=30), seed=st.integers(0, 99))
def test_recall_is_what_loops_say(groups: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = len(groups)
    items = np.arange(n)[: n - 1]
    near = np.array([rng.permutation([j for j in range(n) if j != i])[:3] for i in items])
    found = neighbour_recall(dense(groups), items, near)
    hits = [groups[j] == groups[i] for i in items for j in near[i]]
    assert found.found == pytest.approx(sum(hits) / len(hits))
    others = [groups.count(groups[i]) - 1 for i in items]
    assert found.chance == pytest.approx(sum(g / (n - 1) for g in others) / len(items))
    assert found.ceiling == pytest.approx(sum(min(g, 3) / 3 for g in others) / len(items))
    assert found.found <= found.ceiling + 1e-12


def test_chance_is_what_random_groups_find() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), [5] * 10 + [15] * 10)
    items = np.arange(200)
    near = np.array([rng.permutation(np.delete(items, i))[:10] for i in items])
    mixed = [neighbour_recall(rng.permutation(groups), items, near) for _ in range(200)]
    assert np.mean([part.found for part in mixed]) == pytest.approx(mixed[0].chance, rel=0.03)


def test_errors_by_hand() -> None:
    vectors = np.array([[1.0, 0.0], [3.0, 0.0]], np.float32)
    rebuilt = np.array([[1.0, 1.0], [3.0, 0.0]], np.float32)
    assert squared_sums(vectors, rebuilt, vectors.mean(axis=0, dtype=np.float64)) == (1.0, 2.0)

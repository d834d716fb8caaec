"""Failures that were planted into healthy lists are found, and little else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from itemic.analysis import DETECTORS, Evidence, Thresholds
from itemic.analysis.detectors.targets import head_of, tail_of
from itemic.data.sequences import Requests
from itemic.evaluate.baselines import Transitions
from tests.analysis.helpers import LISTED, K, World, evidence_of, recall_and_precision

TOLD = Thresholds()
Planted = tuple[Evidence, np.ndarray]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def healthy(world: World) -> np.ndarray:
    return world.healthy()


def with_targets(world: World, rows: np.ndarray, targets: np.ndarray) -> Requests:
    found = world.requests.targets.copy()
    found[rows] = targets
    return replace(world.requests, targets=found)


def keep(evidence: Evidence, planted: np.ndarray, rows: np.ndarray) -> Planted:
    """The evidence of some rows, and the planted ones among them."""
    place = np.full(len(evidence), -1)
    place[rows] = np.arange(len(rows))
    found = evidence_of(
        evidence.dataset,
        evidence.requests.take(rows),
        evidence.items[rows],
        codes=evidence.codes,
        shortened=evidence.shortened[rows],
    )
    return found, place[planted][place[planted] >= 0]


def cold_start(world: World, healthy: np.ndarray) -> Planted:
    warm = np.flatnonzero(world.counts[world.requests.targets] > TOLD.cold)
    rows = world.some(warm.tolist())
    cold = np.flatnonzero(world.counts <= TOLD.cold)
    if not len(cold):
        raise AssertionError("the world has no cold items")
    requests = with_targets(world, rows, world.rng.choice(cold, len(rows)))
    return keep(evidence_of(world.dataset, requests, healthy), rows, np.union1d(warm, rows))


def long_tail(world: World, healthy: np.ndarray) -> Planted:
    order = np.argsort(world.counts, kind="stable")
    tail, total = set(), 0.0
    for item in order.tolist():  # a slow count of what the rarest items make up
        if total >= TOLD.tail * world.counts.sum():
            break
        tail.add(item)
        total += world.counts[item]
    last = max(world.counts[item] for item in tail)
    tail |= set(np.flatnonzero(world.counts == last).tolist())
    others = [r for r in range(len(world.requests)) if world.target(r) not in tail]
    rows = world.some(others)
    requests = with_targets(world, rows, world.rng.choice(sorted(tail), len(rows)))
    return keep(evidence_of(world.dataset, requests, healthy), rows, np.array(others))


def short_history(world: World, healthy: np.ndarray) -> Planted:
    long = np.flatnonzero(np.diff(world.requests.offsets) > TOLD.short)
    rows = world.some(long.tolist())
    short = set(rows.tolist())
    parts = [
        world.requests.history(row)[-int(world.rng.integers(1, TOLD.short + 1)) :]
        if row in short
        else world.requests.history(row)
        for row in range(len(world.requests))
    ]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    requests = replace(world.requests, items=np.concatenate(parts), offsets=offsets)
    return keep(evidence_of(world.dataset, requests, healthy), rows, long)


def repeat_target(world: World, healthy: np.ndarray) -> Planted:
    new = [r for r in range(len(world.requests)) if world.target(r) not in world.history(r)]
    rows = world.some(new)
    had = np.array([world.rng.choice(world.history(row)) for row in rows])
    return keep(evidence_of(world.dataset, with_targets(world, rows, had), healthy), rows, np.array(new))


def text_missing(world: World, healthy: np.ndarray) -> Planted:
    mute = world.rng.choice(world.size, 60, replace=False)
    row = np.isin(np.arange(world.size), mute)
    items = world.dataset.items.with_columns(
        pl.when(pl.Series(row)).then(pl.lit(text)).otherwise(pl.col(name)).alias(name)
        for name, text in (("title", ""), ("description", "  "))
    )
    rows = np.flatnonzero(np.isin(world.requests.targets, mute))
    return evidence_of(replace(world.dataset, items=items), world.requests, healthy), rows


def history_cut(world: World, healthy: np.ndarray) -> Planted:
    rows = world.some(list(range(len(world.requests))))
    cut = np.zeros(len(world.requests), bool)
    cut[rows] = True
    return evidence_of(world.dataset, world.requests, healthy, shortened=cut), rows


def own_codes(world: World) -> np.ndarray:
    """Three levels, no two items with the same codes, ten items below each prefix."""
    rows = np.arange(world.size)
    return np.stack([rows // 40, rows // 10 % 4, rows % 10], axis=1).astype(np.int32)


def collision(world: World, healthy: np.ndarray) -> Planted:
    codes = own_codes(world)
    double = world.rng.choice(world.size // 2, 40, replace=False) * 2
    codes[double] = codes[double + 1]
    rows = np.flatnonzero(np.isin(world.requests.targets, [*double, *(double + 1)]))
    return evidence_of(world.dataset, world.requests, healthy, codes=codes), rows


def crowded_prefix(world: World, healthy: np.ndarray) -> Planted:
    codes = own_codes(world)
    crowd = world.rng.choice(world.size, 30, replace=False)  # 7.5 % of the items
    codes[crowd] = [[99, 0, code] for code in range(30)]
    rows = np.flatnonzero(np.isin(world.requests.targets, crowd))
    return evidence_of(world.dataset, world.requests, healthy, codes=codes), rows


def category_mismatch_target(world: World, healthy: np.ndarray) -> Planted:
    rows = world.some(list(range(len(world.requests))))
    lists = healthy.copy()
    for row in rows:
        lists[row] = world.list_of(row, [], set(world.by_kind[world.kind[world.target(row)]]))
    return evidence_of(world.dataset, world.requests, lists), rows


def category_mismatch_history(world: World, healthy: np.ndarray) -> Planted:
    rows = world.some(list(range(len(world.requests))))
    lists = healthy.copy()
    for row in rows:
        known = {world.kind[item] for item in world.history(row)}
        strange = [
            item for item in world.rng.permutation(world.size).tolist() if world.kind[item] not in known
        ]
        lists[row] = world.list_of(row, strange[:LISTED])
    return evidence_of(world.dataset, world.requests, lists), rows


def ignores_recent(world: World, healthy: np.ndarray) -> Planted:
    able = [
        row
        for row in range(len(world.requests))
        if world.target(row) in world.after[world.history(row)[-1]]
        and len(world.after[world.history(row)[-1]] - set(world.history(row))) > 4
    ]
    rows = world.some(able)
    lists = healthy.copy()
    for row in rows:
        lists[row] = world.list_of(row, [], world.after[world.history(row)[-1]])
    return keep(evidence_of(world.dataset, world.requests, lists), rows, np.array(able))


def only_recent(world: World, healthy: np.ndarray) -> Planted:
    able = [
        row
        for row in range(len(world.requests))
        if world.target(row) not in world.after[world.history(row)[-1]]
        and any(world.target(row) in world.after[item] for item in world.history(row)[:-1])
        and len(world.after[world.history(row)[-1]] - set(world.history(row))) >= K
    ]
    rows = world.some(able)
    lists = healthy.copy()
    for row in range(len(lists)):
        follow = sorted(world.after[world.history(row)[-1]])
        lists[row] = world.list_of(row, follow if row in set(rows.tolist()) else [], set())
        if row not in set(rows.tolist()):  # half of the list follows, as in a good one
            lists[row] = world.list_of(row, follow[:3], set(follow[3:]))
    return keep(evidence_of(world.dataset, world.requests, lists), rows, np.array(able))


def repetition(world: World, healthy: np.ndarray) -> Planted:
    new = [row for row in range(len(world.requests)) if world.target(row) not in world.history(row)]
    rows = world.some(new)
    lists = healthy.copy()
    for row in rows:
        had = list(dict.fromkeys(world.history(row)))[:4]
        if len(had) < 3:
            had = [int(lists[row, -1])] * 4  # one item in several places
        lists[row, 1 : 1 + len(had)] = had
    return keep(evidence_of(world.dataset, world.requests, lists), rows, np.array(new))


def popularity_bias(world: World, healthy: np.ndarray) -> Planted:
    head = set(np.flatnonzero(head_of(world.counts, TOLD.head)).tolist())
    able = [
        row
        for row in range(len(world.requests))
        if world.target(row) not in head
        and 2 * sum(item in head for item in world.history(row)) <= len(world.history(row))
    ]
    rows = world.some(able)
    lists = healthy.copy()
    for row in range(len(lists)):
        rare = [item for item in world.rng.permutation(world.size).tolist() if item not in head]
        lists[row] = world.list_of(row, [*rare[:4], *healthy[row].tolist()])
    for row in rows:
        lists[row] = world.list_of(row, world.rng.permutation(sorted(head)).tolist())
    return keep(evidence_of(world.dataset, world.requests, lists), rows, np.array(able))


def near_miss(world: World, healthy: np.ndarray) -> Planted:
    rows = world.some(list(range(len(world.requests))))
    lists = healthy.copy()
    for row in rows:
        lists[row] = world.list_of(row, [])
        lists[row, int(world.rng.integers(K, LISTED))] = world.target(row)
    return evidence_of(world.dataset, world.requests, lists), rows


def unanswered(world: World, healthy: np.ndarray) -> Planted:
    rows = world.some(list(range(len(world.requests))))
    lists = healthy.copy()
    for row in rows:
        lists[row, int(world.rng.integers(0, K)) :] = -1
    return evidence_of(world.dataset, world.requests, lists), rows


def memory_knew(world: World, healthy: np.ndarray) -> Planted:
    items, _ = Transitions(world.dataset).rank(world.requests, LISTED)
    known = [row for row in range(len(items)) if world.target(row) in items[row, :K]]
    rows = world.some(known)
    lists = items.copy()
    for row in rows:
        lists[row] = world.list_of(row, [])
    return evidence_of(world.dataset, world.requests, lists), rows


def found_namesake(world: World, healthy: np.ndarray) -> Planted:
    codes = own_codes(world) // [1, 1, 2]  # pairs of items share a semantic ID
    lists = np.array([world.list_of(r, [], {world.target(r) ^ 1}) for r in range(len(world.requests))])
    able = [row for row in range(len(lists)) if world.target(row) ^ 1 not in world.history(row)]
    rows = world.some(able)
    for row in rows:
        lists[row, int(world.rng.integers(0, K))] = world.target(row) ^ 1
    return evidence_of(world.dataset, world.requests, lists, codes=codes.astype(np.int32)), rows


def wrong_level(level: int) -> Callable[[World, np.ndarray], Planted]:
    def plant(world: World, healthy: np.ndarray) -> Planted:
        rows = np.arange(world.size)
        codes = np.stack([rows // 100, rows // 20 % 5, rows // 5 % 4, rows % 5], axis=1).astype(np.int32)
        target = codes[world.requests.targets]
        depth = world.rng.integers(0, 4, len(world.requests))  # levels that the list gets right
        lists = []
        for row in range(len(world.requests)):
            shared = (np.cumprod(codes == target[row], axis=1)).sum(1)
            right = [i for i in world.rng.permutation(world.size).tolist() if shared[i] == depth[row]]
            worse = [i for i in world.rng.permutation(world.size).tolist() if shared[i] < depth[row]]
            found = [i for i in [*right[:2], *worse, *right[2:]] if i != world.target(row)]
            lists.append(found[:LISTED])
        evidence = evidence_of(world.dataset, world.requests, np.array(lists), codes=codes)
        return evidence, np.flatnonzero(depth == level - 1)

    return plant


def pruned_by_beam(world: World, healthy: np.ndarray) -> Planted:
    lists = np.array([world.list_of(row, []) for row in range(len(world.requests))])
    rows = world.some(list(range(len(lists))))
    forced = np.full(len(lists), -K - 0.5, np.float32)
    forced[rows] = -K + 0.5
    return evidence_of(world.dataset, world.requests, lists, forced=forced), rows


PLANTS: dict[str, Callable[[World, np.ndarray], Planted]] = {
    plant.__name__: plant
    for plant in (
        cold_start,
        long_tail,
        short_history,
        repeat_target,
        text_missing,
        history_cut,
        collision,
        crowded_prefix,
        category_mismatch_target,
        category_mismatch_history,
        ignores_recent,
        only_recent,
        repetition,
        popularity_bias,
        near_miss,
        unanswered,
        memory_knew,
        found_namesake,
        pruned_by_beam,
    )
} | {f"wrong_level_{level}": wrong_level(level) for level in range(1, 5)}


def test_every_detector_has_a_planted_failure() -> None:
    assert set(PLANTS) == set(DETECTORS)


@pytest.mark.parametrize("name", list(DETECTORS))
def test_finds_what_was_planted(name: str, world: World, healthy: np.ndarray) -> None:
    evidence, planted = PLANTS[name](world, healthy)
    assert 10 <= len(planted) < len(evidence)
    found = DETECTORS[name].find(evidence, TOLD)
    recall, precision = recall_and_precision(found.flags, planted)
    assert (recall >= 0.95, precision >= 0.9) == (True, True), (recall, precision)
    assert found.able is None or not (found.flags & ~found.able).any()
    for values in found.values.values():
        assert values.shape == (len(evidence),)


@pytest.mark.parametrize("name", list(DETECTORS))
def test_sentences_name_what_was_found(name: str, world: World, healthy: np.ndarray) -> None:
    evidence, planted = PLANTS[name](world, healthy)
    found = DETECTORS[name].find(evidence, TOLD)
    row = int(planted[0])
    said = DETECTORS[name].says.format(**{key: values[row].item() for key, values in found.values.items()})
    assert "{" not in said
    assert said.endswith(".")
    assert "{" not in DETECTORS[name].defined(TOLD)


def test_head_and_tail_by_hand() -> None:
    counts = np.array([10, 5, 5, 3, 1, 1, 0])
    # before it: 0 of the rarest items' interactions, then 0, 2/25 and 5/25
    assert tail_of(counts, 0.2).tolist() == [False, False, False, True, True, True, True]
    # more frequent items have 0, 10/25, 20/25 of them
    assert head_of(counts, 0.5).tolist() == [True, True, True, False, False, False, False]

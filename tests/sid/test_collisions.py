from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from itemic.errors import ConfigError
from itemic.sid.collisions import COLLISIONS, Coded, resolve
from itemic.sid.reassign import reassign_codes


def quantized(n: int, sizes: tuple[int, ...], seed: int, *, distinct: int | None = None) -> Coded:
    """Random vectors, random codebooks, plain residual quantization written as a loop."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(distinct or n, 4)).astype(np.float32)
    vectors = base[rng.integers(len(base), size=n)] if distinct else base
    books = [(rng.normal(size=(size, 4)) / 2**level).astype(np.float32) for level, size in enumerate(sizes)]
    codes = np.zeros((n, len(sizes)), np.int32)
    for row in range(n):
        rest = vectors[row]
        for level, book in enumerate(books):
            codes[row, level] = ((rest - book) ** 2).sum(axis=1).argmin()
            rest = rest - book[codes[row, level]]
    return Coded(codes, sizes, vectors, books)


def error(coded: Coded, codes: np.ndarray) -> float:
    assert coded.codebooks is not None
    assert coded.vectors is not None
    rebuilt = np.sum([book[codes[:, level]] for level, book in enumerate(coded.codebooks)], axis=0)
    return float(((coded.vectors.astype(np.float64) - rebuilt) ** 2).sum())


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_reassign_leaves_no_collision(data: st.DataObject) -> None:
    """Up to a completely full space, with many duplicates."""
    sizes = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    n = data.draw(st.integers(1, int(np.prod(sizes))))
    distinct = data.draw(st.none() | st.integers(1, 4))
    coded = quantized(n, sizes, data.draw(st.integers(0, 10_000)), distinct=distinct)
    codes, after, changed = resolve(coded, "reassign")
    assert after == sizes
    assert codes.dtype == np.int32
    assert len(np.unique(codes, axis=0)) == n
    assert ((codes >= 0) & (codes < np.array(sizes))).all()
    assert changed == (codes != coded.codes).any(axis=1).sum()


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_the_last_level_is_optimal(seed: int, n: int) -> None:
    """Against all ways to give the items of one prefix different codes."""
    coded = quantized(n, (1, 5), seed)
    codes, _, _ = resolve(coded, "reassign")
    ways = (np.array([[0, code] for code in way], np.int32) for way in permutations(range(5), n))
    assert error(coded, codes) == pytest.approx(min(error(coded, way) for way in ways), rel=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_spilling_is_near_the_best_way(seed: int) -> None:
    """Four items, two levels of two: the space is full. Compared with every assignment of its four IDs."""
    coded = quantized(4, (2, 2), seed)
    codes, _, _ = resolve(coded, "reassign")
    errors = [error(coded, np.array(way, np.int32)) for way in permutations(product(range(2), repeat=2))]
    assert error(coded, codes) <= np.quantile(errors, 0.3)


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_what_does_not_collide_stays(seed: int, n: int) -> None:
    coded = quantized(n, (4, 4, 8), seed)
    codes, _, _ = resolve(coded, "reassign")
    prefix = [tuple(row[:2]) for row in coded.codes.tolist()]
    whole = [tuple(row) for row in coded.codes.tolist()]
    assume(max(prefix.count(one) for one in prefix) <= 8)  # nothing is overfull: nobody has to spill
    crowded = {tuple(sid[:2]) for sid in whole if whole.count(sid) > 1}
    for row in range(n):
        if prefix[row] not in crowded:
            assert (codes[row] == coded.codes[row]).all()
    assert (codes[:, :2] == coded.codes[:, :2]).all()


def test_without_collisions_nothing_changes() -> None:
    codes = np.array([[0, 1], [0, 0], [1, 1]], np.int32)
    rng = np.random.default_rng(0)
    coded = Coded(
        codes, (2, 2), rng.normal(size=(3, 2)).astype(np.float32), [np.ones((2, 2), np.float32)] * 2
    )
    assert resolve(coded, "reassign")[2] == 0


def test_a_hand_made_case() -> None:
    """Two items at .1 and .2 want code 0; the one that loses less by moving moves."""
    book = np.array([[0.0], [1.0], [9.0]], np.float32)
    vectors = np.array([[0.1], [0.2], [9.0]], np.float32)
    first = np.zeros((1, 1), np.float32)
    codes = reassign_codes(np.array([[0, 0], [0, 0], [0, 2]], np.int32), vectors, [first, book])
    assert codes.tolist() == [[0, 0], [0, 1], [0, 2]]


def test_an_overfull_prefix_spills_to_the_next_best() -> None:
    """Three items in a prefix with two codes; the third prefix is nearer to it than the second."""
    first = np.array([[0.0], [10.0], [-4.0]], np.float32)
    last = np.array([[0.0], [0.5]], np.float32)
    vectors = np.array([[0.0], [0.5], [-1.0]], np.float32)
    codes = reassign_codes(np.array([[0, 0], [0, 1], [0, 0]], np.int32), vectors, [first, last])
    assert codes.tolist() == [[0, 0], [0, 1], [2, 1]]


def test_a_thousand_equal_items() -> None:
    vectors = np.ones((1000, 3), np.float32)
    books = [np.random.default_rng(level).normal(size=(10, 3)).astype(np.float32) for level in range(3)]
    codes = reassign_codes(np.zeros((1000, 3), np.int32), vectors, books)
    assert len(np.unique(codes, axis=0)) == 1000


def test_more_items_than_semantic_ids() -> None:
    with pytest.raises(ConfigError, match=r"5 items don't fit in the 4 semantic IDs of the levels \[2, 2\]"):
        resolve(quantized(5, (2, 2), 0), "reassign")


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_rank_numbers_the_items_of_each_semantic_id(seed: int, n: int) -> None:
    coded = quantized(n, (3, 2), seed)
    codes, sizes, changed = resolve(coded, "rank")
    seen: dict[tuple[int, ...], int] = {}
    for row, sid in enumerate(map(tuple, coded.codes.tolist())):
        assert codes[row].tolist() == [*sid, seen.get(sid, 0)]
        seen[sid] = seen.get(sid, 0) + 1
    assert sizes == (3, 2, max(seen.values()))
    assert changed == 0


def test_keep_and_the_table() -> None:
    coded = quantized(30, (3, 2), 0)
    assert resolve(coded, "keep")[0] is coded.codes
    assert set(COLLISIONS) == {"keep", "rank", "reassign", "sinkhorn"}
    with pytest.raises(ConfigError, match="'shuffle'"):
        resolve(coded, "shuffle")
    with pytest.raises(ConfigError, match="without the item vectors"):
        resolve(Coded(coded.codes, coded.sizes), "reassign")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_new_items_leave_the_old_ones_alone(data: st.DataObject) -> None:
    """Old items hold their semantic IDs; new ones get free ones, up to the last that is left."""
    sizes = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    total = int(np.prod(sizes))
    n = data.draw(st.integers(1, total))
    coded = quantized(n, sizes, data.draw(st.integers(0, 10_000)))
    every = np.array(list(product(*map(range, sizes))), np.int32)
    held = data.draw(st.permutations(range(total)))[: data.draw(st.integers(0, total - n))]
    taken = every[sorted(held)]
    codes, _, _ = resolve(replace(coded, taken=taken), "reassign")
    assert len(np.unique(np.concatenate([codes, taken]), axis=0)) == n + len(taken)
    free = ~(coded.codes[:, None] == taken[None]).all(axis=2).any(axis=1)
    alone = np.bincount(np.unique(coded.codes, axis=0, return_inverse=True)[1])[
        np.unique(coded.codes, axis=0, return_inverse=True)[1]
    ]
    if (free & (alone == 1)).all():  # nobody is in anybody's way
        assert (codes == coded.codes).all()


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_the_last_level_is_optimal_beside_taken_codes(seed: int, n: int) -> None:
    coded = replace(quantized(n, (1, 5), seed), taken=np.array([[0, 1], [0, 3]], np.int32))
    codes, _, _ = resolve(coded, "reassign")
    ways = (np.array([[0, code] for code in way], np.int32) for way in permutations((0, 2, 4), n))
    assert error(coded, codes) == pytest.approx(min(error(coded, way) for way in ways), rel=1e-6)


def test_no_semantic_id_is_left() -> None:
    coded = quantized(3, (2, 2), 0)
    with pytest.raises(ConfigError, match="3 items don't fit beside 2 others in the 4 semantic IDs"):
        resolve(replace(coded, taken=np.array([[0, 0], [1, 1]], np.int32)), "reassign")


def test_rank_counts_on_from_the_old_items() -> None:
    codes = np.array([[0], [1], [0]], np.int32)
    taken = np.array([[0, 0], [0, 1], [2, 0]], np.int32)
    found, sizes, _ = resolve(Coded(codes, (3,), taken=taken), "rank")
    assert found.tolist() == [[0, 2], [1, 0], [0, 3]]
    assert sizes == (3, 4)


def collided(codes: np.ndarray) -> int:
    _, number, count = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return int((count[number] > 1).sum())


@given(st.integers(0, 10_000), st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_sinkhorn_only_moves_last_codes_of_items_that_collide(seed: int, n: int) -> None:
    coded = quantized(n, (3, 8), seed)
    codes, sizes, _ = resolve(coded, "sinkhorn")
    assert sizes == coded.sizes
    assert (codes[:, 0] == coded.codes[:, 0]).all()
    assert collided(codes) <= collided(coded.codes)
    if not collided(coded.codes):
        assert (codes == coded.codes).all()


def test_sinkhorn_takes_a_group_apart() -> None:
    """Ten items of one semantic ID and thirty-two last codes: all apart."""
    rng = np.random.default_rng(0)
    books = [np.zeros((1, 4), np.float32), rng.normal(size=(32, 4)).astype(np.float32)]
    vectors = (books[1][5] + 0.05 * rng.normal(size=(10, 4))).astype(np.float32)
    coded = Coded(np.array([[0, 5]] * 10, np.int32), (1, 32), vectors, books)
    codes, _, _ = resolve(coded, "sinkhorn")
    assert len(np.unique(codes, axis=0)) == 10
    same = Coded(coded.codes, (1, 32), np.repeat(vectors[:1], 10, axis=0), books)
    assert (
        len(np.unique(resolve(same, "sinkhorn")[0], axis=0)) == 1
    )  # duplicates have nothing to tell them apart


def test_the_transport_plan_is_even() -> None:
    from itemic.sid.sinkhorn import transport_plan

    plan = transport_plan(np.random.default_rng(0).random((6, 4)), 0.5)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 6, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 4, rtol=1e-3)


@pytest.mark.parametrize("policy", COLLISIONS)
def test_items_that_are_alike_share(policy: str) -> None:
    coded = quantized(30, (3, 20), 0)
    alike = np.arange(30) % 10
    codes, _, _ = resolve(coded, policy, alike)
    assert (codes == codes[alike]).all()
    if policy in ("rank", "reassign"):
        assert len(np.unique(codes, axis=0)) == 10

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.forest import TokenRows, build_forest, pack, plan_blocks
from itemic.forest.pack import group_sizes

CASES = st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=7), st.integers(0, 4)), max_size=14)


@settings(max_examples=200, deadline=None)
@given(CASES, st.integers(1, 20), st.booleans(), st.integers(0, 3))
def test_every_row_is_in_one_block_and_blocks_keep_their_size(
    cases: list[tuple[list[int], int]], room: int, shuffled: bool, seed: int
) -> None:
    rows, groups = TokenRows.of([row for row, _ in cases]), np.array([g for _, g in cases], np.int64)
    blocks = plan_blocks(rows, groups, room, np.random.default_rng(seed) if shuffled else None)
    everything = [int(row) for block in blocks for row in block]
    assert sorted(everything) == list(range(len(rows)))
    for block in blocks:
        size = len(build_forest(rows.take(block)))
        assert size <= room or len({tuple(rows[int(row)]) for row in block}) == 1


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_group_sizes_count_the_nodes_of_each_group(cases: list[tuple[list[int], int]]) -> None:
    rows, groups = TokenRows.of([row for row, _ in cases]), np.array([g for _, g in cases], np.int64)
    by_group, first, sizes = group_sizes(rows, groups)
    for number, label in enumerate(sorted(set(groups.tolist()))):
        members = by_group[first[number] : first[number + 1]]
        assert set(groups[members].tolist()) == {label}
        assert sizes[number] == len(build_forest(rows.take(members)))


def test_sizes_do_not_depend_on_how_many_rows_are_sorted_at_once(monkeypatch: object) -> None:
    rng = np.random.default_rng(0)
    rows = TokenRows.of([rng.integers(0, 3, rng.integers(0, 9)).tolist() for _ in range(200)])
    groups = rng.integers(0, 40, 200)
    whole = group_sizes(rows, groups)[2]
    monkeypatch.setattr(pack, "_CHUNK_TOKENS", 50)  # type: ignore[attr-defined]
    assert group_sizes(rows, groups)[2].tolist() == whole.tolist()


def test_the_order_depends_on_the_generator_alone() -> None:
    rows = TokenRows.of([[i, i + 1] for i in range(50)])
    groups = np.arange(50)
    plans = [plan_blocks(rows, groups, 8, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    flat = [[int(row) for block in plan for row in block] for plan in plans]
    assert flat[0] == flat[1] != flat[2]


def test_what_groups_share_is_counted_once() -> None:
    """A template of 30 tokens and up to 12 more: by their sizes alone two or three would fit into a block of 100."""
    rng = np.random.default_rng(0)
    template = list(range(100, 130))
    rows = TokenRows.of([template + rng.integers(0, 90, rng.integers(1, 13)).tolist() for _ in range(400)])
    blocks = plan_blocks(rows, np.arange(400), 100, rng)
    sizes = [len(build_forest(rows.take(block))) for block in blocks]
    assert max(sizes) <= 100
    assert np.mean(sizes) > 95

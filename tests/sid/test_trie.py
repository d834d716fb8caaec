from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import ConstraintError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie

Sequences = list[list[int]]
sequences = st.lists(
    st.lists(st.integers(0, 6) | st.just(2**31 - 1), min_size=1, max_size=6), min_size=1, max_size=40
)


def dict_trie(rows: Sequences) -> dict[str, Any]:
    """The slow reference: nested dictionaries."""
    root: dict[str, Any] = {"items": [], "next": {}, "below": 0}
    for item, row in enumerate(rows):
        node = root
        node["below"] += 1
        for token in row:
            node = node["next"].setdefault(token, {"items": [], "next": {}, "below": 0})
            node["below"] += 1
        node["items"].append(item)
    return root


@given(sequences)
@settings(max_examples=300)
def test_equals_a_trie_of_dictionaries(rows: Sequences) -> None:
    trie = Trie.build(TokenRows.of(rows))
    level = [(0, dict_trie(rows), -1, -1)]
    expected = 0  # breadth-first: the nodes come in exactly this order
    depth = 0
    while level:
        following = []
        for node, reference, parent, token in level:
            assert node == expected
            expected += 1
            assert (trie.parent[node], trie.token[node], trie.depth[node]) == (parent, token, depth)
            tokens, children, offsets = trie.children(np.array([node]))
            assert tokens.tolist() == sorted(reference["next"])
            assert offsets.tolist() == [0, len(tokens)]
            assert trie.items_at(np.array([node]))[0].tolist() == reference["items"]
            assert trie.subtree_sizes[node] == reference["below"]
            assert trie.terminal[node] == bool(reference["items"])
            assert trie.leaf[node] == (not reference["next"])
            pairs = zip(tokens.tolist(), children.tolist(), strict=True)
            following += [(child, reference["next"][token], node, token) for token, child in pairs]
        level = following
        depth += 1
    assert len(trie) == expected
    assert sorted(trie.items.tolist()) == list(range(len(rows)))


@given(sequences, sequences)
def test_contains_whole_sequences_only(rows: Sequences, others: Sequences) -> None:
    trie = Trie.build(TokenRows.of(rows))
    asked = rows + others + [row[:-1] for row in rows] + [[*row, 0] for row in rows] + [[]]
    assert trie.contains(TokenRows.of(asked)).tolist() == [row in rows for row in asked]
    prefixes = [row[:stop] for row in rows for stop in range(len(row) + 1)]
    assert (trie.find(TokenRows.of(asked)) >= 0).tolist() == [row in prefixes for row in asked]


@given(sequences)
def test_levels_are_the_tokens_of_each_place(rows: Sequences) -> None:
    trie = Trie.build(TokenRows.of(rows))
    expected = [sorted({row[k] for row in rows if len(row) > k}) for k in range(max(map(len, rows)))]
    assert [level.tolist() for level in trie.levels] == expected


@given(sequences, st.data())
def test_children_of_many_nodes_are_those_of_each(rows: Sequences, data: st.DataObject) -> None:
    trie = Trie.build(TokenRows.of(rows))
    nodes = np.array(data.draw(st.lists(st.integers(0, len(trie) - 1), max_size=12)), np.int64)
    tokens, children, offsets = trie.children(nodes)
    for k, node in enumerate(nodes):
        part = slice(offsets[k], offsets[k + 1])
        alone = trie.children(np.array([node]))
        assert (tokens[part] == alone[0]).all()
        assert (children[part] == alone[1]).all()
        assert (trie.step(np.repeat(node, len(alone[0])), alone[0]) == alone[1]).all()


def test_a_step_that_is_not_allowed_is_minus_one() -> None:
    trie = Trie.build(TokenRows.of([[5, 7], [5, 9]]))
    nodes = np.array([0, 0, 0, 1, 1, -1, 0])
    tokens = np.array([5, 7, -1, 9, 8, 5, 10**6])
    assert trie.step(nodes, tokens).tolist() == [1, -1, -1, 3, -1, -1, -1]


def test_arrays_have_the_promised_types() -> None:
    trie = Trie.build(TokenRows.of([[1, 2], [1], [1, 2]]))
    names = ("first", "token", "parent", "item_first", "items")
    assert {getattr(trie, name).dtype for name in names} == {np.dtype(np.int32)}
    assert trie.depth.dtype == np.int16
    assert trie.first.tolist() == [1, 2, 3, 3]
    assert trie.item_first.tolist() == [0, 0, 1, 3]
    assert trie.items.tolist() == [1, 0, 2]


def test_a_large_catalogue_of_wide_tokens() -> None:
    """More than 16 bits at each depth: the order of the keys must hold beyond one radix pass."""
    rng = np.random.default_rng(0)
    table = rng.integers(0, 2**31 - 1, (20_000, 3)).astype(np.int32)
    table[::2, 0] = 77
    trie = Trie.build(TokenRows(table.ravel(), np.arange(20_001, dtype=np.int64) * 3))
    order = np.lexsort(table.T[::-1])
    leaves = trie.items_at(np.flatnonzero(trie.leaf))[0]
    assert (table[leaves] == table[order]).all()


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (TokenRows.of([]), "at least one item"),
        (TokenRows.of([[1], [], [2], []]), "2 items have no tokens, first row 1"),
        (TokenRows.of([[1], [2, -3]]), "item row 1 has the token id -3"),
        (TokenRows.of([[1] * 40_000]), "40000 tokens"),
    ],
)
def test_faults_are_named(rows: TokenRows, fault: str) -> None:
    with pytest.raises(ConstraintError, match=fault):
        Trie.build(rows)


def test_importing_the_trie_and_the_index_needs_no_torch() -> None:
    rooms = ("trie", "index", "build", "published", "collisions", "text")
    program = (
        f"import sys, {', '.join(f'itemic.sid.{room}' for room in rooms)}; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

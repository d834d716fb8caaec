from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.forest import TokenRows, build_forest
from itemic.forest.build import chain_forest, sort_rows
from tests.forest.reference import slow_forest

ROWS = st.lists(st.lists(st.integers(0, 3), max_size=7), max_size=12)


@settings(max_examples=300, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_forest_equals_the_set_of_all_prefixes(rows: list[list[int]], random: object) -> None:
    weights = [[random.choice([0.0, 1.0, 2.5]) for _ in row] for row in rows]  # type: ignore[attr-defined]
    forest = build_forest(TokenRows.of(rows, weights))
    nodes = slow_forest(rows, weights)
    index = {prefix: i for i, prefix in enumerate(nodes)}
    assert forest.tokens.tolist() == [node.token for node in nodes.values()]
    assert forest.position.tolist() == [node.depth for node in nodes.values()]
    assert forest.parent.tolist() == [index.get(node.parent, -1) for node in nodes.values()]
    assert forest.weight.tolist() == [node.weight for node in nodes.values()]
    ends = [max(j for p, j in index.items() if p[: len(prefix)] == prefix) + 1 for prefix in nodes]
    assert forest.end.tolist() == ends
    assert forest.row_leaf.tolist() == [index.get(tuple(row), -1) for row in rows]
    assert forest.row_tokens == sum(len(row) for row in rows)


@given(ROWS)
def test_mask_lets_a_token_see_its_ancestors_and_itself(rows: list[list[int]]) -> None:
    forest = build_forest(TokenRows.of(rows))
    seen = forest.dense_mask()
    for node in range(len(forest)):
        path = {node}
        while forest.parent[node] >= 0 and (node := int(forest.parent[node])) >= 0:
            path.add(node)
        assert set(np.flatnonzero(seen[max(path)]).tolist()) == path


@given(ROWS, st.data())
def test_shares_are_the_weights_of_each_label_alone(rows: list[list[int]], data: st.DataObject) -> None:
    labels = np.array([data.draw(st.integers(0, 2)) for _ in rows], np.int32)
    weights = [[data.draw(st.sampled_from([0.0, 1.0, 2.5])) for _ in row] for row in rows]
    forest = build_forest(TokenRows.of(rows, weights), labels, 3)
    assert forest.shares is not None
    np.testing.assert_allclose(forest.shares.sum(axis=0), forest.weight)
    for label in range(3):
        alone = [
            weight if mine == label else [0.0] * len(weight)
            for weight, mine in zip(weights, labels, strict=True)
        ]
        assert forest.shares[label].tolist() == build_forest(TokenRows.of(rows, alone)).weight.tolist()
    assert forest.padded(7).shares[:, : len(forest)].tolist() == forest.shares.tolist()


@given(ROWS, st.data())
def test_chains_are_forests_that_share_nothing(rows: list[list[int]], data: st.DataObject) -> None:
    """Equal to the forest of the same rows, each made different by a token of its own in front."""
    weights = [[data.draw(st.sampled_from([0.0, 1.0, 2.5])) for _ in row] for row in rows]
    labels = np.array([data.draw(st.integers(0, 1)) for _ in rows], np.int32)
    chains = chain_forest(TokenRows.of(rows, weights), labels, 2)
    marked = [[100 + number, *row] for number, row in enumerate(rows)]
    apart = build_forest(TokenRows.of(marked, [[0.0, *own] for own in weights]), labels, 2)
    inner = np.flatnonzero(apart.position > 0)
    assert chains.tokens.tolist() == apart.tokens[inner].tolist()
    assert chains.position.tolist() == (apart.position[inner] - 1).tolist()
    assert chains.shares is not None
    assert apart.shares is not None
    first = chains.position == 0
    assert not chains.weight[first].any()
    assert chains.weight[~first].tolist() == apart.weight[inner][~first].tolist()
    assert chains.shares[:, ~first].tolist() == apart.shares[:, inner][:, ~first].tolist()
    index = {prefix: node for node, prefix in enumerate(inner)}
    assert chains.parent[~first].tolist() == [index[node] for node in apart.parent[inner][~first]]
    seen = chains.dense_mask()
    assert (seen == apart.dense_mask()[np.ix_(inner, inner)]).all()
    ends = [index[node] if node >= 0 and rows[row] else -1 for row, node in enumerate(apart.row_leaf)]
    assert chains.row_leaf.tolist() == ends
    assert chains.row_tokens == sum(map(len, rows))


@given(ROWS, st.integers(1, 9))
def test_padding_adds_lonely_tokens_without_weight(rows: list[list[int]], multiple: int) -> None:
    forest = build_forest(TokenRows.of(rows, [[1.0] * len(row) for row in rows]))
    padded = forest.padded(multiple)
    own = len(forest)
    assert len(padded) % multiple == 0
    assert own <= len(padded) < own + multiple
    for name in ("tokens", "position", "parent", "end", "weight"):
        assert getattr(padded, name)[:own].tolist() == getattr(forest, name).tolist()
        assert getattr(padded, name).dtype == getattr(forest, name).dtype
    seen = padded.dense_mask()
    assert (seen[own:] == np.eye(len(padded), dtype=bool)[own:]).all()
    assert not seen[:own, own:].any()
    assert padded.parent[own:].tolist() == [-1] * (len(padded) - own)
    assert not padded.weight[own:].any()
    assert padded.row_tokens == forest.row_tokens


@given(ROWS)
def test_rows_are_sorted_with_their_common_prefixes(rows: list[list[int]]) -> None:
    order, common = sort_rows(TokenRows.of(rows))
    ranked = [rows[i] for i in order]
    assert ranked == sorted(rows)
    for i in range(1, len(ranked)):
        shared = 0
        for a, b in zip(ranked[i - 1], ranked[i], strict=False):
            if a != b:
                break
            shared += 1
        assert common[i] == shared


def test_a_hand_made_forest() -> None:
    #  7 ─ 1 ─ 2      rows: 7 1 2 | 7 1 3 | 7 1 3
    #        └ 3
    forest = build_forest(
        TokenRows.of([[7, 1, 2], [7, 1, 3], [7, 1, 3]], [[1, 0, 1], [1, 0, 1], [1, 0.5, 1]])
    )
    assert forest.tokens.tolist() == [7, 1, 2, 3]
    assert forest.position.tolist() == [0, 1, 2, 2]
    assert forest.parent.tolist() == [-1, 0, 1, 1]
    assert forest.end.tolist() == [4, 4, 3, 4]
    assert forest.weight.tolist() == [0, 0.5, 1, 2]
    assert forest.row_leaf.tolist() == [2, 3, 3]

"""Lists of items as a grammar, against all lists that there are."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.decode import Grammar, ItemList, Sampler
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.test_beam import catalogue
from tests.forest.reference import tiny


def written(grammar: Grammar, request: int) -> list[tuple[int, ...]]:
    """Everything that a grammar can write, with a check that it offers no token twice."""
    found, open_ = [], [((), grammar.start(request))]
    while open_:
        text, state = open_.pop()
        tokens = grammar.allowed(state)
        assert tokens is not None
        assert len(tokens) == len(set(tokens.tolist())) > 0
        for token in tokens.tolist():
            after = grammar.step(state, token)
            (found.append((*text, token)) if after is None else open_.append(((*text, token), after)))
    return found


@st.composite
def cases(
    draw: st.DrawFn,
) -> tuple[list[tuple[int, ...]], list[int], int, int, tuple[int, ...], tuple[int, ...]]:
    """Items of two tokens, some of which are the same; which of them may come; how many; what is between and behind."""
    code = st.tuples(st.integers(1, 3), st.integers(4, 6))
    items = draw(st.lists(code, min_size=1, max_size=5))
    rows = draw(st.lists(st.integers(0, len(items) - 1), min_size=1, max_size=5))
    most = draw(st.integers(1, 3))
    between = draw(st.sampled_from([(), (7,), (7, 8)]))
    end = draw(st.sampled_from([(9,), (9, 7)]))
    different = len({items[row] for row in rows})
    least = draw(st.integers(1, min(most, different)))
    return items, rows, most, least, between, end


@settings(max_examples=80, deadline=None)
@given(cases())
def test_all_lists_without_repetition_and_nothing_else(
    case: tuple[list[tuple[int, ...]], list[int], int, int, tuple[int, ...], tuple[int, ...]],
) -> None:
    items, rows, most, least, between, end = case
    trie = Trie.build(TokenRows.of([list(item) for item in items]))
    grammar = ItemList(
        trie, most, least, between=between, end=end, rows=[np.arange(len(items)), np.array(rows)]
    )
    grammar.check(2)
    for request, own in enumerate([items, [items[row] for row in rows]]):
        different = sorted(set(own))
        wanted = []
        for count in range(least, min(most, len(different)) + 1):
            for some in permutations(different, count):
                text = list(some[0])
                for item in some[1:]:
                    text += [*between, *item]
                wanted.append((*text, *end))
        assert sorted(written(grammar, request)) == sorted(wanted)
    if least == most:
        assert {len(text) for text in written(ItemList(trie, 1), 0)} == {2}


def test_a_model_writes_a_list() -> None:
    lm, items = tiny("qwen3").eval(), catalogue(12)
    grammar = ItemList(Trie.build(TokenRows.of(items)), 12, 3, between=[3], end=[4, 5])
    found = Sampler(lm, max_new_tokens=100, grammar=grammar).sample(TokenRows.of([[1, 2], [7]]), 20)
    assert set(found.why) == {"grammar"}
    lengths = set()
    for number in range(40):
        row = found.tokens[number].tolist()
        assert row[-2:] == [4, 5]
        width = len(items[0])
        walks = [row[at : at + width] for at in range(0, len(row) - 2, width + 1)]
        assert all(walk in items for walk in walks)
        assert len({tuple(walk) for walk in walks}) == len(walks)
        lengths.add(len(walks))
    assert min(lengths) >= 3
    assert len(lengths) > 1


def test_lists_that_cannot_be() -> None:
    trie = Trie.build(TokenRows.of([[1, 2], [1, 3], [1, 3]]))
    with pytest.raises(ConfigError, match="a list of 2 to 1 items"):
        ItemList(trie, 1, 2)
    with pytest.raises(ConfigError, match="doesn't say where it ends"):
        ItemList(trie, 2, 1)
    with pytest.raises(ConfigError, match="doesn't say where it ends"):
        ItemList(trie, 2, 1, end=[1])
    with pytest.raises(ConstraintError, match="request 0 may get 2 items, a list has 3"):
        ItemList(trie, 3)
    with pytest.raises(ConfigError, match="items for 1 requests of 2"):
        ItemList(trie, 1, rows=[np.array([0])]).check(2)
    with pytest.raises(ConstraintError, match="item row 3"):
        ItemList(trie, 1, rows=[np.array([3])])
    with pytest.raises(ConstraintError, match="begin another"):
        ItemList(Trie.build(TokenRows.of([[1], [1, 2]])), 1)

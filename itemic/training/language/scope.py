"""Where in a forest items are named, and what else an item could have had there."""

from __future__ import annotations

import numpy as np

from itemic.forest.build import TokenForest
from itemic.forest.rows import Int64
from itemic.forest.scope import Scope
from itemic.sid.trie import Trie


def item_scope(forest: TokenForest, trie: Trie) -> Scope:
    """The trie's places of all tokens inside items.

    An item's first token competes with the vocabulary, as it also says that there is an item at all; every later one
    stands at a place of the trie. What begins as an item and is none, in any of the rows through it, is text. Of items
    that overlap the one that begins first counts.

    Args:
        forest: of any rows.
        trie: of the items' names, none of which begins another one.
    """
    place = np.full(len(forest), -1, np.int64)
    parent, tokens = forest.parent.astype(np.int64), forest.tokens
    order = np.argsort(parent, kind="stable")
    begins = np.searchsorted(parent[order], np.arange(len(forest) + 1))
    state = trie.step(np.zeros(len(forest), np.int64), tokens).astype(np.int64)
    node = np.flatnonzero(state >= 0)
    walks: list[tuple[Int64, Int64, Int64]] = [(node, state[node], np.full(len(node), -1))]
    while len(node := walks[-1][0]):  # all names at once, a token of each further every time
        state = walks[-1][1]
        widths = np.where(trie.terminal[state], 0, begins[node + 1] - begins[node])
        up = np.repeat(np.arange(len(node)), widths)
        inside = np.arange(len(up)) - np.repeat(np.cumsum(widths) - widths, widths)
        child = order[begins[node][up] + inside]
        after = trie.step(state[up], tokens[child]).astype(np.int64)
        legal = after >= 0
        walks.append((child[legal], after[legal], up[legal]))
    whole = [trie.terminal[state] for _, state, _ in walks]
    for depth in range(len(walks) - 1, 0, -1):
        whole[depth - 1][walks[depth][2][whole[depth]]] = True
    for depth in range(1, len(walks)):
        node, _, up = walks[depth]
        kept = whole[depth]
        place[node[kept]] = walks[depth - 1][1][up[kept]]
    return Scope(place, trie.first, trie.token)

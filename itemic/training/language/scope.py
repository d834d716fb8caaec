"""Where in a forest items are named, and what else an item could have had there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from itemic.forest.build import TokenForest
from itemic.forest.rows import Float32, Int32, Int64
from itemic.forest.scope import Scope
from itemic.forest.unwanted import Unwanted
from itemic.sid.trie import Trie


@dataclass(frozen=True, eq=False)
class Mentions:
    """Where a forest names items. What begins as an item and is none, in any of the rows through it, is text. Of items
    that overlap the one that begins first counts.

    Attributes:
        place: int64 ``[T]``, the trie's node that the parent of each token inside an item stands at, 0 for an item's
            first token; -1 for text.
        end: int64 ``[M]``, rising: tokens that end items.
        name: int64 ``[M]``, the trie's node that each of them leads to.
    """

    place: Int64
    end: Int64
    name: Int64

    @classmethod
    def of(cls, forest: TokenForest, trie: Trie) -> Mentions:
        """Those of a forest of any rows, by the trie of the items' names, none of which begins another one."""
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
        ends = [(node[last], state[last]) for (node, state, _), last in zip(walks, whole, strict=True)]
        for depth in range(len(walks) - 1, 0, -1):
            whole[depth - 1][walks[depth][2][whole[depth]]] = True
        place[walks[0][0][whole[0]]] = 0
        for depth in range(1, len(walks)):
            node, _, up = walks[depth]
            kept = whole[depth]
            place[node[kept]] = walks[depth - 1][1][up[kept]]
        end, name = (np.concatenate(parts) for parts in zip(*ends, strict=True))
        own = place[end] == trie.parent[name]  # not those that end inside of another one
        rising = np.argsort(end[own], kind="stable")
        return cls(place, end[own][rising], name[own][rising])


def item_scope(mentions: Mentions, trie: Trie) -> Scope:
    """The trie's places of all tokens inside items.

    An item's first token competes with the vocabulary, as it also says that there is an item at all; every later one
    stands at a place of the trie.
    """
    return Scope(np.where(mentions.place > 0, mentions.place, -1), trie.first, trie.token)


def named_again(forest: TokenForest, mentions: Mentions, trie: Trie, factor: Float32) -> Unwanted:
    """What would name an item again, in the place of each token that names one.

    At a token inside an item or at its beginning that is each token which leads to nothing but items that the same row
    has named before; the one that stands there is none of them, also where the row does name an item again.

    Args:
        forest: of any rows.
        mentions: its items.
        trie: of their names.
        factor: float32 ``[T]``, what unlikelihood counts in the place of each token. Where it is 0 nothing is unwanted,
            and what is named there doesn't count as named.
    """
    at = np.flatnonzero((mentions.place >= 0) & (factor > 0))
    heard = factor[mentions.end] > 0
    end, (names, number) = mentions.end[heard], np.unique(mentions.name[heard], return_inverse=True)
    low = np.searchsorted(at, end + 1)
    widths = np.searchsorted(at, forest.end[end]) - low  # what goes on from there
    which = np.repeat(np.arange(len(end)), widths)
    inside = np.arange(len(which)) - np.repeat(np.cumsum(widths) - widths, widths)
    once = np.unique(
        at[low[which] + inside] * max(len(names), 1) + number[which]
    )  # however often it was named
    node, name = np.divmod(once, max(len(names), 1))
    ways = _ways(trie, names)
    place = mentions.place[node]
    child = ways[name, np.minimum(trie.depth[place] + 1, ways.shape[1] - 1)].astype(np.int64)
    passes = trie.parent[child] == place
    spent, count = np.unique(node[passes] * len(trie) + child[passes], return_counts=True)
    node, child = np.divmod(spent, len(trie))
    gone = (count == trie.subtree_sequences[child]) & (trie.token[child] != forest.tokens[node])
    return Unwanted(node[gone], trie.token[child[gone]], factor)


def _ways(trie: Trie, nodes: Int64) -> Int32:
    """The nodes on the way to each node, by depth, int32 ``[n, D + 1]``, at least two columns; 0 beyond it."""
    found = np.zeros((len(nodes), max(int(trie.depth[nodes].max(initial=0)), 1) + 1), np.int32)
    here, row = nodes.copy(), np.arange(len(nodes))
    while len(row):
        found[row, trie.depth[here]] = here
        row, here = row[here > 0], trie.parent[here[here > 0]].astype(np.int64)
    return found

"""What is known of a search before any token is computed: batches, forced tokens, excluded items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.errors import ConstraintError
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

SHORTEST_TEMPLATE = 4  # fewer tokens aren't worth a pass of their own


@dataclass(frozen=True)
class Forced:
    """Tokens that every item has at the same place, such as the ones that open and close a semantic ID.

    Attributes:
        lead: the tokens before the first choice; they join the prompt.
        root: the trie's node after them.
        free: bool ``[D]``, for each depth whether the token that leads there is the same for all items, so that its
            probability says nothing about which item is meant.
        tail: bool ``[N]``, nodes below which only such tokens remain, for exactly one sequence.
    """

    lead: tuple[int, ...]
    root: int
    free: Bool
    tail: Bool


def forced_tokens(trie: Trie) -> Forced:
    """Find them: a depth counts where it has one token and every sequence reaches it."""
    bounds = trie.depth_first
    ends = np.add.reduceat(trie.terminal.astype(np.int64), bounds[:-1])
    alone = np.array([len(level) == 1 for level in trie.levels], bool)
    reached = np.cumsum(ends)[:-1] == 0  # no sequence ends above this depth
    free = np.concatenate([[False], alone & reached])
    lead, root = [], 0
    while free[trie.depth[root] + 1]:
        below = int(trie.first[root])
        if trie.terminal[below]:  # an item ends here and must come up as a candidate
            break
        lead.append(int(trie.token[below]))
        root = below
    last = len(free)
    while last > 1 and free[last - 1]:
        last -= 1
    tail = (trie.depth >= last - 1) & (trie.depth > trie.depth[root])
    return Forced(tuple(lead), root, free, tail)


class Excluded:
    """Which nodes lead to excluded items only, by request.

    Args:
        trie: of all items.
        items: for each request, the item rows that it must not get.
    """

    def __init__(self, trie: Trie, items: Sequence[npt.NDArray[np.integer]]) -> None:
        self.nodes = len(trie)
        node_of = np.full(int(trie.items.max(initial=-1)) + 1, -1, np.int64)
        node_of[trie.items] = np.repeat(np.arange(len(trie)), np.diff(trie.item_first))
        self.items = [np.unique(np.asarray(some, np.int64)) for some in items]
        request = np.repeat(np.arange(len(items)), [len(some) for some in self.items])
        item = np.concatenate([*self.items, np.zeros(0, np.int64)])
        wrong = (item < 0) | (item >= len(node_of))
        if wrong.any():
            raise ConstraintError(
                f"request {request[wrong][0]} excludes item row {item[wrong][0]}, which is not in the catalogue",
                "Exclude rows of the same index.",
            )
        node = node_of[item]
        ends = request * self.nodes + node
        keys = []
        while len(node):
            keys.append(request * self.nodes + node)
            above = trie.parent[node] >= 0
            request, node = request[above], trie.parent[node[above]].astype(np.int64)
        key, count = np.unique(np.concatenate([*keys, np.zeros(0, np.int64)]), return_counts=True)
        self.closed = key[count == trie.subtree_sizes[key % self.nodes]]
        key, count = np.unique(ends, return_counts=True)
        self.emptied = key[count == np.diff(trie.item_first)[key % self.nodes]]

    def excluded(self, request: Int64, item: npt.NDArray[np.integer]) -> Bool:
        """Whether each item is excluded for each request, bool ``[C]``."""
        size = int(max(item.max(initial=0), *(some.max(initial=0) for some in self.items))) + 1
        keys = [number * size + some for number, some in enumerate(self.items)]
        return ~_lacks(np.concatenate([*keys, np.zeros(0, np.int64)]), request * size + item)

    def ends(self, request: Int64, node: npt.NDArray[np.integer]) -> Bool:
        """Whether an item that ends at each node itself may still be recommended, bool ``[C]``."""
        return _lacks(self.emptied, request * self.nodes + node)

    def open(self, request: Int64, node: npt.NDArray[np.integer]) -> Bool:
        """Whether something may still be recommended below each node, bool ``[C]``."""
        return _lacks(self.closed, request * self.nodes + node)


def _lacks(keys: Int64, wanted: Int64) -> Bool:
    """Which of the wanted numbers are not among the rising ``keys``."""
    if not len(keys):
        return np.ones(len(wanted), bool)
    lacks: Bool = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] != wanted
    return lacks


def batches(lengths: Int64, beams: int, max_tokens: int) -> Iterator[Int64]:
    """Requests to compute together: like lengths, at most ``max_tokens`` of prompts or of leaves (at least one)."""
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        stop, total = begin, 0
        while stop < len(order) and (
            stop == begin
            or (total + lengths[order[stop]] <= max_tokens and (stop - begin + 1) * beams <= max_tokens)
        ):
            total += int(lengths[order[stop]])
            stop += 1
        yield order[begin:stop]
        begin = stop


def ancestors(trie: Trie, node: Int64) -> Int64:
    """int64 ``[W, D]``: the node at each depth on the way from the root to each node, itself included; -1 below."""
    path = np.full((len(node), int(trie.depth[node].max(initial=0)) + 1), -1, np.int64)
    row = np.arange(len(node))
    while len(row):
        path[row, trie.depth[node]] = node
        above = trie.parent[node] >= 0
        row, node = row[above], trie.parent[node[above]].astype(np.int64)
    return path


def common_prefix(prompts: TokenRows) -> int:
    """How many tokens all prompts begin with, at most all but one of the shortest."""
    width = max(int(prompts.lengths.min()) - 1, 0)
    if not width:
        return 0
    block = prompts.tokens[prompts.offsets[:-1, None] + np.arange(width)]
    same = (block == block[0]).all(axis=0)
    return width if same.all() else int(same.argmin())


def check_prompts(prompts: TokenRows, vocabulary: int, room: int | None, more: int) -> None:
    """Refuse prompts that a model can't continue.

    Args:
        prompts: what is asked.
        vocabulary: how many tokens the model knows.
        room: where its learned positions end; None where it has none.
        more: how many tokens it will read behind a prompt.

    Raises:
        ConstraintError: a prompt is empty, has unknown tokens or leaves no room; one of them is named.
    """
    empty = np.flatnonzero(prompts.lengths == 0)
    if len(empty):
        raise ConstraintError(f"prompt {empty[0]} is empty", "Begin it with at least one token.")
    if room is not None and len(prompts) and int(prompts.lengths.max()) + more > room:
        long = int(prompts.lengths.argmax())
        raise ConstraintError(
            f"prompt {long} has {prompts.lengths[long]} tokens, up to {more} more are to come, "
            f"and the model's positions end at {room}",
            "Shorten the prompt by the oldest items of its history, or ask for fewer tokens.",
        )
    wrong = np.flatnonzero((prompts.tokens < 0) | (prompts.tokens >= vocabulary))
    if len(wrong):
        row = int(np.searchsorted(prompts.offsets, wrong[0], "right")) - 1
        raise ConstraintError(
            f"prompt {row} has token {prompts.tokens[wrong[0]]}, which the model doesn't know",
            "Encode prompts with the model's own tokenizer.",
        )


def chains(trie: Trie) -> npt.NDArray[np.bool_]:
    """bool ``[N]``: exactly one sequence goes through the node, so nothing below it is a choice."""
    ends = np.diff(trie.item_first) > 0
    sequences = ends.astype(np.int64)
    for node_first, node_stop in reversed(
        list(zip(trie.depth_first[1:-1], trie.depth_first[2:], strict=True))
    ):
        np.add.at(sequences, trie.parent[node_first:node_stop], sequences[node_first:node_stop])
    alone: npt.NDArray[np.bool_] = sequences == 1
    return alone


def without(prompts: TokenRows, skip: int, lead: tuple[int, ...]) -> TokenRows:
    """Prompts without their first ``skip`` tokens and with ``lead`` behind them."""
    lengths = prompts.lengths - skip + len(lead)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.empty(offsets[-1], np.int32)
    row = np.repeat(np.arange(len(prompts)), lengths)
    inside = np.arange(len(tokens)) - offsets[row]
    own = inside < lengths[row] - len(lead)
    tokens[own] = prompts.tokens[prompts.offsets[row[own]] + skip + inside[own]]
    if lead:
        tokens[~own] = np.asarray(lead, np.int32)[(inside - lengths[row] + len(lead))[~own]]
    return TokenRows(tokens, offsets)

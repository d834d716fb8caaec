"""The trie of all items' token sequences, as flat arrays: what constrained decoding walks along.

Nodes are numbered breadth-first and siblings by their token, so the children of node ``n`` are the nodes
``first[n] … first[n + 1] - 1`` and a step of many beams is one gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from itemic.errors import ConstraintError
from itemic.forest.rows import TokenRows

Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Nodes = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Trie:
    """A prefix tree over token sequences of any length; node 0 is the root, before any token.

    A sequence may be the beginning of another one, and several items may share one sequence.

    Attributes:
        first: int32 ``[N + 1]``; the children of ``n`` are ``first[n]:first[n + 1]``, rising by token.
        token: int32 ``[N]``, the token that leads to the node; -1 at the root.
        parent: int32 ``[N]``; -1 at the root.
        depth: int16 ``[N]``, tokens from the root.
        item_first: int32 ``[N + 1]``; the items whose sequence ends at ``n`` are
            ``items[item_first[n]:item_first[n + 1]]``, rising.
        items: int32 ``[R]``, rows of the ``TokenRows`` that the trie was built from.
    """

    first: Int32
    token: Int32
    parent: Int32
    depth: Int16
    item_first: Int32
    items: Int32

    def __repr__(self) -> str:
        return (
            f"<Trie: {len(self.items):,} items, {len(self.token):,} nodes, depth {self.depth.max(initial=0)}>"
        )

    @classmethod
    def build(cls, rows: TokenRows) -> Trie:
        """The trie of ``rows``, one row an item.

        All rows go down together, one depth at a time, and stay ordered by node: once they have parted there
        is nothing left to sort.

        Raises:
            ConstraintError: there are no rows, or a row is empty, negative or too long.
        """
        _check(rows)
        shift = int(rows.tokens.min())
        span = int(rows.tokens.max()) - shift + 1
        ends_at = np.zeros(len(rows), np.int64)  # the node where each row ends
        tokens, parents, widths = [np.full(1, -1, np.int64)], [np.full(1, -1, np.int64)], [1]
        active = np.arange(len(rows))
        node = np.zeros(len(rows), np.int64)  # relative to the first node of its depth
        start = 0  # first node of the current depth
        for depth in range(int(rows.lengths.max())):
            longer = rows.lengths[active] > depth
            active, node = active[longer], node[longer]
            key = node * span + (rows.tokens[rows.offsets[active] + depth] - shift)
            order = _argsort(key, widths[-1] * span)
            active, key = active[order], key[order]
            fresh = np.concatenate([[True], key[1:] != key[:-1]])
            node = np.cumsum(fresh) - 1
            tokens.append(key[fresh] % span + shift)
            parents.append(key[fresh] // span + start)
            start += widths[-1]
            widths.append(len(parents[-1]))
            ends_at[active] = node + start
        return cls._from_levels(tokens, parents, widths, ends_at)

    @classmethod
    def _from_levels(
        cls, tokens: list[Int64], parents: list[Int64], widths: list[int], ends_at: Int64
    ) -> Trie:
        size = sum(widths)
        if size >= np.iinfo(np.int32).max:
            raise ConstraintError(
                f"the trie would have {size} nodes", "Use shorter sequences or fewer items."
            )
        parent = np.concatenate(parents)
        children = np.bincount(parent[1:], minlength=size)
        ending = np.bincount(ends_at, minlength=size)
        return cls(
            first=np.concatenate([[1], 1 + np.cumsum(children)]).astype(np.int32),
            token=np.concatenate(tokens).astype(np.int32),
            parent=parent.astype(np.int32),
            depth=np.repeat(np.arange(len(widths), dtype=np.int16), widths),
            item_first=np.concatenate([[0], np.cumsum(ending)]).astype(np.int32),
            items=_argsort(ends_at, size).astype(np.int32),
        )

    def __len__(self) -> int:
        """Nodes, the root included."""
        return len(self.token)

    # --------------------------------------------------------------- walking

    def children(self, nodes: Nodes) -> tuple[Int32, Int32, Int64]:
        """The children of many nodes at once.

        Returns:
            tokens int32 ``[C]``, child nodes int32 ``[C]``, offsets int64 ``[len(nodes) + 1]``: the children
            of ``nodes[i]`` are at ``offsets[i]:offsets[i + 1]``, rising by token.
        """
        child, offsets = _gather(self.first, nodes)
        return self.token[child], child.astype(np.int32), offsets

    def items_at(self, nodes: Nodes) -> tuple[Int32, Int64]:
        """The items whose sequences end at each node: items int32, offsets int64 ``[len(nodes) + 1]``."""
        place, offsets = _gather(self.item_first, nodes)
        return self.items[place], offsets

    def step(self, nodes: Nodes, tokens: npt.NDArray[np.integer]) -> Int32:
        """Where each token leads from each node: int32, -1 where it is not allowed (or the node is -1)."""
        wanted = np.asarray(nodes, np.int64) * self._span + np.asarray(tokens, np.int64)
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        legal = (self._keys[place] == wanted) & (np.asarray(nodes) >= 0)
        legal &= (np.asarray(tokens) >= 0) & (np.asarray(tokens) < self._span)
        return np.where(legal, place + 1, -1).astype(np.int32)

    def find(self, rows: TokenRows) -> Int32:
        """The node at the end of each row, int32 ``[len(rows)]``; -1 where the row leaves the trie."""
        node = np.zeros(len(rows), np.int32)
        for depth in range(int(rows.lengths.max(initial=0))):
            active = np.flatnonzero((rows.lengths > depth) & (node >= 0))
            node[active] = self.step(node[active], rows.tokens[rows.offsets[active] + depth])
        return node

    def contains(self, rows: TokenRows) -> Bool:
        """Whether each row is the whole sequence of an item."""
        node = self.find(rows)
        found: Bool = (node >= 0) & self.terminal[node]
        return found

    @cached_property
    def _span(self) -> int:
        return int(self.token.max()) + 1

    @cached_property
    def _keys(self) -> Int64:
        """(parent, token) of nodes 1 … N - 1 as one number; breadth-first numbering makes them rise."""
        return self.parent[1:].astype(np.int64) * self._span + self.token[1:]

    # ------------------------------------------------------------ properties

    @cached_property
    def terminal(self) -> Bool:
        """bool ``[N]``: a sequence ends here (others may go on)."""
        ends: Bool = np.diff(self.item_first) > 0
        return ends

    @cached_property
    def leaf(self) -> Bool:
        """bool ``[N]``: no sequence goes on from here."""
        childless: Bool = np.diff(self.first) == 0
        return childless

    @cached_property
    def depth_first(self) -> Int64:
        """int64 ``[D + 2]``: the nodes at depth ``d`` are ``depth_first[d]:depth_first[d + 1]``."""
        return np.searchsorted(self.depth, np.arange(int(self.depth[-1]) + 2)).astype(np.int64)

    @cached_property
    def levels(self) -> tuple[Int32, ...]:
        """The distinct tokens, rising, that lead to depth 1, 2, …: what may stand at each place."""
        return tuple(np.unique(self.token[low:high]) for low, high in pairwise(self.depth_first[1:]))

    @cached_property
    def subtree_sizes(self) -> Int32:
        """int32 ``[N]``: items whose sequences pass through the node or end there."""
        return self._below(np.diff(self.item_first))

    @cached_property
    def subtree_sequences(self) -> Int32:
        """int32 ``[N]``: distinct sequences that pass through the node or end there."""
        return self._below(self.terminal)

    def _below(self, own: npt.NDArray[np.generic]) -> Int32:
        """The sum of ``own``, ``[N]``, over each node and what is below it."""
        total = own.astype(np.int64)
        for low, high in reversed(list(pairwise(self.depth_first[1:]))):
            above = self.parent[low]  # the parents of one depth's nodes are a run of the depth before
            sums = np.bincount(self.parent[low:high] - above, total[low:high])
            total[above : above + len(sums)] += sums.astype(np.int64)
        return total.astype(np.int32)


def _check(rows: TokenRows) -> None:
    if not len(rows):
        raise ConstraintError("a trie needs at least one item", "Build it from an index that has items.")
    empty = np.flatnonzero(rows.lengths == 0)
    if len(empty):
        raise ConstraintError(
            f"{len(empty)} items have no tokens, first row {empty[0]}",
            "Give every item a semantic ID or a title before building the trie.",
        )
    if int(rows.tokens.min()) < 0:
        row = int(np.searchsorted(rows.offsets, int(rows.tokens.argmin()), "right")) - 1
        raise ConstraintError(f"item row {row} has the token id {rows.tokens.min()}", "Token ids start at 0.")
    if int(rows.lengths.max()) > np.iinfo(np.int16).max:
        raise ConstraintError(
            f"item row {rows.lengths.argmax()} has {rows.lengths.max()} tokens", "Use shorter titles."
        )


def _argsort(key: Int64, span: int) -> Int64:
    """A stable order of ``key``, ``0 <= key < span``.

    By 16 bits at a time: numpy sorts such integers by radix, ten times faster than wide ones.
    """
    order = np.arange(len(key))
    if (key[1:] >= key[:-1]).all():
        return order
    for bits in range(0, (span - 1).bit_length(), 16):
        digit = ((key >> bits) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def _gather(first: Int32, nodes: Nodes) -> tuple[Int64, Int64]:
    """The numbers in ``first[n]:first[n + 1]`` of each node, end to end, and where each node's begin."""
    chosen = np.asarray(nodes, np.int64)
    start = first[chosen].astype(np.int64)
    counts = first[chosen + 1] - start
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], counts), offsets

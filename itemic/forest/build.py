"""Rows to forest: sort, longest common prefixes of neighbours, depth-first numbering. No loop over tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from itemic.forest.rows import Float32, Int32, Int64, TokenRows

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenForest:
    """Prefix trees written out in depth-first order, of a node's children the one with most tokens below it first.

    The attention rule is one line: query q sees key k ⇔ k ≤ q < end[k]; in a layer with a sliding window also
    position[q] - position[k] < window.

    Attributes:
        tokens: int32 ``[T]``, token ids.
        position: int32 ``[T]``, depth in the tree; the position id for RoPE.
        parent: int32 ``[T]``, index of the parent, -1 at a root.
        end: int32 ``[T]``, one past the index of the last descendant.
        weight: float32 ``[T]``, how much the loss of predicting this token from its parent counts: the sum over all
            rows through it; 0 at a root.
        row_leaf: int32 ``[R]``, the index of the last token of each row the forest was made from, -1 for an empty row.
        shares: float32 ``[S, T]``, the part of the weight that comes from rows of each label; None without labels.
    """

    tokens: Int32
    position: Int32
    parent: Int32
    end: Int32
    weight: Float32
    row_leaf: Int32
    shares: Float32 | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"<TokenForest: {len(self.row_leaf):,} rows, {len(self):,} tokens ({self.row_tokens:,} row by row)>"

    @cached_property
    def row_tokens(self) -> int:
        """How many tokens the rows have one by one, before sharing."""
        return int((self.position[self.row_leaf[self.row_leaf >= 0]] + 1).sum())

    def padded(self, multiple: int) -> TokenForest:
        """The same forest with trees of one weightless token at its end, so that ``multiple`` divides its length."""
        spare = -len(self) % multiple
        if not spare:
            return self
        zeros = np.zeros(spare, np.int32)
        return TokenForest(
            np.concatenate([self.tokens, zeros]),
            np.concatenate([self.position, zeros]),
            np.concatenate([self.parent, zeros - 1]),
            np.concatenate([self.end, np.arange(len(self) + 1, len(self) + spare + 1, dtype=np.int32)]),
            np.concatenate([self.weight, zeros.astype(np.float32)]),
            self.row_leaf,
            None if self.shares is None else np.pad(self.shares, ((0, 0), (0, spare))),
        )

    def dense_mask(self, window: int | None = None) -> Bool:
        """bool ``[T, T]``, True where the query (row) sees the key (column): the rule, for references and tests."""
        index = np.arange(len(self.tokens))
        sees: Bool = (index[None, :] <= index[:, None]) & (index[:, None] < self.end[None, :])
        if window is None:
            return sees
        return sees & (self.position[:, None] - self.position[None, :] < window)


def build_forest(rows: TokenRows, labels: Int32 | None = None, count: int = 0) -> TokenForest:
    """Write rows as prefix trees; every distinct prefix is there once.

    Rows may repeat, be prefixes of each other, or be empty. Weights add up where rows share a token; the weight of a
    row's first token is dropped, as nothing predicts it.

    Args:
        rows: ``R`` token rows.
        labels: int32 ``[R]``, from 0 to ``count - 1``: weights are added up by label as well.
        count: how many labels there are.
    """
    order, common = sort_rows(rows)
    lengths = rows.lengths[order]
    fresh = lengths - common  # tokens that a row adds to the forest
    start = np.concatenate([[0], np.cumsum(fresh)]).astype(np.int64)
    total = int(start[-1])
    owner = np.repeat(np.arange(len(order)), fresh)  # sorted row that adds the node
    depth = np.arange(total) - start[owner] + common[owner]
    tokens = rows.tokens[rows.offsets[order][owner] + depth]
    drops = _RangeMinimum(common)
    end = start[drops.next_at_most(owner + 1, depth)]
    weight = np.zeros(total, np.float32)
    shares = None if labels is None else np.zeros((count, total), np.float32)
    if rows.weights is not None:
        at = np.flatnonzero(rows.weights)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        row = np.searchsorted(rows.offsets, at, "right") - 1
        inside = at - rows.offsets[row]
        at, row, inside = at[inside > 0], row[inside > 0], inside[inside > 0]
        node = _node(drops, start, common, place[row], inside)
        np.add.at(weight, node, rows.weights[at])
        if shares is not None and labels is not None:
            np.add.at(shares, (labels[row], node), rows.weights[at])
    leaf = np.full(len(order), -1, np.int64)
    full = lengths > 0
    leaf[order[full]] = _node(drops, start, common, np.flatnonzero(full), lengths[full] - 1)
    parent = _parents(depth)
    place = _largest_first(parent, end)
    back = np.argsort(place)  # the node that goes to each place
    leaf[leaf >= 0] = place[leaf[leaf >= 0]]
    return TokenForest(
        tokens[back].astype(np.int32),
        depth[back].astype(np.int32),
        np.where(parent >= 0, place[parent], -1)[back].astype(np.int32),
        (place + end - np.arange(total))[back].astype(np.int32),
        weight[back],
        leaf.astype(np.int32),
        None if shares is None else shares[:, back],
    )


def _largest_first(parent: Int64, end: Int64) -> Int64:
    """Where each node goes if of a node's children the one with most below comes first, int64 ``[T]``. Roots stay.

    A place is the sum, over a node and what is above it, of what stands between each of them and its parent.
    """
    total = len(parent)
    index = np.arange(total)
    size = end - index
    order = np.lexsort((-size, parent))
    before = np.cumsum(size[order]) - size[order]  # exclusive, over all families
    leads = np.diff(parent[order], prepend=-2) != 0
    before -= np.maximum.accumulate(np.where(leads, before, 0))
    step = np.empty(total, np.int64)
    step[order] = 1 + before
    roots = parent < 0
    step[roots] = index[roots]
    change = np.zeros(total + 1, np.int64)
    np.add.at(change, index, step)
    np.add.at(change, end, -step)
    return np.cumsum(change)[:-1]


def chain_forest(rows: TokenRows, labels: Int32 | None = None, count: int = 0) -> TokenForest:
    """Rows side by side, each a tree of its own: nothing is shared. Arguments as in :func:`build_forest`."""
    lengths = rows.lengths
    first = np.repeat(rows.offsets[:-1], lengths)
    at = np.arange(len(rows.tokens))
    depth = at - first
    weight = np.zeros(len(at), np.float32) if rows.weights is None else rows.weights.astype(np.float32).copy()
    weight[depth == 0] = 0
    shares = None
    if labels is not None:
        shares = np.zeros((count, len(at)), np.float32)
        shares[np.repeat(labels, lengths), at] = weight
    return TokenForest(
        rows.tokens.astype(np.int32),
        depth.astype(np.int32),
        np.where(depth > 0, at - 1, -1).astype(np.int32),
        np.repeat(rows.offsets[1:], lengths).astype(np.int32),
        weight,
        np.where(lengths > 0, rows.offsets[1:] - 1, -1).astype(np.int32),
        shares,
    )


def sort_rows(rows: TokenRows) -> tuple[Int64, Int64]:
    """Lexicographic order of the rows, and how many leading tokens each shares with the one before it in that order.

    Returns:
        ``(order, common)``, both int64 ``[R]``; ``common[0]`` is 0.
    """
    lengths = rows.lengths
    width = int(lengths.max(initial=0))
    if width == 0:
        return np.arange(len(rows)), np.zeros(len(rows), np.int64)
    table = np.zeros((len(rows), width), ">u4")  # 0 pads; big-endian bytes compare like the numbers
    filled = np.arange(width) < lengths[:, None]
    table[filled] = rows.tokens.astype(np.int64) + 1
    order = np.argsort(table.view(f"S{4 * width}")[:, 0], kind="stable")
    ranked = table[order]
    same = (ranked[1:] == ranked[:-1]) & (ranked[1:] != 0)
    common = np.where(same.all(1), width, same.argmin(1))
    return order, np.concatenate([[0], common]).astype(np.int64)


def _node(drops: _RangeMinimum, start: Int64, common: Int64, row: Int64, depth: Int64) -> Int64:
    """The node at a depth of a (sorted) row: the nearest row before it that added a node there owns it."""
    owner = drops.previous_at_most(row, depth)
    return start[owner] + depth - common[owner]


def _parents(depth: Int64) -> Int64:
    """The parent of a node is the last node before it that is one level up."""
    total = len(depth)
    index = np.arange(total)
    keys = np.sort(depth * total + index)
    found = keys[np.searchsorted(keys, (depth - 1) * total + index) - 1] % max(total, 1)
    return np.where(depth > 0, found, -1)


class _RangeMinimum:
    """Minima over all power-of-two windows of an array, to find the nearest value at most a bound."""

    def __init__(self, values: Int64) -> None:
        self.size = len(values)
        self.levels = [values]
        while 2 ** len(self.levels) <= self.size:
            last, half = self.levels[-1], 2 ** (len(self.levels) - 1)
            self.levels.append(np.minimum(last[:-half], last[half:]))

    def next_at_most(self, begin: Int64, bound: Int64) -> Int64:
        """The first index ≥ ``begin`` whose value is ≤ ``bound``; the array's length where there is none."""
        at = begin.astype(np.int64)
        for level in range(len(self.levels) - 1, -1, -1):
            window = self.levels[level]
            inside = at + 2**level <= self.size
            skip = inside & (window[np.minimum(at, len(window) - 1)] > bound)
            at = at + skip * 2**level
        return at

    def previous_at_most(self, begin: Int64, bound: Int64) -> Int64:
        """The last index ≤ ``begin`` whose value is ≤ ``bound``; there must be one."""
        at = begin.astype(np.int64)
        for level in range(len(self.levels) - 1, -1, -1):
            window = self.levels[level]
            first = at - 2**level + 1
            skip = (first > 0) & (window[np.maximum(first, 0)] > bound)
            at = at - skip * 2**level
        return at

"""Packing: which rows are computed together. Groups of rows that share their beginnings stay together."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

import numpy as np

from itemic.forest.build import sort_rows
from itemic.forest.rows import Int64, TokenRows

_CHUNK_TOKENS = 8_000_000  # padded table entries sorted at once
OPEN = 16  # blocks that are filled at the same time


def group_sizes(rows: TokenRows, groups: Int64) -> tuple[Int64, Int64, Int64]:
    """How many forest nodes each group of rows needs, alone.

    Args:
        rows: ``R`` token rows.
        groups: int64 ``[R]``, equal numbers for rows that belong together (a user, a prompt).

    Returns:
        ``(by_group, first, sizes)``: row numbers sorted by group, int64 ``[R]``; where each of the G groups begins in
        it, int64 ``[G + 1]``; its nodes, int64 ``[G]``.
    """
    by_group = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[by_group])) + 1
    first = (
        np.concatenate([[0], edges, [len(by_group)]]).astype(np.int64)
        if len(by_group)
        else np.zeros(1, np.int64)
    )
    nodes = np.zeros(len(rows), np.int64)
    width = (
        np.maximum(np.maximum.accumulate(rows.lengths[by_group]), 1)
        if len(by_group)
        else np.zeros(0, np.int64)
    )
    begin = 0
    while begin < len(first) - 1:
        stop = begin + 1
        while (
            stop < len(first) - 1
            and (first[stop + 1] - first[begin]) * width[first[stop + 1] - 1] < _CHUNK_TOKENS
        ):
            stop = min(len(first) - 1, begin + 2 * (stop - begin))
        part = by_group[first[begin] : first[stop]]
        label = np.repeat(np.arange(stop - begin), np.diff(first[begin : stop + 1]))
        nodes[part] = _fresh_tokens(rows.take(part), label)
        begin = stop
    sizes = np.add.reduceat(nodes[by_group], first[:-1]) if len(by_group) else np.zeros(0, np.int64)
    return by_group, first, sizes


def _fresh_tokens(rows: TokenRows, labels: Int64) -> Int64:
    """How many nodes each row adds to its group's forest (one label token in front keeps groups apart)."""
    lengths = rows.lengths + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.empty(offsets[-1], np.int32)
    heads = np.zeros(offsets[-1], bool)
    heads[offsets[:-1]] = True
    tokens[heads] = labels
    tokens[~heads] = rows.tokens
    order, common = sort_rows(TokenRows(tokens, offsets))
    fresh = np.empty(len(rows), np.int64)
    fresh[order] = lengths[order] - np.maximum(common, 1)
    return fresh


def plan_rows(rows: TokenRows, max_tokens: int, rng: np.random.Generator) -> list[Int64]:
    """Shuffle the rows and fill blocks of at most ``max_tokens`` tokens, nothing shared; 0 leaves each row alone.

    Returns:
        row numbers of each block, int64; every row is in exactly one block.
    """
    order = rng.permutation(len(rows))
    if not max_tokens:
        return [order[at : at + 1] for at in range(len(order))]
    blocks: list[Int64] = []
    lengths = rows.lengths[order]
    begin, size = 0, 0
    for at, length in enumerate(lengths.tolist()):
        if at > begin and size + length > max_tokens:
            blocks.append(order[begin:at])
            begin, size = at, 0
        size += length
    if begin < len(order):
        blocks.append(order[begin:])
    return blocks


def plan_blocks(
    rows: TokenRows, groups: Int64, max_tokens: int, rng: np.random.Generator | None = None
) -> list[Int64]:
    """Shuffle the groups and fill blocks of at most ``max_tokens`` forest nodes.

    A few blocks are open at a time, and a group goes into the first of them that has room for it. What it shares with
    a group that is there already (a system prompt, the template of a task) is counted once. A group that is larger
    than a block is cut between its rows, in lexicographic order so that neighbours still share; a single row that is
    larger stands alone.

    Args:
        rows: ``R`` token rows.
        groups: int64 ``[R]``, equal numbers for rows that belong together.
        max_tokens: forest nodes of a block.
        rng: the order of the groups; None keeps the order of their numbers.

    Returns:
        row numbers of each block, int64; every row is in exactly one block.
    """
    by_group, first, sizes = group_sizes(rows, groups)
    order = np.arange(len(sizes)) if rng is None else rng.permutation(len(sizes))
    pieces: list[Int64] = []
    costs: list[int] = []
    for group in order.tolist():
        members = by_group[first[group] : first[group + 1]]
        whole = [(members, int(sizes[group]))]
        for piece, size in whole if sizes[group] <= max_tokens else _cut(rows, members, max_tokens):
            pieces.append(piece)
            costs.append(size)
    leaders = np.array([piece[0] for piece in pieces], np.int64)
    blocks: list[Int64] = []
    for begin, stop in _windows(rows.lengths[leaders]):
        found = _fill(rows.take(leaders[begin:stop]), costs[begin:stop], max_tokens)
        blocks += [np.concatenate([pieces[begin + at] for at in block]) for block in found]
    return blocks


def _windows(lengths: Int64) -> Iterator[tuple[int, int]]:
    """Ranges of rows that are sorted at once, of about as many padded tokens."""
    begin = 0
    while begin < len(lengths):
        width = max(1, int(lengths[begin : begin + _CHUNK_TOKENS].max()))
        stop = min(len(lengths), begin + max(1, _CHUNK_TOKENS // width))
        yield begin, stop
        begin = stop


def _fill(leaders: TokenRows, costs: list[int], max_tokens: int) -> list[list[int]]:
    """First fit into at most :data:`OPEN` blocks; the fullest is closed for a new one.

    Args:
        leaders: of each group one row. A path that two groups share with these rows is in the trees of both.
        costs: nodes of each group alone.
        max_tokens: of a block.

    Returns:
        the groups of each block, in the order in which blocks were opened.
    """
    order, common = sort_rows(leaders)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    least = _Least(common)
    # what a group could share at the most: with its neighbours among all of them
    most = np.maximum(common, np.append(common[1:], 0))[place].tolist()
    blocks: list[list[int]] = []
    opened: list[_Open] = []
    for group, (at, cost) in enumerate(zip(place.tolist(), costs, strict=True)):
        for block in opened:
            if block.room + most[group] >= cost and block.room >= (net := cost - block.shared(at, least)):
                block.add(at, net)
                blocks[block.number].append(group)
                break
        else:
            if len(opened) == OPEN:
                opened.remove(min(opened, key=lambda each: each.room))
            opened.append(_Open(len(blocks), max_tokens))
            opened[-1].add(at, cost)
            blocks.append([group])
    return blocks


class _Open:
    """A block that is being filled: its number, its room in nodes, and the sorted places of its groups."""

    def __init__(self, number: int, room: int) -> None:
        self.number, self.room = number, room
        self._places: list[int] = []

    def add(self, place: int, cost: int) -> None:
        insort(self._places, place)
        self.room -= cost

    def shared(self, place: int, least: _Least) -> int:
        """The longest beginning that the row at a place of the sorted rows has in common with one of the block's: with
        the one before it, or the one after."""
        at = bisect_left(self._places, place)
        before = least(self._places[at - 1], place) if at else 0
        return max(before, least(place, self._places[at]) if at < len(self._places) else 0)


class _Least:
    """How many leading tokens two of the sorted rows have in common: the least of what neighbours between them have."""

    def __init__(self, common: Int64) -> None:
        levels = [common]
        while 2 ** len(levels) <= len(common):
            last, half = levels[-1], 2 ** (len(levels) - 1)
            levels.append(np.minimum(last[:-half], last[half:]))
        self._levels = [level.tolist() for level in levels]

    def __call__(self, first: int, second: int) -> int:
        """Of the rows at two places, the second one after the first."""
        level = (second - first).bit_length() - 1
        window: list[int] = self._levels[level]
        return int(min(window[first + 1], window[second + 1 - 2**level]))


def _cut(rows: TokenRows, members: Int64, max_tokens: int) -> list[tuple[Int64, int]]:
    """Parts of a group that is larger than a block, and their nodes."""
    order, common = sort_rows(rows.take(members))
    lengths = rows.lengths[members[order]]
    parts: list[tuple[Int64, int]] = []
    begin, size = 0, 0
    for at in range(len(order)):
        cost = int(lengths[at] - common[at]) if at > begin else int(lengths[at])
        if at > begin and size + cost > max_tokens:
            parts.append((members[order[begin:at]], size))
            begin, size, cost = at, 0, int(lengths[at])
        size += cost
    parts.append((members[order[begin:]], size))
    return parts

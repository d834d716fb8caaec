"""Packing: which rows are computed together. Groups of rows that share their beginnings stay together."""

from __future__ import annotations

import numpy as np

from itemic.forest.build import sort_rows
from itemic.forest.rows import Int64, TokenRows

_CHUNK_TOKENS = 8_000_000  # padded table entries sorted at once


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

    What groups share among each other (a system prompt) is counted in each of them, so a block may turn out smaller
    than planned, never larger. A group that is larger than a block is cut between its rows, in lexicographic order so
    that neighbours still share; a single row that is larger stands alone.

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
    blocks: list[Int64] = []
    current: list[Int64] = []
    room = max_tokens
    for group in order:
        members = by_group[first[group] : first[group + 1]]
        size = int(sizes[group])
        if size > max_tokens:
            blocks.extend(_cut(rows, members, max_tokens))
            continue
        if size > room:
            blocks.append(np.concatenate(current))
            current, room = [], max_tokens
        current.append(members)
        room -= size
    if current:
        blocks.append(np.concatenate(current))
    return blocks


def _cut(rows: TokenRows, members: Int64, max_tokens: int) -> list[Int64]:
    order, common = sort_rows(rows.take(members))
    lengths = rows.lengths[members[order]]
    parts: list[Int64] = []
    begin, size = 0, 0
    for at in range(len(order)):
        cost = int(lengths[at] - common[at]) if at > begin else int(lengths[at])
        if at > begin and size + cost > max_tokens:
            parts.append(members[order[begin:at]])
            begin, size, cost = at, 0, int(lengths[at])
        size += cost
    parts.append(members[order[begin:]])
    return parts

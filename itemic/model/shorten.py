"""Histories that are too long: their oldest items go, so that what is asked and the answer stay whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from itemic.artifact import digest_of
from itemic.forest.rows import Int32, Int64, TokenRows


@dataclass(frozen=True)
class HistoryMarks:
    """By which tokens a history is known.

    Attributes:
        starts: int32, the tokens that an item's semantic ID begins with.
        walls: int32, the tokens that no history goes across: those of turns and of thoughts.
    """

    starts: Int32
    walls: Int32

    @property
    def digest(self) -> str:
        """Equal digests, equal histories in equal tokens."""
        return digest_of([self.starts.tolist(), self.walls.tolist()])


def shorten_histories(rows: TokenRows, limit: int, marks: HistoryMarks) -> tuple[TokenRows, Int64]:
    """Take the oldest items out of the histories of rows longer than ``limit`` tokens, until they fit.

    A row's history is its first run of items, with what stands between them (separators, titles), that no wall
    cuts; the first token with weight is a wall as well, for there an answer begins. What stands before the history
    stays, and so does its last item. The tokens are those of the same text with the shorter history.

    Returns:
        the rows, and how many items each has lost, int64 ``[R]``. A row that can't be made to fit, because it has
        no history or not enough of one, is left as it was.
    """
    removed = np.zeros(len(rows), np.int64)
    long = np.flatnonzero(rows.lengths > limit)
    if not len(long):
        return rows, removed
    part = rows.take(long)
    start, walls = np.flatnonzero(np.isin(part.tokens, marks.starts)), np.cumsum(_walls(part, marks))
    of = np.searchsorted(part.offsets, start, "right") - 1
    linked = np.zeros(len(start), bool)  # to the item after it
    linked[:-1] = (of[1:] == of[:-1]) & (walls[start[1:]] == walls[start[:-1]])
    having, at = np.unique(of[linked], return_index=True)
    first = np.flatnonzero(linked)[at]  # the number of each history's oldest item
    ends = np.flatnonzero(~linked)
    last = ends[np.searchsorted(ends, first)] if len(first) else first
    stays = np.searchsorted(start, start[first] + part.lengths[having] - limit)
    enough = stays <= last
    having, first, stays = having[enough], first[enough], stays[enough]
    removed[long[having]] = stays - first
    return _without(
        rows, rows.offsets[long[having]] - part.offsets[having], start[first], start[stays]
    ), removed


def _walls(rows: TokenRows, marks: HistoryMarks) -> Int64:
    walls = np.isin(rows.tokens, marks.walls)
    if rows.weights is not None and len(rows.tokens):
        weighted = np.flatnonzero(rows.weights > 0)
        place = np.searchsorted(
            weighted, rows.offsets[:-1]
        )  # the first weighted token of each row, or a later row's
        walls[weighted[place[place < len(weighted)]]] = True
    return walls.astype(np.int64)


def _without(rows: TokenRows, shift: Int64, begin: Int64, stop: Int64) -> TokenRows:
    """Rows without the stretches ``begin + shift … stop + shift`` of the flat arrays, each inside a row."""
    edges = np.zeros(len(rows.tokens) + 1, np.int64)
    edges[begin + shift] += 1
    edges[stop + shift] -= 1
    kept = np.cumsum(edges[:-1]) == 0
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)[rows.offsets]
    return TokenRows(rows.tokens[kept], offsets, None if rows.weights is None else rows.weights[kept])

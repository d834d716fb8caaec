"""Tokens that compete with a few others instead of with the whole vocabulary: what may come at places of a trie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from itemic.forest.rows import Int32, Int64


@dataclass(frozen=True, eq=False)
class Scope:
    """Which tokens of a forest stand where in a trie.

    Attributes:
        place: int64 ``[T]``, the trie's node that each token's parent stands at; -1 for a token that competes with the
            whole vocabulary.
        first: int32 ``[N + 1]``: the children of the trie's node ``n`` are its nodes ``first[n]:first[n + 1]``.
        token: int32 ``[N]``, the token that leads to each.
    """

    place: Int64
    first: Int32
    token: Int32

    def widths(self, nodes: Int64) -> Int64:
        """How many tokens compete for each of some tokens of the forest, int64; 0 for the whole vocabulary."""
        place = self.place[nodes]
        return np.where(place < 0, 0, self.first[place + 1].astype(np.int64) - self.first[place])

    def among(self, nodes: Int64, begin: int, device: torch.device) -> Among:
        """What competes for each of some tokens of the forest, which are the rows from ``begin`` on of a loss."""
        place, widths = self.place[nodes], self.widths(nodes)
        offsets = np.concatenate([[0], np.cumsum(widths)])
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], widths)
        tokens = self.token[np.repeat(self.first[place].astype(np.int64), widths) + inside]
        columns, members = np.unique(tokens, return_inverse=True)
        return Among(
            begin,
            torch.from_numpy(columns.astype(np.int64)).to(device),
            torch.from_numpy(np.repeat(np.arange(len(nodes)), widths)).to(device),
            torch.from_numpy(members.astype(np.int64)).to(device),
            offsets.tolist(),
        )


@dataclass(frozen=True, eq=False)
class Among:
    """The last rows of a loss, whose targets compete with some tokens alone.

    Attributes:
        begin: the first of these rows.
        columns: int64 ``[C]``, rising: all tokens that compete in any of them.
        row: int64 ``[P]``, rising, from 0 for the row ``begin``: one entry for each token that competes in it.
        member: int64 ``[P]``, which of ``columns`` that is.
        offsets: where the entries of each row begin, and where the last ones end.
    """

    begin: int
    columns: Tensor
    row: Tensor
    member: Tensor
    offsets: list[int]

    def mask(self, start: int, stop: int) -> Tensor:
        """bool ``[stop - start, C]`` of some rows, counted as those of the whole loss."""
        low, high = self.offsets[start - self.begin], self.offsets[stop - self.begin]
        found = torch.zeros(stop - start, len(self.columns), dtype=torch.bool, device=self.columns.device)
        found[self.row[low:high] - (start - self.begin), self.member[low:high]] = True
        return found

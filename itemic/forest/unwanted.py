"""Tokens that shouldn't have come where others did: what unlikelihood pushes down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from itemic.forest.rows import Float32, Int32, Int64


@dataclass(frozen=True, eq=False)
class Unwanted:
    """Which tokens are unwanted in the place of some tokens of a forest.

    Attributes:
        node: int64 ``[P]``, rising: a token of the forest, once for each token that is unwanted in its place.
        token: int32 ``[P]``, those tokens; never the one that stands there.
        factor: float32 ``[T]``, what the unlikelihood in the place of each token of the forest counts beside its loss.
    """

    node: Int64
    token: Int32
    factor: Float32

    def in_rows(self, weighted: Int64, row: Int64, count: int, device: torch.device) -> Avoid:
        """The same by the rows of a loss.

        Args:
            weighted: int64 ``[n]``, rising, the tokens that carry weight.
            row: int64 ``[n]``, the row of each, -1 for none.
            count: how many rows there are.
            device: where to put it.
        """
        place = np.minimum(np.searchsorted(weighted, self.node), max(len(weighted) - 1, 0))
        there = weighted[place] == self.node if len(weighted) else np.zeros(len(self.node), bool)
        rows = np.where(there, row[place] if len(weighted) else -1, -1)
        order = np.argsort(rows, kind="stable")[int((rows < 0).sum()) :]
        factor = np.zeros(count, np.float32)
        factor[row[row >= 0]] = self.factor[weighted[row >= 0]]
        return Avoid(
            rows[order],
            torch.from_numpy(rows[order]).to(device),
            torch.from_numpy(self.token[order].astype(np.int64)).to(device),
            torch.from_numpy(factor).to(device),
        )


@dataclass(frozen=True, eq=False)
class Avoid:
    """Which tokens are unwanted in rows of a loss.

    Attributes:
        rows: int64 ``[P]``, rising; ``row`` once more, on the host.
        row: int64 ``[P]``.
        token: int64 ``[P]``.
        factor: float32 ``[n]``, what a row's unlikelihood counts beside its loss.
    """

    rows: Int64
    row: Tensor
    token: Tensor
    factor: Tensor

    def between(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows, counted from ``start``, and tokens of those in ``start … stop``, and the factors of all of these rows;
        None where nothing is unwanted in any."""
        low, high = np.searchsorted(self.rows, [start, stop])
        if low == high:
            return None
        return self.row[low:high] - start, self.token[low:high], self.factor[start:stop]

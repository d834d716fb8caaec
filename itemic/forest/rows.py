"""Many token sequences as flat arrays: the one form in which rows of tokens travel between rooms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TokenRows:
    """``R`` token sequences, one after the other.

    Attributes:
        tokens: int32 ``[T]``.
        offsets: int64 ``[R + 1]``; row ``r`` is ``tokens[offsets[r]:offsets[r + 1]]``.
        weights: float32 ``[T]`` or None. ``weights[i]`` says how much the loss of predicting ``tokens[i]`` from what
            stands before it in its row counts; the first token of a row is predicted from nothing and counts 0.
    """

    tokens: Int32
    offsets: Int64
    weights: Float32 | None = None

    def __repr__(self) -> str:
        weighted = "" if self.weights is None else ", with weights"
        return f"<TokenRows: {len(self):,} rows, {len(self.tokens):,} tokens{weighted}>"

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]], weights: Iterable[Sequence[float]] | None = None) -> TokenRows:
        """From Python sequences."""
        lists = [np.asarray(row, np.int32) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int64)
        flat = np.concatenate([*lists, np.zeros(0, np.int32)]).astype(np.int32)
        if weights is None:
            return cls(flat, offsets)
        parts = [np.asarray(row, np.float32) for row in weights]
        return cls(flat, offsets, np.concatenate([*parts, np.zeros(0, np.float32)]).astype(np.float32))

    @classmethod
    def concat(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """All rows of ``parts`` in order; weights must be there in all of them or in none."""
        shifts = np.concatenate([[0], np.cumsum([len(part.tokens) for part in parts])])
        offsets = [part.offsets[1:] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
        weights = [part.weights for part in parts]
        have = [w for w in weights if w is not None]
        if have and len(have) != len(parts):
            raise ValueError("some parts have weights and some have none")
        return cls(
            np.concatenate([np.zeros(0, np.int32), *(part.tokens for part in parts)]).astype(np.int32),
            np.concatenate([np.zeros(1, np.int64), *offsets]).astype(np.int64),
            np.concatenate(have).astype(np.float32) if have else None,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int32:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int64:
        """int64 ``[R]``."""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.integer] | Sequence[int]) -> TokenRows:
        """The named rows, in the order given (a row may come more than once)."""
        chosen = np.asarray(rows, np.int64)
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return TokenRows(self.tokens[index], offsets, None if self.weights is None else self.weights[index])

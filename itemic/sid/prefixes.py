"""Numbering the prefixes of semantic IDs, whatever the sizes of their levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prefixes:
    """All prefixes of ``n`` code rows, numbered within each depth in the order of their codes.

    Attributes:
        groups: int64 ``[n, L]``; ``groups[i, l]`` is the number of item ``i``'s prefix of length ``l + 1``.
        keys: per depth, the sorted ``parent prefix * size + code`` of every prefix of that depth.
        sizes: codes per level.
    """

    groups: Int64
    keys: tuple[Int64, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, codes: npt.NDArray[np.integer], sizes: Sequence[int]) -> Prefixes:
        """Number the prefixes of ``codes`` ``[n, L]``.

        One level at a time: a whole ID as one mixed-radix number overflows 64 bits for large codebooks.
        """
        groups = np.zeros(codes.shape, np.int64)
        parent = np.zeros(len(codes), np.int64)
        keys = []
        for level, size in enumerate(sizes):
            found, parent = np.unique(parent * size + codes[:, level], return_inverse=True)
            groups[:, level] = parent
            keys.append(found)
        return cls(groups, tuple(keys), tuple(sizes))

    def find(self, codes: npt.NDArray[np.integer]) -> Int64:
        """The numbers of the prefixes ``codes[m, p]``, 1 ≤ p ≤ L: int64 ``[m]``, -1 where no row has it."""
        if not 1 <= codes.shape[1] <= len(self.keys):
            raise ValueError(f"prefixes have 1 to {len(self.keys)} codes, not {codes.shape[1]}")
        number = np.zeros(len(codes), np.int64)
        for level in range(codes.shape[1]):
            code = codes[:, level].astype(np.int64)
            key = number * self.sizes[level] + code
            if not len(self.keys[level]):
                return np.full(len(codes), -1)
            place = np.minimum(np.searchsorted(self.keys[level], key), len(self.keys[level]) - 1)
            known = (
                (number >= 0) & (code >= 0) & (code < self.sizes[level]) & (self.keys[level][place] == key)
            )
            number = np.where(known, place, -1)
        return number

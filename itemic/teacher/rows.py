"""Histories side by side: what a sequential model computes at once, without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.data.sequences import Requests, Sequences

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Slab = tuple[int, int]  # rows, and how many items each of them has


@dataclass(frozen=True)
class ItemRows:
    """``R`` rows of item numbers one after the other, as flat arrays.

    Attributes:
        items: int32 ``[N]``, oldest first.
        offsets: int64 ``[R + 1]``.
    """

    items: Int32
    offsets: Int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64:
        """int64 ``[R]``."""
        return np.asarray(np.diff(self.offsets))

    def take(self, rows: Int64) -> ItemRows:
        """Some of the rows, in the order given."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return ItemRows(self.items[places], offsets)


def windows(sequences: Sequences, length: int) -> ItemRows:
    """Users' sequences as rows of at most ``length + 1`` items, of which the last ``length`` are learned as targets.

    A longer sequence becomes several rows. They are cut from its end, so that its latest items stand together, and each
    begins with the item that the one before it ends with: every item but a user's first is a target once. A user with
    fewer than two items has nothing to learn.
    """
    targets = np.maximum(np.diff(sequences.offsets) - 1, 0)
    pieces = -(-targets // length)
    user = np.repeat(np.arange(len(sequences)), pieces)
    back = np.repeat(np.cumsum(pieces), pieces) - 1 - np.arange(len(user))  # pieces that come after it
    stop = sequences.offsets[1:][user] - back * length
    start = np.maximum(stop - length - 1, sequences.offsets[:-1][user])
    offsets = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int64)
    places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
    return ItemRows(sequences.items[places].astype(np.int32), offsets)


def latest(requests: Requests, length: int) -> ItemRows:
    """The last ``length`` items of each history; an empty history is an empty row."""
    stop = requests.offsets[1:]
    start = np.maximum(stop - length, requests.offsets[:-1])
    offsets = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int64)
    places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
    return ItemRows(requests.items[places], offsets)


@dataclass(frozen=True)
class Packed:
    """Rows that are computed side by side. Rows of one length lie together, so that attention sees each such *slab* as
    a rectangle, and nothing is padded.

    Attributes:
        items: int64 ``[T]``.
        position: int64 ``[T]``, from 0 in each row.
        slabs: rows and length of each slab, in the order of the arrays.
        targets: int64 ``[T]``, the item that followed; None where nothing is learned.
        order: int64 ``[R]``, which of the rows that were packed stands where.
    """

    items: Tensor
    position: Tensor
    slabs: tuple[Slab, ...]
    targets: Tensor | None
    order: Int64

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ends(self) -> Tensor:
        """int64 ``[R]``: where the last item of each row stands, in the order of the slabs."""
        lengths = np.repeat([length for _, length in self.slabs], [rows for rows, _ in self.slabs])
        return torch.from_numpy(np.cumsum(lengths) - 1)

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        if device == self.items.device:
            return self
        targets = None if self.targets is None else self.targets.to(device)
        return Packed(self.items.to(device), self.position.to(device), self.slabs, targets, self.order)


def pack(rows: ItemRows, learn: bool = False) -> Packed:
    """Lay rows side by side, the shortest first.

    Args:
        rows: at least one item each; two where they are learned from.
        learn: whether each item is predicted from those before it; then a row's last item is a target alone.
    """
    order = np.argsort(rows.lengths, kind="stable").astype(np.int64)
    ordered = rows.take(order)
    lengths = ordered.lengths - learn
    inner = np.ones(len(ordered.items), bool)
    targets = None
    if learn:
        inner[ordered.offsets[1:] - 1] = False
        follows = np.ones(len(ordered.items), bool)
        follows[ordered.offsets[:-1]] = False
        targets = torch.from_numpy(ordered.items[follows].astype(np.int64))
    starts = np.cumsum(lengths) - lengths
    position = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    length, count = np.unique(lengths, return_counts=True)
    slabs = tuple((int(c), int(n)) for n, c in zip(length, count, strict=True))
    return Packed(
        torch.from_numpy(ordered.items[inner].astype(np.int64)),
        torch.from_numpy(position.astype(np.int64)),
        slabs,
        targets,
        order,
    )

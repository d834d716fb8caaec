"""Items that profiles bring up: similarity over the whole catalogue, in blocks, and exact.

A score is the dot product of two float32 vectors, computed in float64; it is the cosine where vectors have length 1. No
table of users × items is ever made. Blocks of scores are computed in float32, which is fast and off by a known bound
(Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1: ``d·u / (1 - d·u) · |p|·|i|`` in any order
of summation); only items that this bound leaves in doubt are computed in float64. So ranks and lists don't depend on
the blocks, the threads or the device.

Of items with equal scores the one in the lower row comes first: two items with the same text have the same vector, and
stand in the catalogue's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.errors import ConfigError
from itemic.profile.settings import FindSettings
from itemic.sid.vectors import Float32, check_vectors
from itemic.teacher.rows import ItemRows
from itemic.tf32 import tf32

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

NEVER = -float("inf")  # the score of an item that is not to be found
LOWEST = float(np.finfo(np.float32).min)
EXACT = 1 << 17  # numbers in one block of float64, which stays in the cache


@dataclass(frozen=True)
class Found:
    """What profiles bring up.

    Attributes:
        items: int32 ``[m, k]``, best first; -1 where there are fewer than ``k`` to find.
        scores: float64 ``[m, k]``; ``-inf`` there.
        ranks: int64 ``[m]``, the target's 1-based rank among all items that can be found; 0 where it can't be, or where
            no target was given.
        similarity: float64 ``[m]``, the target's score, found or not; 0 where none was given.
    """

    items: Int32
    scores: Float64
    ranks: Int64
    similarity: Float64


@dataclass(frozen=True)
class ItemVectors:
    """A catalogue's vectors, in which to find.

    Attributes:
        vectors: float32 ``[n, d]``, in the catalogue's order.
        findable: bool ``[n]``: whether an item can be found; one without words in its text can't.
        origin: plain JSON: what made the vectors.
    """

    vectors: Float32
    findable: Bool
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, vectors: npt.NDArray[np.floating], findable: Bool | None = None) -> ItemVectors:
        """Vectors from wherever they come.

        Raises:
            DataError: they are no table of finite numbers.
            ConfigError: ``findable`` is of other items.
        """
        table = check_vectors(vectors)
        every = np.ones(len(table), np.bool_) if findable is None else np.asarray(findable, np.bool_)
        if every.shape != (len(table),):
            raise ConfigError(
                f"findable is of {len(every)} items, the vectors of {len(table)}", "Give one each."
            )
        return cls(np.ascontiguousarray(table), every)

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return (
            f"<ItemVectors: {len(self):,} items, {self.width} numbers each, {self.findable.sum():,} findable>"
        )

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def longest(self) -> float:
        """The largest norm."""
        return float(np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors, dtype=np.float64).max()))

    @cached_property
    def silent(self) -> Int64:
        """Rows of the items that can't be found."""
        return np.flatnonzero(~self.findable)

    def find(
        self,
        profiles: npt.NDArray[np.floating],
        *,
        k: int = 0,
        targets: npt.NDArray[np.integer] | None = None,
        seen: ItemRows | None = None,
        settings: FindSettings | None = None,
        device: str | torch.device = "cpu",
    ) -> Found:
        """The best ``k`` items of each profile, and the rank of its target.

        Args:
            profiles: ``[m, d]``.
            k: how many items; 0 for ranks alone.
            targets: ``[m]``, a row of the catalogue each.
            seen: of each profile the items that are not to be found: those it was written from. Where a target is among
                them, it isn't found.
            settings: how large the blocks are; they change the speed and the memory, and nothing else.
            device: where blocks are computed.

        Raises:
            ConfigError: vectors of another width, or targets, seen items or a ``k`` that can't be.
            DataError: a vector of a profile isn't finite.
        """
        told = settings or FindSettings()
        count = len(profiles)
        self._check(profiles, k, targets, seen)
        items = np.full((count, k), -1, np.int32)
        scores = np.full((count, k), NEVER)
        ranks, similarity = np.zeros(count, np.int64), np.zeros(count)
        place = torch.device(device)
        table = torch.from_numpy(self.vectors).to(place)
        with tf32(False, place), torch.inference_mode(), torch.autocast(place.type, enabled=False):
            for start in range(0, count, told.profiles_per_block):
                part = slice(start, min(count, start + told.profiles_per_block))
                rows = np.arange(part.start, part.stop)
                items[part], scores[part], ranks[part], similarity[part] = _Search(
                    self,
                    table,
                    check_vectors(profiles[part], "the vectors of profiles"),
                    k,
                    None if targets is None else np.asarray(targets[part], np.int64),
                    None if seen is None else seen.take(rows),
                    told.items_per_block,
                ).run()
        return Found(items, scores, ranks, similarity)

    def _check(
        self,
        profiles: npt.NDArray[np.floating],
        k: int,
        targets: npt.NDArray[np.integer] | None,
        seen: ItemRows | None,
    ) -> None:
        if profiles.ndim != 2 or profiles.shape[1] != self.width:
            raise ConfigError(
                f"vectors of profiles have the shape {profiles.shape}, and the items' {self.width} numbers each",
                "Encode the catalogue anew, by the encoder that encodes the profiles.",
            )
        if not 0 <= k <= len(self):
            raise ConfigError(f"k is {k}, and there are {len(self)} items", "Ask for as many at most.")
        for what, rows in (("targets", targets), ("seen items", None if seen is None else seen.items)):
            if rows is not None and len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
                raise ConfigError(
                    f"{what} are from {rows.min()} to {rows.max()}, and there are {len(self)} items",
                    "Give rows of the catalogue that the vectors are of.",
                )
        for what, lines in (("targets", targets), ("rows of seen items", seen)):
            if lines is not None and len(lines) != len(profiles):
                raise ConfigError(
                    f"there are {len(lines)} {what} for {len(profiles)} profiles", "Give one each."
                )


class _Search:
    """One block of profiles against all items."""

    def __init__(
        self,
        catalogue: ItemVectors,
        table: Tensor,
        profiles: Float32,
        k: int,
        targets: Int64 | None,
        seen: ItemRows | None,
        block: int,
    ) -> None:
        self.catalogue, self.table, self.k, self.targets = catalogue, table, k, targets
        self.block = min(block, len(table))
        self.profiles = torch.from_numpy(np.ascontiguousarray(profiles)).to(table.device)
        self.count = len(profiles)
        self.scores = _room((self.count, self.block), np.float32, table.device)
        self.flags = [_room((self.count, self.block), np.bool_, table.device) for _ in range(2)]
        norms = np.sqrt(np.square(profiles, dtype=np.float64).sum(axis=1))
        # the bound, and what comparisons in float32 round
        unit = catalogue.width * 2.0**-24
        self.bound = (unit / (1 - unit) + 2.0**-22) * norms * catalogue.longest + 1e-37
        self.barred = _pairs(seen) if seen is not None else (np.zeros(0, np.int64),) * 2
        self.best = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))  # users, items, scores
        self.least = np.full(self.count, NEVER)  # the k-th best score so far
        if targets is not None:
            users = np.arange(self.count)
            self.wanted = self._exact(users, targets)
            self.above = np.zeros(self.count, np.int64)
            self.doubt: list[tuple[Int64, Int64]] = []
            # -inf where a target can't be found: nobody asks how many are better
            hidden = ~catalogue.findable[targets]
            hidden[self.barred[0][self.barred[1] == targets[self.barred[0]]]] = True
            self.hidden = hidden

    def run(self) -> tuple[Int32, Float64, Int64, Float64]:
        """Items, scores, ranks and similarities."""
        for start in range(0, len(self.table), self.block):
            part = self.table[start : start + self.block]
            scores = self.scores[:, : len(part)]
            if len(part) == self.block:
                torch.mm(self.profiles, part.T, out=scores)
            else:
                scores.copy_(self.profiles @ part.T)
            self._bar(scores, start)
            if self.targets is not None:
                self._count(scores, start)
            if self.k:
                self._collect(scores, start)
        ranks, similarity = np.zeros(self.count, np.int64), np.zeros(self.count)
        if self.targets is not None:
            ranks, similarity = self._ranks(), self.wanted
        return *self._lists(), ranks, similarity

    def _bar(self, scores: Tensor, start: int) -> None:
        """What can't be found gets the score ``-inf``."""
        stop = start + scores.shape[1]
        silent = self.catalogue.silent
        first, last = np.searchsorted(silent, [start, stop])
        if last > first:
            scores[:, torch.from_numpy(silent[first:last] - start).to(scores.device)] = NEVER
        users, items = self.barred
        first, last = np.searchsorted(items, [start, stop])
        if last > first:
            rows = torch.from_numpy(users[first:last]).to(scores.device)
            scores[rows, torch.from_numpy(items[first:last] - start).to(scores.device)] = NEVER

    def _count(self, scores: Tensor, start: int) -> None:
        """Count the items that are better than the target beyond doubt; keep those in doubt."""
        maybe, sure = (flags[:, : scores.shape[1]] for flags in self.flags)
        _least(scores, self.wanted - self.bound, maybe)
        _least(scores, self.wanted + self.bound, sure)
        self.above += _per_row(sure)
        users, items = _places(torch.ne(maybe, sure, out=maybe))
        self.doubt.append((users, items + start))

    def _ranks(self) -> Int64:
        assert self.targets is not None
        users, items = (np.concatenate(parts) for parts in zip(*self.doubt, strict=True))
        scores, wanted = self._exact(users, items), self.wanted[users]
        better = (scores > wanted) | ((scores == wanted) & (items < self.targets[users]))
        above = self.above + np.bincount(users[better], minlength=self.count)
        return np.where(self.hidden, 0, above + 1)

    def _collect(self, scores: Tensor, start: int) -> None:
        """Merge a block's best into the best so far."""
        least = self.least - self.bound
        fresh = np.isneginf(least)
        if fresh.any():  # the k-th best in float32 is one of k that are at most that much worse
            many = min(self.k, scores.shape[1])
            kth = scores.topk(many, dim=1).values[:, -1].double().cpu().numpy()
            own = np.where(many < self.k, NEVER, kth - 2 * self.bound)
            least = np.where(fresh, own, least)
        flags = self.flags[0][:, : scores.shape[1]]
        users, items = _places(_least(scores, np.maximum(least, LOWEST), flags))
        if not len(users):
            return
        new = users, items + start, self._exact(users, items + start)
        users, items, found = (np.concatenate(parts) for parts in zip(self.best, new, strict=True))
        order = np.lexsort((items, -found, users))
        users = users[order]
        place = np.arange(len(users)) - np.searchsorted(users, users)  # of each among its user's
        kept = order[place < self.k]
        self.best = users[place < self.k], items[kept], found[kept]
        full = place == self.k - 1
        self.least[users[full]] = found[order[full]]

    def _lists(self) -> tuple[Int32, Float64]:
        items, scores = np.full((self.count, self.k), -1, np.int32), np.full((self.count, self.k), NEVER)
        users, rows, found = self.best
        place = np.arange(len(users)) - np.searchsorted(users, users)
        items[users, place], scores[users, place] = rows, found
        return items, scores

    def _exact(self, users: Int64, items: Int64) -> Float64:
        """Scores of pairs in float64, each computed in the same way whatever stands beside it."""
        size = max(1, EXACT // self.catalogue.width)
        parts = [np.zeros(0)]
        for start in range(0, len(users), size):
            ours = self.profiles[torch.from_numpy(users[start : start + size]).to(self.profiles.device)]
            theirs = self.table[torch.from_numpy(items[start : start + size]).to(self.table.device)]
            if self.table.device.type == "mps":  # which has no float64
                ours, theirs = ours.cpu(), theirs.cpu()
            parts.append((ours.double() * theirs.double()).sum(dim=1).cpu().numpy())
        return np.concatenate(parts)


def _pairs(seen: ItemRows) -> tuple[Int64, Int64]:
    """Users and items of all that is seen, in the items' order."""
    users = np.repeat(np.arange(len(seen)), seen.lengths)
    order = np.argsort(seen.items, kind="stable")
    return users[order].astype(np.int64), seen.items[order].astype(np.int64)


def _room(shape: tuple[int, int], dtype: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(np.zeros(shape, dtype)).to(device)


def _least(scores: Tensor, least: Float64, flags: Tensor) -> Tensor:
    """Which scores of a row are at least that, into ``flags``."""
    column = least.astype(np.float32)[:, None]
    if scores.device.type == "cpu":  # numpy compares twice as fast
        np.greater_equal(scores.numpy(), column, out=flags.numpy())
        return flags
    return torch.ge(scores, torch.from_numpy(column).to(scores.device), out=flags)


def _per_row(flags: Tensor) -> Int64:
    """How many are set in each row, int64."""
    if flags.device.type == "cpu":  # many times as fast as a sum
        return np.fromiter((np.count_nonzero(row) for row in flags.numpy()), np.int64, len(flags))
    found: Int64 = flags.sum(dim=1).cpu().numpy()
    return found


def _places(flags: Tensor) -> tuple[Int64, Int64]:
    """Rows and columns of what is set, row by row."""
    if flags.device.type == "cpu" and flags.is_contiguous():
        flat = np.flatnonzero(flags.numpy())
        return flat // flags.shape[1], flat % flags.shape[1]
    rows, columns = (part.cpu().numpy() for part in torch.nonzero(flags, as_tuple=True))
    return rows, columns

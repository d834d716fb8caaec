"""How many items of which kind can make up a list under its shares, and what may come next in one that is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

_GRID = 50_000  # combinations that are tried at once; beyond it a solver is asked


@dataclass(frozen=True, eq=False)
class Quotas:
    """Bounds on a list, over *classes*: items of a class have the same ones of the shares' labels.

    Attributes:
        count: items of the list.
        bounds: int64 ``[S, 2]``, the least and the most items of each share.
        member: bool ``[K, S]``, which shares an item of each class counts for; all rows differ.
        sizes: int64 ``[K]``, how many items of each class there are; of more than ``count`` it may say ``count``.
    """

    count: int
    bounds: Int64
    member: Bool
    sizes: Int64
    _known: dict[tuple[int, ...], Bool] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def possible(self) -> bool:
        """Whether there is a list at all."""
        return self._completes(np.zeros(len(self.sizes), np.int64))

    def open(self, chosen: Sequence[int]) -> Bool:
        """Which classes the next item may be of, so that the list can still be completed: bool ``[K]``.

        Args:
            chosen: how many items of each class there are already; fewer than ``count`` together, and such that the
                list can be completed.
        """
        key = tuple(chosen)
        if key not in self._known:
            after = np.array(key, np.int64) + np.eye(len(key), dtype=np.int64)
            self._known[key] = np.array(
                [bool((own <= self.sizes).all()) and self._completes(own) for own in after], np.bool_
            )
        return self._known[key]

    def _completes(self, chosen: Int64) -> bool:
        there = chosen @ self.member
        low, high = (self.bounds - there[:, None]).T
        rest = self.count - int(chosen.sum())
        return solvable(self.member, np.minimum(self.sizes - chosen, rest), low, high, rest)


def solvable(member: Bool, room: Int64, low: Int64, high: Int64, count: int) -> bool:
    """Whether there are whole numbers ``0 ≤ x ≤ room`` with ``Σ x = count`` and ``low ≤ x · member ≤ high``.

    Numbers of classes that count for several shares are tried, all of them; those that count for one are then an
    interval each. Where that is too many, a solver of integer programs answers.

    Args:
        member: bool ``[K, S]``, rows all different.
        room: int64 ``[K]``, 0 or more.
        low: int64 ``[S]``.
        high: int64 ``[S]``.
        count: 0 or more.
    """
    shares = member.sum(1)
    several = shares >= 2
    tried = room[several] + 1
    if float(np.prod(tried.astype(np.float64))) > _GRID:
        return _by_solver(member, room, low, high, count)
    grid = np.indices(tuple(tried)).reshape(len(tried), -1).T if len(tried) else np.zeros((1, 0), np.int64)
    used = grid @ member[several].astype(np.int64)
    single = np.zeros(member.shape[1], np.int64)
    for number in np.flatnonzero(shares == 1):
        single[member[number].argmax()] += room[number]
    least, most = np.maximum(low - used, 0), np.minimum(high - used, single)
    rest = count - grid.sum(1)
    free = int(room[shares == 0].sum())
    works = (least <= most).all(1) & (least.sum(1) <= rest) & (rest <= most.sum(1) + free)
    return bool(works.any())


def _by_solver(member: Bool, room: Int64, low: Int64, high: Int64, count: int) -> bool:
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = np.vstack([member.T.astype(np.float64), np.ones(len(room))])
    between = LinearConstraint(rows, np.append(low, count), np.append(high, count))
    found = milp(
        np.zeros(len(room)), integrality=np.ones(len(room)), bounds=Bounds(0, room), constraints=between
    )
    return bool(found.success)

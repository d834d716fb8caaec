"""The steps of an epoch: every row once, in an order that is a function of the seed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itemic.teacher.rows import Int64, ItemRows, Packed, pack
from itemic.teacher.settings import TeacherSettings
from itemic.training.steps import Ahead, Sizes, Step


@dataclass(frozen=True)
class RowSteps:
    """Steps of rows that are all at hand, see :class:`itemic.training.steps.StepSource`.

    Rows are spread over an epoch's steps evenly, and those of a step over its blocks. Every rank plans the same epochs
    and takes every ``size``-th block.

    Attributes:
        rows: at least two items each.
        settings: ``data``, ``epochs`` and ``steps``.
        seed: of the order.
    """

    rows: ItemRows
    settings: TeacherSettings
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        targets = len(self.rows.items) - len(self.rows)
        return max(1, min(len(self.rows), round(targets / self.settings.data.targets_per_step)))

    def total_steps(self) -> int:
        if self.settings.steps is not None:
            return self.settings.steps
        return int(self.settings.epochs or 1) * self.steps_per_epoch

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        """Without end, from the place on that ``state`` names."""
        begin = state or {"epoch": 0, "index": 0}
        epoch, index, count = int(begin["epoch"]), int(begin["index"]), self.steps_per_epoch
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows)).astype(np.int64)
            edges = np.arange(count + 1) * len(order) // count
            for at in range(index, count):
                blocks = self._blocks(order[edges[at] : edges[at + 1]], rank, size)
                last = at + 1 == count
                state = {"epoch": epoch + last, "index": 0 if last else at + 1}
                ahead = Ahead(epoch + last, epoch + (at + 1) / count)
                yield Step(blocks, sizes_of(blocks), state, ahead)
            epoch, index = epoch + 1, 0

    def _blocks(self, rows: Int64, rank: int, size: int) -> tuple[Packed, ...]:
        """This rank's blocks of a step. There are as many as ranks at least, so that none is idle."""
        targets = int(self.rows.lengths[rows].sum()) - len(rows)
        wanted = max(-(-targets // self.settings.data.targets_per_block), size)
        count = min(wanted, len(rows))
        parts = np.array_split(rows, count)[rank::size]
        return tuple(pack(self.rows.take(part), learn=True) for part in parts)

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """All ranks are at the same step."""
        return states[0]


def sizes_of(blocks: Sequence[Packed]) -> Sizes:
    """What some blocks are: each target counts as one."""
    targets = sum(len(block) for block in blocks)
    rows = sum(len(block.order) for block in blocks)
    return Sizes(float(targets), len(blocks), {"targets": targets, "rows": rows})

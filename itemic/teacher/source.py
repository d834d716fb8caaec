"""The steps of an epoch: every row once, in an order that is a function of the seed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itemic.teacher.rows import ItemRows, Packed, pack
from itemic.training.steps import Ahead, Sizes, Step


@dataclass(frozen=True)
class RowSteps:
    """Steps of rows that are all at hand, see :class:`itemic.training.steps.StepSource`.

    Rows are spread over an epoch's steps evenly, and those of a step over blocks of ``rows_per_block`` at most. Every
    rank plans the same epochs and takes every ``size``-th block.

    Attributes:
        rows: at least two items each.
        rows_per_step: about how many an optimizer step sees.
        rows_per_block: how many are computed at once, at most.
        length: epochs, or steps where ``in_steps``.
        in_steps: what ``length`` counts.
        seed: of the order.
    """

    rows: ItemRows
    rows_per_step: int
    rows_per_block: int
    length: int
    in_steps: bool = False
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return max(1, round(len(self.rows) / self.rows_per_step))

    def total_steps(self) -> int:
        return self.length if self.in_steps else self.length * self.steps_per_epoch

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

    def _blocks(self, rows: np.ndarray[Any, Any], rank: int, size: int) -> tuple[Packed, ...]:
        """This rank's blocks of a step. There are as many as ranks at least, so that none is idle."""
        count = max(-(-len(rows) // self.rows_per_block), min(size, len(rows)))
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

"""TensorBoard: event files, for ``tensorboard --logdir``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from itemic.trackers.tracker import Rows, Tracker, markdown_table


class TensorBoard(Tracker):
    """Numbers as scalars, tables as text."""

    name = "tensorboard"
    package = "torch.utils.tensorboard"
    distribution = "tensorboard"

    def start(self, config: dict[str, Any], step: int) -> None:
        self.board = self.library.SummaryWriter(str(self.folder), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.board.add_scalar(key, value, step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Rows) -> None:
        self.board.add_text(name, markdown_table(columns, rows), step)

    def close(self) -> None:
        self.board.close()

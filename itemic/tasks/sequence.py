"""Task sequence: a user's history as plain text, one semantic ID after another; every item is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.dataset import Sequences
from itemic.errors import ConfigError
from itemic.tasks.catalogue import Catalogue, join_rows
from itemic.tasks.task import Task
from itemic.tasks.windows import check_window, distinct_windows, gather_windows


@dataclass(frozen=True)
class ItemSequence(Task):
    """No words, only items.

    Attributes:
        max_items: the most items of a segment. A longer history is cut into several, counted from its end, so
            that the latest one is full. Evaluation shows one item less, to leave room for the target.
        overlap: items that a segment shares with the one before it, so that no transition is lost in a cut.
            Short overlapping segments beside whole ones teach what follows an item whatever came before.
    """

    max_items: int | None = 50
    overlap: int = 0

    name: ClassVar[str] = "sequence"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {"history": ("",)}
    plain: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.name, self.max_items, least=2)
        if not 0 <= self.overlap < (self.max_items or self.overlap + 1):
            raise ConfigError(
                f"task sequence: overlap is {self.overlap} with max_items {self.max_items}",
                "Give a number from 0 to max_items - 1.",
            )

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        lengths = np.diff(train.offsets)
        size = self.max_items or max(1, int(lengths.max(initial=1)))
        step = size - self.overlap
        pieces = np.maximum(-(-(lengths - self.overlap) // step), np.minimum(lengths, 1))
        user = np.repeat(np.arange(len(train)), pieces)
        from_end = np.repeat(np.cumsum(pieces), pieces) - np.arange(pieces.sum()) - 1
        stop = train.offsets[user + 1] - from_end * step
        start = np.maximum(stop - size, train.offsets[user])
        fresh = distinct_windows(train, user, start, stop)
        columns = {"group": user[fresh], "start": start[fresh], "stop": stop[fresh]}
        return pl.DataFrame({"kind": np.zeros(int(fresh.sum()), np.int32), **columns})

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        offsets, items = gather_windows(train.items, plan["start"].to_numpy(), plan["stop"].to_numpy())
        return pl.DataFrame(
            {
                "value": join_rows(catalogue.sids, offsets, items, ""),
                "answer": pl.Series([None], dtype=pl.String).new_from_index(0, len(plan)),
                "group": "user:" + pl.Series(train.users, dtype=pl.String).gather(plan["group"]),
                "target": pl.Series([None], dtype=pl.List(pl.Int32)).new_from_index(0, len(plan)),
            }
        )

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        lengths = np.diff(offsets)
        shown = lengths if self.max_items is None else np.minimum(lengths, self.max_items - 1)
        return join_rows(catalogue.sids, *gather_windows(items, offsets[1:] - shown, offsets[1:]), "")

"""Task sequence: a user's history as plain text, one semantic ID after another; every item is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.tasks.catalogue import Catalogue, join_rows
from itemic.tasks.task import Task
from itemic.tasks.windows import Int64, check_window, distinct_windows, gather_windows, times_of


@dataclass(frozen=True)
class ItemSequence(Task):
    """No words, only items. Every item of a history is predicted once.

    Attributes:
        max_items: the most items of a segment. A longer history is cut into several, counted from its end, so
            that the latest one is full. Evaluation shows one item less, to leave room for the target.
        overlap: items that a segment repeats from the one before it, as context that carries no loss, so that
            no transition is lost in a cut. Short overlapping segments beside whole ones teach what follows an
            item whatever came before.
        cuts: into how many sets of segments each history is cut: 0 means once, every ``max_items``; a number
            ``n`` means ``n`` times at random, with at most ``max_items`` in a segment. Each set is a group, so
            that an epoch which samples ``1 / n`` of the source sees every history about once, cut in a new way.
        beginnings: show each history's beginnings of 1, 2, … so many items once more, as prompts of their own whose
            next item alone is predicted: what is asked of users with short histories counts for more.
    """

    max_items: int | None = 50
    overlap: int = 0
    cuts: int = 0
    beginnings: int = 0

    name: ClassVar[str] = "sequence"
    recommends: ClassVar[bool] = True
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
        if self.cuts < 0:
            raise ConfigError(
                f"task sequence: cuts is {self.cuts}", "Give 0 for even cuts, or how many random ones."
            )
        most = self.beginnings if self.max_items is None else self.max_items - 1
        if not 0 <= self.beginnings <= most:
            raise ConfigError(
                f"task sequence: beginnings is {self.beginnings} with max_items {self.max_items}",
                "Give a number from 0 to max_items - 1.",
            )

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        lengths = np.diff(train.offsets)
        if self.cuts:
            lengths = np.tile(lengths, self.cuts)  # set after set
            history, start, stop = self._random_segments(lengths, rng)
        else:
            history, start, stop = self._even_segments(lengths)
        context = np.where(start > 0, np.minimum(start + self.overlap, stop), start)
        user = history % max(1, len(train))
        first = train.offsets[user]
        fresh = distinct_windows(train, history, first + start, first + stop)
        columns = {"group": history, "user": user, "start": first + start, "context": first + context}
        plan = pl.DataFrame({"kind": np.zeros(len(user), np.int32), **columns, "stop": first + stop})
        plan = plan.filter(pl.Series(fresh))
        if not self.beginnings:
            return plan
        return pl.concat([plan, self._beginnings(train)]).sort("group", maintain_order=True)

    def _beginnings(self, train: Sequences) -> pl.DataFrame:
        """Of each history the first 1, 2, … items as context, and the next one to be predicted."""
        counts = np.clip(np.diff(train.offsets) - 1, 0, self.beginnings)
        user = np.repeat(np.arange(len(train)), counts)
        shown = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        start = train.offsets[user]
        columns = {"group": user, "user": user, "start": start, "context": start + shown}
        return pl.DataFrame({"kind": np.zeros(len(user), np.int32), **columns, "stop": start + shown + 1})

    def _even_segments(self, lengths: Int64) -> tuple[Int64, Int64, Int64]:
        """Which history a segment is of, and the items of it, from ``start`` to ``stop``."""
        size = self.max_items or max(1, int(lengths.max(initial=1)))
        step = size - self.overlap
        pieces = np.maximum(-(-(lengths - self.overlap) // step), np.minimum(lengths, 1))
        history = np.repeat(np.arange(len(lengths)), pieces)
        from_end = np.repeat(np.cumsum(pieces), pieces) - np.arange(pieces.sum()) - 1
        stop = lengths[history] - from_end * step
        return history, np.maximum(stop - size, 0), stop

    def _random_segments(self, lengths: Int64, rng: np.random.Generator) -> tuple[Int64, Int64, Int64]:
        size = self.max_items or max(2, int(lengths.max(initial=2)))
        least = max(2, self.overlap + 1)
        segments: list[tuple[Int64, Int64, Int64]] = []
        stop = np.zeros(len(lengths), np.int64)
        open_ = np.flatnonzero(lengths > 0)
        while len(open_):
            start = np.maximum(stop[open_] - self.overlap, 0)
            stop[open_] = np.minimum(start + rng.integers(least, size + 1, len(open_)), lengths[open_])
            segments.append((open_, start, stop[open_]))
            open_ = open_[stop[open_] < lengths[open_]]
        if not segments:
            return stop, stop, stop
        history, start, end = (np.concatenate(part) for part in zip(*segments, strict=True))
        order = np.argsort(history, kind="stable")
        return history[order], start[order], end[order]

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        start, context, stop = (plan[name].to_numpy() for name in ("start", "context", "stop"))
        user = pl.Series(train.users, dtype=pl.String).gather(plan["user"])
        group = "user:" + user
        if self.cuts:
            group = group + ":" + (plan["group"] // max(1, len(train))).cast(pl.String)
        return pl.DataFrame(
            {
                "context": join_rows(catalogue.sids, *gather_windows(train.items, start, context), ""),
                "value": join_rows(catalogue.sids, *gather_windows(train.items, context, stop), ""),
                "answer": pl.Series([None], dtype=pl.String).new_from_index(0, len(plan)),
                "group": group,
                "target": pl.Series([None], dtype=pl.List(pl.Int32)).new_from_index(0, len(plan)),
            }
        )

    def times(self, plan: pl.DataFrame, train: Sequences) -> pl.Series | None:
        return times_of(train, plan["context"].to_numpy(), plan["stop"].to_numpy())

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        lengths = np.diff(offsets)
        shown = lengths if self.max_items is None else np.minimum(lengths, self.max_items - 1)
        return join_rows(catalogue.sids, *gather_windows(items, offsets[1:] - shown, offsets[1:]), "")

"""Sequences rebuilt from rows of (history, next item), as sliding windows leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from itemic import schema as c
from itemic.data.readers.events import LINE
from itemic.data.readers.rows import BadRows


@dataclass
class Chains:
    """Collects rows, in time order within each user, and gives the events they were made from.

    A row's history must be the user's sequence so far, cut to at most ``window`` items (the longest history
    seen); a row that doesn't continue its user's sequence is a bad row. A user's first history counts as
    training.
    """

    rows: BadRows
    users: list[str] = field(default_factory=list)
    histories: list[Sequence[str]] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def add(self, user: str, history: Sequence[str], target: str, split: str, file: str, line: int) -> None:
        self.users.append(user)
        self.histories.append(history)
        self.targets.append(target)
        self.splits.append(split)
        self.lines.append(line)
        self.files.append(file)

    @property
    def window(self) -> int:
        """The length of the longest history."""
        return max((len(history) for history in self.histories), default=0)

    def frames(self) -> dict[str, pl.DataFrame]:
        """Events by file: ``EVENT_SCHEMA`` and the split whose target each event is."""
        window = self.window
        so_far: dict[str, list[str]] = {}
        found: dict[str, list[tuple[str, str, str, int]]] = {file: [] for file in self.files}
        columns = (self.users, self.histories, self.targets, self.splits, self.lines, self.files)
        for user, history, target, split, line, file in zip(*columns, strict=True):
            known = so_far.get(user)
            if known is None:
                known = so_far[user] = list(history)
                found[file].extend((user, item, c.TRAIN, line) for item in history)
            elif list(history) != known[-window:]:
                where = f"{file}, line {line}"
                self.rows.report(
                    "unordered time", where, f"the history does not continue user {user!r}'s earlier rows"
                )
                continue
            known.append(target)
            found[file].append((user, target, split, line))
        return {file: _frame(events) for file, events in found.items()}


def _frame(events: list[tuple[str, str, str, int]]) -> pl.DataFrame:
    schema = {c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.SPLIT: pl.String, LINE: pl.UInt32}
    frame = pl.DataFrame(events, schema=schema, orient="row")
    return frame.with_columns(pl.lit(None).alias(c.RATING), pl.lit(None).alias(c.TIMESTAMP))

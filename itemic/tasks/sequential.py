"""Task C: a user's history → the next item. Evaluation asks what training has seen, by the same function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.sid.names import ItemNames
from itemic.tasks.catalogue import Catalogue, join_rows
from itemic.tasks.task import OfUsers
from itemic.tasks.windows import check_window, distinct_windows, gather_windows, times_of, window_starts

HISTORY_TEXTS = ("sid", "sid+title", "title")
THOUGHTS = ("none", "categories")
THOUGHT_OF = 3  # the latest items that a thought looks at


@dataclass(frozen=True)
class Sequential(OfUsers):
    """What comes next? Every item of a training sequence but the first is a target, under several windows.

    Attributes:
        templates: one wording unless asked for more: its prompt is one shared root in training and decoding.
        user_text: say before the history what the data know of the user: ``true`` for all columns of the users' table,
            or the columns by name. Of a user of whom nothing is known nothing is said.
        windows: how many of the latest items a row shows; "all" is what evaluation asks. A window that is no
            shorter than the history is the same row as "all" and comes once.
        max_items: the most that "all" shows; None for no bound.
        window: how "all" is cut where a history is longer: ``sliding`` shows exactly the last ``max_items``,
            ``blocks`` between half of them and all, so that neighbouring rows share their beginning; see
            :func:`itemic.tasks.windows.window_starts`.
        history_text: how a row shows the items of a history: ``sid`` (by their names, whatever these are),
            ``sid+title`` or ``title``.
        split_points: ``every`` item of a sequence as a target, or the ``last`` one alone.
        thoughts: what the answer begins with, in a think block: ``none``, or the ``categories`` of the latest items
            and of the next one.
    """

    templates: int | None = 1
    windows: tuple[int | str, ...] = (2, 3, 5, "all")
    max_items: int | None = 50
    window: str = "sliding"
    history_text: str = "sid"
    split_points: str = "every"
    thoughts: str = "none"

    name: ClassVar[str] = "C"
    recommends: ClassVar[bool] = True
    leads: ClassVar[dict[str, tuple[str, ...]]] = {
        "next": (
            "Recommend the item that this user wants next. Answer with its semantic ID. "
            "The user's items, oldest first:\n",
            "These are the items of a user in the order of time. Which one follows?\n",
            "Continue the shopping history with one more semantic ID.\n",
            "Given what this user has chosen so far, name the next choice.\n",
            "A user has picked the items below, the latest one last. Predict the next pick.\n",
        )
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "windows", tuple(self.windows))
        check_window(self.name, self.max_items, self.window)
        for size in self.windows:
            if size != "all" and (not isinstance(size, int) or size < 1):
                raise ConfigError(
                    f"task C: unknown window {size!r} in windows", 'Give numbers of items, or "all".'
                )
        if not self.windows:
            raise ConfigError("task C: windows is empty", 'Give numbers of items, or "all".')
        if self.history_text not in HISTORY_TEXTS:
            raise ConfigError(
                f"task C: unknown history_text {self.history_text!r}",
                f"Use one of {', '.join(HISTORY_TEXTS)}.",
            )
        if self.split_points not in ("every", "last"):
            raise ConfigError(f"task C: unknown split_points {self.split_points!r}", "Use every or last.")
        if self.thoughts not in THOUGHTS:
            raise ConfigError(
                f"task C: unknown thoughts {self.thoughts!r}", f"Use one of {', '.join(THOUGHTS)}."
            )

    def check_names(self, names: ItemNames) -> None:
        super().check_names(names)
        if names.kind == "title" and self.history_text != "sid":
            raise ConfigError(
                f"task C: history_text {self.history_text!r} shows titles beside or instead of names, and these items "
                "go by their titles",
                "Use history_text sid, which shows each item by its name.",
            )

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        self.users_known(catalogue)
        lengths = np.diff(train.offsets)
        user = np.repeat(np.arange(len(train)), lengths)
        target = np.arange(len(train.items))
        seen = target - train.offsets[user]  # items before the target
        asked = seen >= 1
        if self.split_points == "last":
            asked &= target == train.offsets[user + 1] - 1
        user, target, seen = user[asked], target[asked], seen[asked]
        parts = []
        if "all" in self.windows:
            parts.append((user, target, window_starts(seen, self.max_items, self.window)))
        for size in sorted({size for size in self.windows if isinstance(size, int)}, reverse=True):
            longer = seen > size if "all" in self.windows else seen >= 1
            parts.append((user[longer], target[longer], np.maximum(seen[longer] - size, 0)))
        user, target, skip = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        start = train.offsets[user] + skip
        fresh = distinct_windows(train, user, start, target + 1)
        user, target, start = user[fresh], target[fresh], start[fresh]
        order = np.lexsort((target, start, user))
        plan = {"group": user[order], "start": start[order], "target": target[order]}
        return pl.DataFrame({"kind": np.zeros(len(order), np.int32), **plan})

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        place = plan["target"].to_numpy()
        offsets, items = gather_windows(train.items, plan["start"].to_numpy(), place)
        target = pl.Series("t", train.items[place], dtype=pl.Int32)
        answer = catalogue.sids.gather(target)
        if self.thoughts != "none":
            answer = _thoughts(catalogue, offsets, items, target) + answer
        users = pl.Series(train.users, dtype=pl.String).gather(plan["group"])
        about, shown = self.about_users(catalogue, users), self._histories(catalogue, offsets, items)
        return pl.DataFrame(
            {
                "value": shown if about is None else about + shown,
                "answer": answer,
                "group": "user:" + users,
                "target": target.to_frame().select(pl.concat_list("t"))["t"],
            }
        )

    def times(self, plan: pl.DataFrame, train: Sequences) -> pl.Series | None:
        place = plan["target"].to_numpy()
        return times_of(train, place, place + 1)

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        start = offsets[:-1] + window_starts(np.diff(offsets), self.max_items, self.window)
        return self._histories(catalogue, *gather_windows(items, start, offsets[1:]))

    def _histories(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        lines, separator = catalogue.lines(self.history_text)
        return join_rows(lines, offsets, items, separator)


def _thoughts(
    catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32], target: pl.Series
) -> pl.Series:
    """A think block for each history: the last categories of its latest items, oldest first, and where the next is."""
    leaf, path = (_named(catalogue.fields[name]) for name in ("leaf", "path"))
    start = np.maximum(offsets[1:] - THOUGHT_OF, offsets[:-1])
    seen = join_rows(leaf, *gather_windows(items, start, offsets[1:]), ", ")
    texts = pl.DataFrame({"seen": seen, "next": path.gather(target)})
    block = f"{c.THINK_START}\nLatest: {{}}. Next: {{}}.\n{c.THINK_END}\n\n"
    return texts.select(pl.format(block, "seen", "next").alias("text"))["text"]


def _named(texts: pl.Series) -> pl.Series:
    return texts.replace("", "(no category)")

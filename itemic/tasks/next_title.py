"""Task F: a user's history in semantic IDs → the title of the next item.

MiniOneRec's third alignment between behaviour and language (the other two are A and B); the way back, titles → semantic
ID, is task C with ``history_text: title``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic.data.sequences import Sequences
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.sequential import Sequential
from itemic.tasks.task import OfUsers

NEXT_TITLE = "next title"


@dataclass(frozen=True)
class NextTitle(OfUsers):
    """What is the next item called? Rows are those of task C under the window "all"; items that nothing names (no
    title, brand, category or description) are no targets.

    The answer is text, so this is a task to train on: what ranks items is asked with C.

    Attributes:
        templates: one wording unless asked for more, as in task C.
        user_text, max_items, window, split_points: as in task C.
    """

    templates: int | None = 1
    max_items: int | None = 50
    window: str = "sliding"
    split_points: str = "every"

    name: ClassVar[str] = "F"
    codes: ClassVar[str | None] = "it answers a history with the next title, which task C does already"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {
        NEXT_TITLE: (
            "Say what this user wants next, by its title. The user's items, oldest first:\n",
            "These are the items of a user in the order of time. What is the one that follows called?\n",
            "Continue the shopping history with the title of one more item.\n",
            "Given what this user has chosen so far, give the name of the next choice.\n",
        )
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._histories()  # which checks the options

    def _histories(self) -> Sequential:
        return Sequential(
            user_text=self.user_text,
            windows=("all",),
            max_items=self.max_items,
            window=self.window,
            split_points=self.split_points,
        )

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        plan = self._histories().plan(catalogue, train, rng)
        named = (catalogue.names != "").to_numpy()
        return plan.filter(named[train.items[plan["target"].to_numpy()]])

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        told = self._histories().render(plan, catalogue, train)
        return told.with_columns(answer=catalogue.names.gather(train.items[plan["target"].to_numpy()]))

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        return self._histories().ask(catalogue, offsets, items)

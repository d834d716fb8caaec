"""Task rationale: a user's history → a thought, in a think block, and the next item.

The thought is made by rule from the catalogue and the training sequences: the taste that the latest items share
(category, brand, a word of their titles), what follows the last one, and what the next item is to them. Rationales that
lead to a known item are what OneRec-Think activates reasoning with ("OneRec-Think: in-text reasoning for generative
recommendation", 2025); those that a language model writes are made by :mod:`itemic.tasks.written`.
"""

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
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.sequential import Sequential
from itemic.tasks.task import OfUsers
from itemic.tasks.taste import Tastes, label_of
from itemic.tasks.windows import gather_windows

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
SAYS = ("category", "brand", "word", "follows", "next")
_SHARED = {  # wording, and how many items it takes: a word of one title alone says nothing
    "category": ("{} ({} of {})", 1),
    "brand": ("by {} ({} of {})", 1),
    "word": ("{} ({} of {})", 2),
}


@dataclass(frozen=True)
class Rationale(OfUsers):
    """Why does it come next? Rows, and prompts, are those of task C under the window "all".

    A thought reads ``Taste: Tents (3 of 5), by Alpmark (2 of 3). After Tents: Stoves, Headlamps. Next: Stoves by
    Alpmark, which follows.`` All but its last sentence can be known from the prompt. The last one says what the next
    item is: had ``again``, of ``the same`` category, one ``which follows`` by what was said, or something ``new``.

    Attributes:
        templates: one wording unless asked for more, as in task C.
        user_text, max_items, window, history_text, split_points: as in task C.
        latest: how many of the latest items the thought looks at.
        says: what a thought says, of ``category``, ``brand``, ``word``, ``follows`` and ``next``.
    """

    templates: int | None = 1
    max_items: int | None = 50
    window: str = "sliding"
    history_text: str = "sid"
    split_points: str = "every"
    latest: int = 5
    says: tuple[str, ...] = SAYS

    name: ClassVar[str] = "rationale"
    recommends: ClassVar[bool] = True
    leads: ClassVar[dict[str, tuple[str, ...]]] = Sequential.leads

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "says", tuple(self.says))
        self._histories()  # which checks the options that are task C's
        if self.latest < 1:
            raise ConfigError(f"task rationale: latest is {self.latest}", "Give 1 or more.")
        unknown = [part for part in self.says if part not in SAYS]
        if unknown or not self.says:
            told = f"unknown part {unknown[0]!r} in says" if unknown else "says is empty"
            raise ConfigError(f"task rationale: {told}", f"Name some of {', '.join(SAYS)}.")

    def check_names(self, names: ItemNames) -> None:
        super().check_names(names)
        self._histories().check_names(names)

    def _histories(self) -> Sequential:
        return Sequential(
            user_text=self.user_text,
            windows=("all",),
            max_items=self.max_items,
            window=self.window,
            history_text=self.history_text,
            split_points=self.split_points,
        )

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        return self._histories().plan(catalogue, train, rng)

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        told = self._histories().render(plan, catalogue, train)
        block = pl.format(f"{c.THINK_START}\n{{}}\n{c.THINK_END}\n\n{{}}", "thought", "answer")
        thoughts = told.with_columns(thought=self.thoughts(plan, catalogue, train))
        return thoughts.with_columns(answer=block).drop("thought")

    def times(self, plan: pl.DataFrame, train: Sequences) -> pl.Series | None:
        return self._histories().times(plan, train)

    def thoughts(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.Series:
        """The thought of each line of the plan, without its block."""
        place = plan["target"].to_numpy()
        offsets, items = gather_windows(train.items, plan["start"].to_numpy(), place)
        tastes = Tastes(catalogue, train, offsets, items, self.latest)
        parts = [self._taste(tastes)]
        if "follows" in self.says:
            parts.append(_follows(tastes))
        if "next" in self.says:
            parts.append(_next(tastes, catalogue, offsets, items, train.items[place]))
        return (
            pl.DataFrame({str(i): part for i, part in enumerate(parts)})
            .select(pl.concat_str(pl.all(), separator=" ", ignore_nulls=True))
            .to_series()
        )

    def _taste(self, tastes: Tastes) -> pl.Series:
        """What is shared, or "mixed"; null where a thought says nothing of it."""
        wanted = [part for part in _SHARED if part in self.says]
        if not wanted:
            return pl.Series([None], dtype=pl.String).new_from_index(0, len(tastes.last))
        # where a catalogue has no categories its brands stand for them
        beside = tastes.category["value"] if "category" in self.says else None
        table = pl.DataFrame(
            {part: _shared(part, tastes, beside if part == "brand" else None) for part in wanted}
        )
        joined = table.select(text=pl.concat_str(pl.all(), separator=", ", ignore_nulls=True))
        known = pl.when(pl.col("text") == "").then(pl.lit("mixed")).otherwise("text")
        return joined.select(text=pl.format("Taste: {}.", known))["text"]

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        return self._histories().ask(catalogue, offsets, items)


def _shared(part: str, tastes: Tastes, beside: pl.Series | None) -> pl.Series:
    """What is shared in one respect; null where nothing is, and where it was said ``beside`` it."""
    table: pl.DataFrame = getattr(tastes, part)
    wording, least = _SHARED[part]
    known = (pl.col("value") != "") & (pl.col("count") >= least)
    if beside is not None:
        known &= pl.col("value") != beside
    return table.select(text=pl.when(known).then(pl.format(wording, "value", "count", "of")))["text"]


def _follows(tastes: Tastes) -> pl.Series:
    """What follows the kind of the last item; null where nothing is known to."""
    table = pl.DataFrame({"last": tastes.last, "then": tastes.then})
    said = pl.format("After {}: {}.", "last", pl.col("then").list.join(", "))
    return table.select(text=pl.when(pl.col("then").list.len() > 0).then(said))["text"]


def _next(tastes: Tastes, catalogue: Catalogue, offsets: Int64, items: Int32, target: Int32) -> pl.Series:
    """What the next item is, and what it is to those before."""
    row = np.repeat(np.arange(len(target)), np.diff(offsets))
    had = np.bincount(row[items == target[row]], minlength=len(target)) > 0
    table = pl.DataFrame(
        {
            "label": label_of(catalogue).gather(target),
            "brand": catalogue.fields[c.BRAND].gather(target),
            "had": had,
            "same": tastes.category["value"],
            "then": tastes.then,
        }
    )
    kind = pl.when(pl.col("label") != "").then("label").otherwise(pl.lit("something"))
    branded = (pl.col("brand") != "") & (pl.col("brand") != pl.col("label"))
    what = pl.when(branded).then(pl.format("{} by {}", kind, "brand")).otherwise(kind)
    known = pl.col("label") != ""
    why = (
        pl.when("had")
        .then(pl.lit("again"))
        .when(known & (pl.col("label") == pl.col("same")))
        .then(pl.lit("the same"))
        .when(known & pl.col("then").list.contains(pl.col("label")).fill_null(False))
        .then(pl.lit("which follows"))
        .otherwise(pl.lit("new"))
    )
    return table.select(text=pl.format("Next: {}, {}.", what, why))["text"]

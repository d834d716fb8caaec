"""Task profile: what somebody is like, in words → the next item, for the model of semantic IDs.

So who has only words gets exact recommendations. In training the words are templated profiles of what was seen, or
those that a writer wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError, DataError
from itemic.profile.facts import ItemFacts
from itemic.profile.templated import described, taste_of_rows
from itemic.sid.names import ItemNames
from itemic.tasks.catalogue import Catalogue, join_rows
from itemic.tasks.sequential import Sequential
from itemic.tasks.task import OfKinds, Prompt
from itemic.tasks.windows import check_window, gather_windows, times_of, window_starts

WORDS, BOTH = "profile", "profile and history"
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Written:
    """Profiles that a writer wrote.

    Attributes:
        texts: by user.
        shown: how many of a user's first items the writer had read; items up to there are no targets.
    """

    texts: Mapping[str, str]
    shown: int = 0

    __hash__ = None  # type: ignore[assignment]

    def of(self, users: pl.Series) -> pl.Series:
        """The texts of some users.

        Raises:
            DataError: one has none.
        """
        known = [self.texts.get(user) for user in users.to_list()]
        if None in known:
            raise DataError(
                f"user {users[known.index(None)]!r} has no profile", "Write one, or leave the user out."
            )
        return pl.Series(known, dtype=pl.String)


@dataclass(frozen=True)
class ProfileNext(OfKinds):
    """What does somebody like this want next? Rows are those of task C under the window "all", each once a kind:
    ``profile`` has words alone, ``profile and history`` the items as well.

    Without :attr:`written` the words are a templated profile (:mod:`itemic.profile.templated`) of just the items before
    the target; the catalogue's categories and brands are in it.

    Attributes:
        templates: one wording unless asked for more, as in task C.
        max_items, window, split_points: as in task C.
        seed: of the templated profiles' wordings.
        written: profiles to use in the place of templated ones.
    """

    templates: int | None = 1
    max_items: int | None = 50
    window: str = "sliding"
    split_points: str = "every"
    seed: int = 0
    written: Written | None = None

    name: ClassVar[str] = "profile"
    recommends: ClassVar[bool] = True
    leads: ClassVar[dict[str, tuple[str, ...]]] = {
        WORDS: (
            "Recommend the item that this person wants next. Answer with its semantic ID. What they are like:\n",
            "This is what somebody is like. Which item do they want?\n",
            "Name one item for the person described here.\n",
        ),
        BOTH: (
            "Recommend the item that this person wants next. Answer with its semantic ID. What they are like, and "
            "their items, oldest first:\n",
            "This is what somebody is like, and what they chose so far. Which item follows?\n",
            "Name one more item for the person described here, whose items stand below.\n",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.name, self.max_items, self.window)
        if self.split_points not in ("every", "last"):
            raise ConfigError(
                f"task profile: unknown split_points {self.split_points!r}", "Use every or last."
            )

    def knowing(self, written: Written) -> ProfileNext:
        """The same task about profiles that a writer wrote."""
        return replace(self, written=written)

    def of_words(
        self, index: ItemNames, profile: str, history_rows: npt.NDArray[np.integer] | tuple[int, ...] = ()
    ) -> Prompt:
        """The prompt of somebody with this profile.

        Args:
            index: names the items.
            profile: in words.
            history_rows: what they had, oldest first; only the kind ``profile and history`` says it. Without any, the
                kind ``profile`` is asked.

        Raises:
            ConfigError: the profile is empty.
        """
        if not profile.strip():
            raise ConfigError("the profile is empty", "Say in words what the person likes.")
        kinds = (BOTH,) if len(history_rows) and BOTH in self.made_kinds else (WORDS,)
        asked = replace(self, kinds=kinds, written=Written({"": profile}))
        return asked.prompt(index, np.asarray(history_rows, np.int32))

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        histories = Sequential(
            windows=("all",),
            max_items=self.max_items,
            window=self.window,
            split_points=self.split_points,
        )
        plan = histories.plan(catalogue, train, rng).drop("kind")
        if self.written is not None:
            seen = plan["target"].to_numpy() - train.offsets[plan["group"].to_numpy()]
            users = pl.Series(train.users, dtype=pl.String).gather(plan["group"])
            plan = plan.filter(
                (seen >= self.written.shown) & users.is_in(list(self.written.texts)).to_numpy()
            )
        numbers = [number for number, kind in enumerate(self.leads) if kind in self.made_kinds]
        parts = [plan.select(pl.lit(number, pl.Int32).alias("kind"), pl.all()) for number in numbers]
        return pl.concat(parts).sort("group", "start", "target", "kind")

    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        place = plan["target"].to_numpy()
        offsets, items = gather_windows(train.items, plan["start"].to_numpy(), place)
        target = pl.Series("t", train.items[place], dtype=pl.Int32)
        users = pl.Series(train.users, dtype=pl.String).gather(plan["group"])
        both = (plan["kind"] == list(self.leads).index(BOTH)).to_numpy()
        about = self.about_users(catalogue, users)
        values = self._values(catalogue, offsets, items, both)
        return pl.DataFrame(
            {
                "value": values if about is None else about + values,
                "answer": catalogue.sids.gather(target),
                "group": "user:" + users,
                "target": target.to_frame().select(pl.concat_list("t"))["t"],
            }
        )

    def times(self, plan: pl.DataFrame, train: Sequences) -> pl.Series | None:
        place = plan["target"].to_numpy()
        return times_of(train, place, place + 1)

    def about_users(self, catalogue: Catalogue, users: pl.Series) -> pl.Series | None:
        if self.written is None:
            return None
        texts = self.written.of(users).alias("text").to_frame()
        return texts.select(catalogue.clean(pl.col("text")))["text"] + "\n"

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        start = offsets[:-1] + window_starts(np.diff(offsets), self.max_items, self.window)
        shown = gather_windows(items, start, offsets[1:])
        return self._values(catalogue, *shown, np.full(len(start), self.asked_kind == BOTH))

    def _values(
        self, catalogue: Catalogue, offsets: Int64, items: npt.NDArray[np.int32], both: npt.NDArray[np.bool_]
    ) -> pl.Series:
        """The templated profile, unless there are written ones, and the items of those rows that show them."""
        lines, separator = catalogue.lines("sid")
        listed = join_rows(lines, offsets, items, separator)
        table = pl.DataFrame({"listed": listed, "both": both})
        shown = table.select(pl.when("both").then("listed").otherwise(pl.lit("")).alias("text"))["text"]
        if self.written is not None:
            return shown
        facts = facts_of(catalogue)
        told = []
        for begin, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            own = items[begin:stop]
            told.append(described(taste_of_rows(own, facts), [self.seed, crc32(own.tobytes())]))
        return pl.Series(told, dtype=pl.String) + "\n" + shown


def facts_of(catalogue: Catalogue) -> ItemFacts:
    """What a catalogue's texts say of its items, in which nothing looks like a token; without prices and ratings."""
    size, labels = len(catalogue), catalogue.labels
    paths, tags = labels["names"].to_list(), labels["tags"].to_list()
    unknown = np.full(size, np.nan)
    return ItemFacts(
        titles=catalogue.names.to_list(),
        descriptions=catalogue.fields[c.DESCRIPTION].to_list(),
        brands=catalogue.fields[c.BRAND].to_list(),
        categories=[path or own for path, own in zip(paths, tags, strict=True)],
        leaves=np.array([1 if path else len(own) for path, own in zip(paths, tags, strict=True)], np.int64),
        prices=unknown,
        averages=unknown,
        rated=np.zeros(size, np.int64),
    )


PROFILE_TASKS: dict[str, ProfileNext] = {ProfileNext.name: ProfileNext()}

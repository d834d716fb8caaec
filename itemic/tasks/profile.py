"""Task profile: what somebody is like, in words → the next item, for the model of semantic IDs.

So who has only words gets exact recommendations. In training the words are templated profiles of what was seen, or
those that somebody wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import ClassVar
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import digest_of
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError, DataError
from itemic.sid.names import ItemNames
from itemic.tasks.catalogue import Catalogue, join_rows
from itemic.tasks.described import described, taste_of_rows
from itemic.tasks.facts import ItemFacts, plain
from itemic.tasks.sequential import Sequential
from itemic.tasks.task import OfKinds, Prompt
from itemic.tasks.windows import check_window, gather_windows, times_of, window_starts

WORDS, BOTH = "profile", "profile and history"
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Written:
    """Profiles that somebody wrote, or that were made beforehand.

    Attributes:
        texts: by user.
        shown: how many of a user's first items who wrote had read; items up to there are no targets of training.
    """

    texts: Mapping[str, str]
    shown: int = 0

    def __repr__(self) -> str:
        return f"Written({len(self.texts)} profiles, shown={self.shown}, {self.digest})"

    @cached_property
    def digest(self) -> str:
        """16 hex digits that name the texts."""
        return digest_of(sorted(self.texts.items()))

    def of(self, users: pl.Series) -> pl.Series:
        """The texts of some users, as plain words: tags, chat markers and control codes of others' texts are gone.

        Raises:
            DataError: one has none.
        """
        known = [self.texts.get(user) for user in users.to_list()]
        if None in known:
            raise DataError(
                f"user {users[known.index(None)]!r} has no profile", "Write one, or leave the user out."
            )
        return pl.Series([plain(text or "") for text in known], dtype=pl.String)


@dataclass(frozen=True)
class ProfileNext(OfKinds):
    """What does somebody like this want next? Rows are those of task C under the window "all", each once a kind:
    ``profile`` has words alone, ``profile and history`` the items as well.

    The words are a templated profile (:mod:`itemic.tasks.described`) of just the items before the target; the
    catalogue's categories and brands are in it. :class:`WrittenNext` has written ones.

    Attributes:
        templates: one wording unless asked for more, as in task C.
        max_items, window, split_points: as in task C.
    """

    templates: int | None = 1
    max_items: int | None = 50
    window: str = "sliding"
    split_points: str = "every"

    name: ClassVar[str] = "profile"
    recommends: ClassVar[bool] = True
    history_text: ClassVar[None] = None  # more is said than how a history's items stand in a prompt
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

    def knowing(self, written: Written, kind: str | None = None) -> WrittenNext:
        """The same task about written profiles.

        Args:
            written: the profiles.
            kind: of the conversations; None for the task's own.

        Raises:
            ConfigError: the task doesn't make that kind.
        """
        if kind is not None and kind not in self.made_kinds:
            taught = (
                f"the model was taught the task profile with {' and '.join(map(repr, self.made_kinds))} alone"
            )
            raise ConfigError(
                f"{taught}: it can't be asked with {kind!r}",
                f"Give {'items as well' if kind == WORDS else 'words alone'}, or train with kinds: [{WORDS}, {BOTH}].",
            )
        options = {each.name: getattr(self, each.name) for each in fields(ProfileNext)}
        return WrittenNext(**(options | ({} if kind is None else {"kinds": (kind,)})), written=written)

    def of_words(
        self, index: ItemNames, profile: str, history_rows: npt.NDArray[np.integer] | tuple[int, ...] = ()
    ) -> Prompt:
        """The prompt of somebody with this profile.

        Args:
            index: names the items.
            profile: in words.
            history_rows: what they had, oldest first; with any, the kind ``profile and history`` is asked.

        Raises:
            ConfigError: there are no words in the profile, or the task doesn't make the kind.
        """
        asked = self.knowing(
            Written({"": check_profile(profile, index)}), BOTH if len(history_rows) else WORDS
        )
        return asked.prompt(index, np.asarray(history_rows, np.int32))

    def templated(self, catalogue: Catalogue, offsets: Int64, items: npt.NDArray[np.int32]) -> pl.Series:
        """The templated profiles of the histories ``items[offsets[r]:offsets[r + 1]]``, each of as many of the latest
        items as the task shows."""
        start = offsets[:-1] + window_starts(np.diff(offsets), self.max_items, self.window)
        return _templated(catalogue, *gather_windows(items, start, offsets[1:]))

    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        histories = Sequential(
            windows=("all",),
            max_items=self.max_items,
            window=self.window,
            split_points=self.split_points,
        )
        plan = self.targets(histories.plan(catalogue, train, rng).drop("kind"), train)
        numbers = [number for number, kind in enumerate(self.leads) if kind in self.made_kinds]
        parts = [plan.select(pl.lit(number, pl.Int32).alias("kind"), pl.all()) for number in numbers]
        return pl.concat(parts).sort("group", "start", "target", "kind")

    def targets(self, plan: pl.DataFrame, train: Sequences) -> pl.DataFrame:
        """Of the lines of task C's plan those that the task makes."""
        return plan

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

    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        start = offsets[:-1] + window_starts(np.diff(offsets), self.max_items, self.window)
        shown = gather_windows(items, start, offsets[1:])
        return self._values(catalogue, *shown, np.full(len(start), self.asked_kind == BOTH))

    def _values(
        self, catalogue: Catalogue, offsets: Int64, items: npt.NDArray[np.int32], both: npt.NDArray[np.bool_]
    ) -> pl.Series:
        """The words, and the items of those rows that show them."""
        return _templated(catalogue, offsets, items) + "\n" + _listed(catalogue, offsets, items, both)


@dataclass(frozen=True)
class WrittenNext(ProfileNext):
    """The same where the words are given, and stand before whatever is shown of a user.

    Attributes:
        written: the profiles.
    """

    written: Written = field(default_factory=lambda: Written({}))

    def targets(self, plan: pl.DataFrame, train: Sequences) -> pl.DataFrame:
        seen = plan["target"].to_numpy() - train.offsets[plan["group"].to_numpy()]
        users = pl.Series(train.users, dtype=pl.String).gather(plan["group"])
        return plan.filter((seen >= self.written.shown) & users.is_in(list(self.written.texts)).to_numpy())

    def about_users(self, catalogue: Catalogue, users: pl.Series) -> pl.Series | None:
        texts = self.written.of(users).alias("text").to_frame()
        return texts.select(catalogue.clean(pl.col("text")))["text"] + "\n"

    def _values(
        self, catalogue: Catalogue, offsets: Int64, items: npt.NDArray[np.int32], both: npt.NDArray[np.bool_]
    ) -> pl.Series:
        return _listed(catalogue, offsets, items, both)


def check_profile(text: str, index: ItemNames) -> str:
    """A profile of anybody as plain words on one line.

    HTML is read as HTML; what looks like a chat marker or a token of the index goes, so that words can't speak as a
    role or as an item.

    Raises:
        ConfigError: it has no word, in whatever script; signs and emoji alone are none.
    """
    found = pl.DataFrame({"text": [plain(text)]}).select(Catalogue(index).clean(pl.col("text")))["text"][0]
    if not any(sign.isalnum() for sign in found):
        told = "is empty" if not text.strip() else f"has no words: {text.strip()[:40]!r}"
        raise ConfigError(f"the profile {told}", "Say in words what the person likes.")
    return str(found)


def _templated(catalogue: Catalogue, offsets: Int64, items: npt.NDArray[np.int32]) -> pl.Series:
    """A profile of each history; the same items are always told in the same words."""
    facts, told = facts_of(catalogue), []
    for begin, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        own = items[begin:stop]
        told.append(described(taste_of_rows(own, facts), crc32(own.tobytes())))
    return pl.Series(told, dtype=pl.String)


def _listed(
    catalogue: Catalogue, offsets: Int64, items: npt.NDArray[np.int32], both: npt.NDArray[np.bool_]
) -> pl.Series:
    lines, separator = catalogue.lines("sid")
    table = pl.DataFrame({"listed": join_rows(lines, offsets, items, separator), "both": both})
    return table.select(pl.when("both").then("listed").otherwise(pl.lit("")).alias("text"))["text"]


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

"""Sessions: the first few items of a user, and the one that comes first after them and isn't among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError
from itemic.profile.session_settings import SessionSettings

Bool = npt.NDArray[np.bool_]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Strings = npt.NDArray[np.object_]
Lengths = Callable[[Sequence[str]], Int64]  # of texts, in characters or tokens

FEW = "users with too few interactions"
NO_TARGET = "users without a later item that isn't among the inputs"
UNKNOWN = "sessions of valid and test whose target isn't known in training"
AMONG = "targets of valid and test that are among the inputs"


def characters(texts: Sequence[str]) -> Int64:
    """How many characters each text has."""
    return np.fromiter(map(len, texts), np.int64, len(texts))


@dataclass(frozen=True, eq=False)
class Sessions:
    """What users did first, and what came next, as flat arrays.

    Attributes:
        users: ids of the users, ``[S]``; one may have several sessions.
        offsets: int64 ``[S + 1]``; session ``s`` shows ``items[offsets[s]:offsets[s + 1]]``.
        items: int32 ``[N]``, rows of ``Dataset.items``, oldest first; an item that was taken twice stands there twice.
        ratings: float32 ``[N]``, NaN where there is none.
        reviews: ``[N]`` texts as the source has them, empty where there is none.
        targets: int32 ``[S]``, the row of the item that comes next.
        times: int64 ``[S]``, of the targets in milliseconds; None where the source tells only the order.
        labels: int8 ``[S]``, 0 train, 1 valid, 2 test.
        training: bool, one for each of the dataset's interactions: whether training may count it.
        catalogue: digest of the catalogue whose rows these are.
        lost: what was left out, by reason.
    """

    users: Strings
    offsets: Int64
    items: Int32
    ratings: Float32
    reviews: pl.Series
    targets: Int32
    times: Int64 | None
    labels: Int8
    training: Bool
    catalogue: str
    lost: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"<Sessions: {self._counts}; {sum(self.lost.values()):,} lost>"

    def told(self) -> str:
        """How many there are of each split, and what was left out by which reason, for a log."""
        return f"sessions: {self._counts}; {_told(self.lost)}"

    @property
    def _counts(self) -> str:
        return ", ".join(f"{int((self.labels == code).sum()):,} {name}" for code, name in enumerate(c.SPLITS))

    def inputs(self, session: int) -> Int32:
        return self.items[self.offsets[session] : self.offsets[session + 1]]

    def take(self, sessions: npt.NDArray[np.integer] | Sequence[int]) -> Sessions:
        """Some of the sessions, in the order given."""
        some = np.asarray(sessions, np.int64)
        return self._shown(some, self.offsets[:-1][some], self.offsets[1:][some])

    def split(self, name: str) -> Sessions:
        """The sessions of ``train``, ``valid`` or ``test``.

        Raises:
            ConfigError: there is no such split.
            DataError: it is empty.
        """
        if name not in c.SPLITS:
            raise ConfigError(f"unknown split {name!r}", f"Ask for {', '.join(c.SPLITS)}.")
        some = np.flatnonzero(self.labels == c.SPLITS.index(name))
        if not len(some):
            raise DataError(
                f"no session is of the split {name}; {_told(self.lost)}",
                "Use fewer inputs, other shares, wider length filters or more data.",
            )
        return self.take(some)

    def latest(self, count: int) -> Sessions:
        """The same sessions with their last ``count`` inputs alone; with 0 they show nothing."""
        if count < 0:
            raise ConfigError(f"the latest {count} inputs", "Give 0 or more.")
        start = np.maximum(self.offsets[1:] - count, self.offsets[:-1])
        return self._shown(np.arange(len(self)), start, self.offsets[1:])

    def within(self, lengths: npt.ArrayLike, most: int, what: str) -> Sessions:
        """Without the sessions that are too long, which are counted.

        Args:
            lengths: ``[S]``, such as the tokens of their prompts.
            most: the longest that stays.
            what: the reason to be told, such as ``prompts of more than 1,024 tokens``.
        """
        fits = np.asarray(lengths) <= most
        if len(fits) != len(self):
            raise ConfigError(f"{len(fits)} lengths for {len(self)} sessions", "Give one for each session.")
        return replace(self.take(np.flatnonzero(fits)), lost=self.lost + Counter({what: int((~fits).sum())}))

    def requests(self) -> Requests:
        """The same as questions to a recommender."""
        return Requests(self.users, self.offsets, self.items, self.targets, self.catalogue)

    def of_items(
        self, items: Int32, ratings: Float32 | None = None, reviews: pl.Series | None = None, user: str = ""
    ) -> Sessions:
        """One session of the same catalogue that shows some items; nothing comes after it, its target is -1."""
        size = len(items)
        return replace(
            self,
            users=np.array([user], object),
            offsets=np.array([0, size]),
            items=items,
            ratings=np.full(size, np.nan, np.float32) if ratings is None else ratings,
            reviews=pl.Series([""] * size, dtype=pl.String) if reviews is None else reviews,
            targets=np.array([-1], np.int32),
            times=None,
            labels=np.array([c.SPLITS.index("test")], np.int8),
        )

    def of_user(self, dataset: Dataset, place: int, rule: SessionSettings, first: bool = False) -> Sessions:
        """The session of a user as they stand now; as :meth:`of_items` has it.

        Args:
            dataset: that these sessions are of.
            place: the user's number in ``dataset.sequences``.
            rule: how many items are shown, and which interactions are left out. Where there are fewer, all are shown.
            first: show the user's first items, and not their latest ones.

        Raises:
            DataError: nothing is left of the user's history.
        """
        lost: Counter[str] = Counter()
        begin, stop = dataset.sequences.offsets[place : place + 2]
        places = begin + np.flatnonzero(_kept(dataset, rule, characters, lost)[begin:stop])
        user = str(dataset.sequences.users[place])
        if not len(places):
            raise DataError(
                f"user {user!r} has no history that a profile could be written of: {_told(lost)}",
                "Ask for another user, or widen the length filters.",
            )
        some = places[: rule.inputs] if first else places[-rule.inputs :]
        return self.of_items(
            dataset.sequences.items[some],
            _column(dataset, c.RATING, pl.Float32, None).gather(some).to_numpy(),
            _column(dataset, c.REVIEW, pl.String, "").gather(some),
            user,
        )

    def _shown(self, some: Int64, start: Int64, stop: Int64) -> Sessions:
        offsets, places = _spans(start, stop)
        return replace(
            self,
            users=self.users[some],
            offsets=offsets,
            items=self.items[places],
            ratings=self.ratings[places],
            reviews=self.reviews.gather(places),
            targets=self.targets[some],
            times=None if self.times is None else self.times[some],
            labels=self.labels[some],
        )

    @classmethod
    def of(
        cls, dataset: Dataset, rule: SessionSettings | None = None, *, length: Lengths = characters
    ) -> Sessions:
        """The sessions of a dataset.

        Args:
            dataset: with ratings, reviews and times where its source has them.
            rule: which ones.
            length: what the length filters count; see :func:`itemic.profile.words.tokens_of` for tokens.

        Raises:
            DataError: no user has enough interactions, or the split asks for times that aren't there.
        """
        rule = rule or SessionSettings()
        lost: Counter[str] = Counter()
        kept = _kept(dataset, rule, length, lost)
        user = np.repeat(np.arange(len(dataset.sequences)), np.diff(dataset.sequences.offsets))
        place = np.flatnonzero(kept)  # positions below count what is kept
        items, user = dataset.sequences.items[place], user[place]
        offsets = np.searchsorted(user, np.arange(len(dataset.sequences) + 1)).astype(np.int64)
        given = dataset.labels[place] if rule.split == "dataset" else np.zeros(len(place), np.int8)
        start, stop, target, labels = _found(items, user, offsets, given, rule, lost)
        if not len(start):
            raise DataError(
                f"no user has {rule.inputs} items and another one after them; {_told(lost)}",
                "Use fewer inputs, wider length filters or a source with longer sequences.",
            )
        time = dataset.interactions[c.TIMESTAMP]
        times = None if time.null_count() else time.to_numpy().astype(np.int64)
        if rule.split == "time":
            if times is None:
                raise DataError(
                    "sessions are split by time, and the source has none for every interaction",
                    "Give split: dataset, or add timestamps.",
                )
            labels = _by_time(times[place[target]], rule.ratios)
        training = _training(dataset, rule, times, place, start, target, labels)
        known = np.zeros(len(dataset.items), bool)
        known[dataset.sequences.items[training]] = True
        if rule.known:
            fine = (labels == 0) | known[items[target]]
            lost[UNKNOWN] += int((~fine).sum())
            start, stop, target, labels = start[fine], stop[fine], target[fine], labels[fine]
        spans, shown = _spans(start, stop)
        return cls(
            users=dataset.sequences.users[user[target]],
            offsets=spans,
            items=items[shown],
            ratings=_column(dataset, c.RATING, pl.Float32, None).gather(place[shown]).to_numpy(),
            reviews=_column(dataset, c.REVIEW, pl.String, "").gather(place[shown]),
            targets=items[target],
            times=None if times is None else times[place[target]],
            labels=labels,
            training=training,
            catalogue=dataset.catalogue,
            lost=+lost,
        )


def _kept(dataset: Dataset, rule: SessionSettings, length: Lengths, lost: Counter[str]) -> Bool:
    """Which interactions are left by the length filters."""
    kept = np.ones(len(dataset.interactions), bool)
    if rule.longest_description is not None:
        long = length(dataset.items[c.DESCRIPTION].fill_null("").to_list()) > rule.longest_description
        lost[f"items with a description longer than {rule.longest_description:,}"] += int(long.sum())
        kept &= ~long[dataset.sequences.items]
        lost["their interactions"] += int((~kept).sum())
    if rule.shortest_review or rule.longest_review is not None:
        size = length(_column(dataset, c.REVIEW, pl.String, "").to_list())
        short, long = size < rule.shortest_review, size > (rule.longest_review or np.inf)
        lost[f"interactions with a review shorter than {rule.shortest_review:,}"] += int((kept & short).sum())
        if rule.longest_review is not None:
            told = f"interactions with a review longer than {rule.longest_review:,}"
            lost[told] += int((kept & long).sum())
        kept &= ~(short | long)
    return kept


def _found(
    items: Int32, user: Int64, offsets: Int64, given: Int8, rule: SessionSettings, lost: Counter[str]
) -> tuple[Int64, Int64, Int64, Int8]:
    """Where the inputs of each session start and stop, and its target, as positions; and its label. Users in their
    order, each one's by time.

    Within ``given`` labels a session of training lies in the training prefix altogether.
    """
    count, size, least = len(items), rule.inputs, rule.least or rule.inputs
    position = np.arange(count, dtype=np.int64)
    seen = position - offsets[user]
    begins = (given == 0) if rule.each == "first" else np.zeros(count, bool)  # shows what the user began with
    start = np.where(begins, offsets[user], np.maximum(position - size, offsets[user]))
    stop = np.where(begins, start + size, position)
    enough = seen >= np.where(begins, size, least)
    among = np.zeros(count, bool)
    for back in range(size):
        at = start + back
        inside = enough & (at < stop)
        among[inside] |= items[at[inside]] == items[inside]
    fresh = position[enough & (given == 0) & ~among]
    if rule.each == "first":
        fresh = fresh[np.unique(user[fresh], return_index=True)[1]]
    users = len(offsets) - 1
    trained, had = np.bincount(user[given == 0], minlength=users), np.bincount(user[fresh], minlength=users)
    fewest = size if rule.each == "first" else least
    lost[NO_TARGET] += int(((trained > fewest) & (had == 0)).sum())
    asked = enough & (given > 0)
    lost[AMONG] += int((asked & among).sum())
    target = np.sort(np.concatenate([fresh, position[asked & ~among]]))
    without = np.bincount(user[target], minlength=users) == 0
    lost[FEW] += int((without & (trained <= fewest)).sum())
    return start[target], stop[target], target, given[target]


def _by_time(times: Int64, ratios: tuple[float, float, float]) -> Int8:
    """Labels by the targets' times; those of one moment stay together, in the earlier split."""
    order = np.sort(times)
    bounds = (np.cumsum(ratios[:2]) * len(times) + 1e-9).astype(np.int64)
    labels = np.zeros(len(times), np.int8)
    for code, bound in zip((1, 2), bounds.tolist(), strict=True):
        latest = order[bound - 1] if bound else order[0] - 1
        labels[times > latest] = code
    return labels


def _training(
    dataset: Dataset,
    rule: SessionSettings,
    times: Int64 | None,
    place: Int64,
    start: Int64,
    target: Int64,
    labels: Int8,
) -> Bool:
    """Which interactions training may count: the dataset's own, or all until the last target of training, in time."""
    if rule.split == "dataset":
        return np.asarray(dataset.labels == 0)
    assert times is not None
    ends = times[place[target[labels == 0]]]
    return np.asarray(times <= ends.max()) if len(ends) else np.zeros(len(times), bool)


def _column(dataset: Dataset, name: str, kind: type[pl.DataType], missing: str | None) -> pl.Series:
    """A column of the interactions; without it, or without a value, ``missing`` (NaN for numbers)."""
    table = dataset.interactions
    found = table[name] if name in table.columns else pl.Series([None]).new_from_index(0, len(table))
    return found.cast(kind).fill_null(np.nan if missing is None else missing)


def _spans(start: Int64, stop: Int64) -> tuple[Int64, Int64]:
    """CSR offsets of spans, and the positions in them one after the other."""
    lengths = stop - start
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return offsets, np.arange(offsets[-1]) - np.repeat(offsets[:-1] - start, lengths)


def _told(lost: Counter[str]) -> str:
    return "lost: " + ("; ".join(f"{count:,} {what}" for what, count in (+lost).items()) or "nothing")

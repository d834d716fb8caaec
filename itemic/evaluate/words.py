"""What words are worth: a model asked by a profile, by a few items, and by both, about the same requests.

A profile is a templated one of the user's training interactions, or what somebody wrote of them. These come before
every target of validation and test of that user, so no profile knows what is to be found, or what came later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate.counting import Popularity
from itemic.evaluate.paired import ranks_in
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.recommend import ModelRanker
from itemic.evaluate.report import METRICS, Measure
from itemic.evaluate.stream import Ranker, rank_all
from itemic.evaluate.worth import ALONE, POPULAR, TOGETHER, WORDS, Line, Worth
from itemic.metrics import bootstrap
from itemic.model.model import Model
from itemic.sid.names import ItemNames
from itemic.tasks import Task
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.fitting import fit_profiles
from itemic.tasks.profile import BOTH, ProfileNext, Written
from itemic.tasks.profile import WORDS as WORDS_KIND
from itemic.tasks.windows import gather_windows

Int64 = npt.NDArray[np.int64]
COLUMNS = ("hr", "ndcg")


@dataclass(frozen=True)
class AskedBy:
    """A model, and how it is asked.

    Attributes:
        model: is searched.
        profile: the task that taught it to go by words.
        items: the task that asks by items alone.
        beams, normalize, thinking: as of :class:`itemic.evaluate.recommend.ModelRanker`.
        exclude_history: leave out all that a user had before the target, shown or not, whoever is asked.
    """

    model: Model
    profile: ProfileNext
    items: Task
    beams: int = 50
    normalize: str = "vocab"
    thinking: str | None = None
    exclude_history: bool = False

    def ranker(self, task: Task, dataset: Dataset) -> ModelRanker:
        """Who ranks for one task."""
        return ModelRanker(
            self.model,
            task=task,
            beams=self.beams,
            normalize=self.normalize,
            thinking=self.thinking,
            dataset=dataset,
        )


class Latest:
    """A model that is shown no more than the latest items of each history.

    What is to be left out of its lists are the items of the whole history.

    Args:
        ranker: the model.
        shown: how many items of a history it gets.
        name: for tables.
    """

    def __init__(self, ranker: ModelRanker, shown: int, name: str) -> None:
        self.ranker, self.shown, self.name = ranker, shown, name
        self._cut: tuple[Requests, Requests] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """What the ranking depends on, for resuming."""
        return self.ranker.config | {"shown": self.shown}

    def rank(
        self, requests: Requests, k: int, exclude_history: bool = False
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """As :meth:`ModelRanker.rank`."""
        out = [requests.history(row) for row in range(len(requests))] if exclude_history else None
        return self.ranker.rank_without(self._latest(requests), k, out)

    def shortened(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """Who was shown even less, as it is more than the model can read."""
        return self.ranker.shortened(self._latest(requests))

    def _latest(self, requests: Requests) -> Requests:
        if self._cut is None or self._cut[0] is not requests:
            self._cut = requests, latest_of(requests, self.shown)
        return self._cut[1]


def latest_of(requests: Requests, shown: int) -> Requests:
    """The same requests with the latest ``shown`` items of each history, or as many as there are."""
    stop = requests.offsets[1:]
    start = stop - np.minimum(np.diff(requests.offsets), shown)
    offsets, items = gather_windows(requests.items, start, stop)
    return replace(requests, offsets=offsets, items=items)


def templated_profiles(
    task: ProfileNext, index: ItemNames, dataset: Dataset, users: npt.NDArray[np.object_]
) -> Written:
    """The templated profile of each user's training interactions, the latest as many as the task shows.

    Somebody without any gets the profile that says so.
    """
    train, catalogue = dataset.train, Catalogue(index, dataset.items)
    place = {user: row for row, user in enumerate(train.users)}
    wanted = list(dict.fromkeys(users.tolist()))
    rows = np.array([place[user] for user in wanted], np.int64)
    shown = gather_windows(train.items, train.offsets[rows], train.offsets[rows + 1])
    texts = task.templated(catalogue, *shown).to_list()
    return Written(dict(zip(map(str, wanted), texts, strict=True)))


def requests_about(
    dataset: Dataset, split: str, written: Written | None, users: int | None, seed: int
) -> tuple[Requests, list[str]]:
    """Requests whose target is known and whose user has a profile, at most ``users`` of them, drawn by the seed; and
    what a reader has to know.

    Raises:
        ConfigError: there are none.
    """
    requests = dataset.split(split)
    known = np.flatnonzero(requests.targets >= 0)
    if not len(known):
        raise ConfigError(
            f"the targets of {split} are unknown: nothing can be measured", "Use another split."
        )
    notes = []
    if written is not None:
        there = np.array([str(user) in written.texts for user in requests.users[known]], bool)
        if not there.any():
            raise ConfigError(
                f"none of the users of {split} has one of these profiles",
                "Give profiles of the dataset's users.",
            )
        if not there.all():
            notes.append(f"{int((~there).sum()):,} requests of users without a profile are left out.")
        known = known[there]
    if users is not None and users < len(known):
        known = np.sort(np.random.default_rng([seed, users]).choice(known, users, replace=False))
    return requests.take(known), notes


def evaluate_words(
    asked: AskedBy,
    dataset: Dataset,
    requests: Requests,
    *,
    shown: Sequence[int] = (0, 1, 2, 5),
    written: Written | None = None,
    k: Sequence[int] = (5, 10, 20),
    notes: Sequence[str] = (),
    title: str = "What words are worth",
    seed: int = 0,
    output: str | Path | None = None,
) -> Worth:
    """Ask about the same requests by the latest few items, by the profile, and by both.

    Gains are over items alone, paired by request. Without any item they are over popularity, as "items alone" is then
    the prompt of an empty history, which training never shows: what the model thinks of nobody in particular.

    Args:
        asked: the model.
        dataset: of its catalogue; templated profiles are made of its training interactions.
        requests: with known targets.
        shown: how many of the latest items, one after the other.
        written: the profiles, which know nothing of the targets; None for templated ones.
        k: cuts of the metrics.
        notes: what a reader has to know of requests and profiles.
        title: of the table.
        seed: of the bootstrap; whole users are resampled.
        output: the folder of the rankings, which are gone on with; None keeps none.

    Raises:
        ConfigError: ``shown`` or ``k`` make no sense, or the model is asked by a task that shows no items.
        ArtifactError: ``output`` holds rankings of something else.
    """
    _check(shown, k)
    return _Words(asked, dataset, requests, written, list(k), seed, output).evaluate(
        sorted(shown), list(notes), title
    )


class _Words:
    def __init__(
        self,
        asked: AskedBy,
        dataset: Dataset,
        requests: Requests,
        written: Written | None,
        k: list[int],
        seed: int,
        output: str | Path | None,
    ) -> None:
        self.asked, self.dataset, self.requests = asked, dataset, requests
        self.k, self.seed = k, seed
        self.root = None if output is None else Path(output)
        self.users = np.unique(requests.users.astype(str), return_inverse=True)[1]
        self.columns = [
            f"{name}@{cut}" for name in COLUMNS for cut in sorted(k) if (name, cut) != ("ndcg", 1)
        ]
        index = asked.model.index
        self.written = written or templated_profiles(asked.profile, index, dataset, requests.users)
        self.notes: list[str] = []
        self._rankings: list[Ranking] = []  # folders of their own live as long as these

    def evaluate(self, shown: list[int], notes: list[str], title: str) -> Worth:
        kinds, lines = self.asked.profile.made_kinds, []
        items = self.asked.ranker(self.asked.items, self.dataset)
        words = self._worded(WORDS_KIND, 0, "profile") if WORDS_KIND in kinds else None
        popular = self._ranks(Popularity(self.dataset), POPULAR) if min(shown) < self._least else None
        for count in shown:
            found: dict[str, Int64] = {}
            if popular is not None and count < self._least:
                found[POPULAR] = popular
            if count >= self.asked.items.least_items and (count or not self.asked.items.plain):
                found[ALONE] = self._ranks(Latest(items, count, f"items-{count}"), f"items-{count}")
            if words is not None:
                found[WORDS] = words
            if count and BOTH in kinds:
                found[TOGETHER] = self._worded(BOTH, count, f"both-{count}")
            lines += self._lines(count, found)
        about = f"{title} · {len(self.requests):,} requests, intervals at 95%"
        told = [*self._about(shown), *dict.fromkeys(self.notes), *notes]
        return Worth(about, len(self.requests), self.columns, lines, told)

    @property
    def _least(self) -> int:
        """With fewer items popularity stands beside."""
        return max(1, self.asked.items.least_items)

    def _about(self, shown: list[int]) -> list[str]:
        few = "without any item" if self._least == 1 else f"with fewer than {self._least} items"
        over = [ALONE] if max(shown) >= self._least else []
        over += [f"{POPULAR} {few}"] if min(shown) < self._least else []
        told = [f"Gains are over {' and over '.join(over)}, paired by request."]
        asks = not self.asked.items.plain and not self.asked.items.least_items
        if 0 in shown and asks:
            told.append(
                "Without any item, items alone is the prompt of an empty history, which training never shows."
            )
        missing = [kind for kind in (WORDS_KIND, BOTH) if kind not in self.asked.profile.made_kinds]
        told += [
            f"The task profile wasn't taught with kind {kind!r}: such lines are missing." for kind in missing
        ]
        return told

    def _worded(self, kind: str, shown: int, name: str) -> Int64:
        """The ranks of the targets by a profile, beside the latest items."""
        task = self.asked.profile.knowing(self.written, kind)
        asker = self.asked.ranker(task, self.dataset).asker
        task, cut = fit_profiles(asker, task, latest_of(self.requests, shown))
        if cut:
            self.notes.append(
                f"{len(cut):,} profiles are longer than the model can read: their end was left out."
            )
        return self._ranks(Latest(self.asked.ranker(task, self.dataset), shown, name), name)

    def _ranks(self, ranker: Ranker, name: str) -> Int64:
        index = self.asked.model.index
        ranking = rank_all(
            ranker,
            self.requests,
            index.item_ids,
            k=max(self.k),
            exclude_history=self.asked.exclude_history,
            sids=index.texts,
            output=None if self.root is None else self.root / name,
            config=ranker.config if isinstance(ranker, Latest) else None,
        )
        self._rankings.append(ranking)
        return ranks_in(ranking)

    def _lines(self, shown: int, found: dict[str, Int64]) -> list[Line]:
        base = POPULAR if POPULAR in found else ALONE  # a prompt of nothing is no rival
        lines = []
        for way, ranks in found.items():
            values = {name: self._values(ranks, name) for name in self.columns}
            metrics = {name: self._measure(own) for name, own in values.items()}
            gains = {}
            if way != base:
                gains = {
                    name: self._measure(own - self._values(found[base], name)) for name, own in values.items()
                }
            lines.append(Line(shown, way, metrics, gains, base))
        return lines

    @staticmethod
    def _values(ranks: Int64, column: str) -> npt.NDArray[np.float64]:
        name, _, cut = column.partition("@")
        return METRICS[name](ranks, int(cut))

    def _measure(self, values: npt.NDArray[np.float64]) -> Measure:
        return Measure(float(values.mean()), *bootstrap(values, self.seed, groups=self.users))


def _check(shown: Sequence[int], k: Sequence[int]) -> None:
    if not shown or min(shown) < 0 or len(set(shown)) < len(shown):
        raise ConfigError(f"shown is {list(shown)}", "Give numbers of items from 0 up, each once: 0,1,2,5.")
    if not k or min(k) < 1:
        raise ConfigError(f"k is {list(k)}", "Give cuts from 1 up, such as 5,10,20.")

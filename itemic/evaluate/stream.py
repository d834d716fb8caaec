"""Asking a ranker everything, part by part: resumable, with interim metrics on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.data.sequences import Requests, catalogue_digest
from itemic.errors import ArtifactError, ConfigError
from itemic.evaluate.ranking import OddRequests, Ranking, RankingWriter
from itemic.metrics import hit_rate, ndcg, ranks_of
from itemic.progress import log, progress_bar

INTERIM_EVERY = 0.05
INTERIM_K = 10
LINES_APART = 5.0  # seconds
Items = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]


class Ranker(Protocol):
    """Whatever can put the catalogue in order for a request: a model, or a baseline."""

    @property
    def name(self) -> str: ...

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> tuple[Items, Scores]:
        """Items int32 and scores float32, both ``[R, k]``, best first; -1 and -inf where items run out."""

    def shortened(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """bool ``[R]``: whose history is longer than the ranker reads, so that its oldest items are left out."""


@dataclass(frozen=True)
class Watch:
    """Who is told of a ranking that is being made.

    Attributes:
        interim: gets how many requests are done and ``hr@10`` and ``ndcg@10`` over these, every 5 %.
        answered: gets requests, items and scores as soon as they are there, part by part.
    """

    interim: Callable[[int, dict[str, float]], None] | None = None
    answered: Callable[[Requests, Items, Scores], None] | None = None


@dataclass(frozen=True)
class Kept:
    """Where a list of each request is kept.

    Attributes:
        name: of the ranker, for tables.
        output: the folder; None for one that lives as long as the ranking.
        config: how the ranker is asked, kept in the ranking and compared on resuming.
        watch: who else is told.
        beside: writes what else is kept of a part, by the part's number, before the part itself is there.
    """

    name: str
    output: str | Path | None = None
    config: dict[str, Any] | None = None
    watch: Watch | None = None
    beside: Callable[[int], None] | None = None


Answered = tuple[Items, Scores, npt.NDArray[np.bool_]]  # items, scores, and who was shortened


def rank_all(
    ranker: Ranker,
    requests: Requests,
    item_ids: list[str],
    *,
    k: int = 20,
    exclude_history: bool = False,
    sids: list[str] | None = None,
    output: str | Path | None = None,
    part_size: int | None = None,
    config: dict[str, Any] | None = None,
    watch: Watch | None = None,
    beside: Callable[[int], None] | None = None,
) -> Ranking:
    """Rank all requests into a folder; parts that are there already are kept as they are.

    Hit rate and NDCG at 10 of what is done so far are logged every 10 % and shown beside the bar, where
    targets are known. A request that nothing is left for (its user has had everything) gets an empty ranking, which
    is a miss; such requests, and histories that were too long, are counted and told at the end.

    Args:
        ranker: who is asked.
        requests: what is asked.
        item_ids: the catalogue, by row.
        k: how many items to keep for each request.
        exclude_history: leave out the items of the request's own history.
        sids: the SID text of each item.
        output: the folder; None for one that lives as long as the ranking.
        part_size: requests a part.
        config: how the ranker is asked, kept in the ranking and compared on resuming.
        watch: who else is told.
        beside: as of :class:`Kept`.

    Raises:
        ConfigError: k is below 1, or these are no requests.
        IndexMismatchError: the requests are of another catalogue.
        DataError: they name items that aren't there.
        ArtifactError: the folder holds another ranking.
    """

    def answer(asked: Requests) -> list[Answered]:
        return [(*ranker.rank(asked, k, exclude_history), ranker.shortened(asked))]

    kept = Kept(ranker.name, output, config, watch, beside)
    return rank_together(
        answer,
        [kept],
        requests,
        item_ids,
        k=k,
        exclude_history=exclude_history,
        sids=sids,
        part_size=part_size,
    )[0]


def rank_together(
    answer: Callable[[Requests], list[Answered]],
    lists: Sequence[Kept],
    requests: Requests,
    item_ids: list[str],
    *,
    k: int = 20,
    exclude_history: bool = False,
    sids: list[str] | None = None,
    part_size: int | None = None,
) -> list[Ranking]:
    """As :func:`rank_all`, for several rankings that are made from one answer.

    A part is asked for where one of the rankings lacks it, and written where it is lacking.

    Args:
        answer: gives what belongs into each of ``lists`` for some requests.
        lists: the rankings, in that order.
        requests: as in :func:`rank_all`.
        item_ids: as in :func:`rank_all`.
        k: as in :func:`rank_all`.
        exclude_history: how they are asked, for the record.
        sids: as in :func:`rank_all`.
        part_size: as in :func:`rank_all`.

    Raises:
        ArtifactError: a folder holds another ranking, or one in other parts than the first one's.
        ItemicError: as for :func:`rank_all`.
    """
    check_requests(requests)
    requests.check_catalogue(catalogue_digest(item_ids), len(item_ids), "the list of items to rank")
    if k < 1:
        raise ConfigError(f"a ranking of {k} items", "Give a k of 1 or more.")
    writers: list[RankingWriter] = []
    for kept in lists:
        settings = {"exclude_history": exclude_history} | (kept.config or {})
        writer = RankingWriter(
            kept.output, kept.name, requests, item_ids, k, sids=sids, config=settings, part_size=part_size
        )
        part_size = writer.head.part_size
        writers.append(writer)
    if odd := next((each for each in writers if each.head.part_size != writers[0].head.part_size), None):
        raise ArtifactError(
            f"{odd.folder} has parts of {odd.head.part_size} requests, {writers[0].folder} of "
            f"{writers[0].head.part_size}",
            "Remove one of the two folders.",
        )
    missing = [set(writer.ranking.missing) for writer in writers]
    _tell_rest(writers, missing)
    told = [_Told(kept, len(requests)) for kept in lists]
    with progress_bar(f"ranking · {lists[0].name}", len(requests)) as bar:
        for part in range(writers[0].head.parts):
            start, stop = writers[0].head.bounds(part)
            asked = requests[start:stop]
            answers = answer(asked) if any(part in todo for todo in missing) else []
            for place, (writer, each) in enumerate(zip(writers, told, strict=True)):
                if part in missing[place]:
                    items, scores, shortened = answers[place]
                    if each.kept.beside is not None:
                        each.kept.beside(part)
                    writer.write(part, items, scores, shortened)
                    each.answered(asked, items, scores)
                else:
                    done = writer.ranking.part(part)
                    items, shortened = done.items, done.shortened
                each.add(asked, items, shortened, quiet=part not in missing[place])
            bar.describe(told[0].interim.text)
            bar.advance(stop - start)
    for each in told:
        for note in each.odd.notes:
            log.warning("ranking · %s: %s", each.kept.name, note)
    return [writer.ranking for writer in writers]


def _tell_rest(writers: Sequence[RankingWriter], missing: Sequence[set[int]]) -> None:
    """Which rankings are gone on with."""
    for writer, todo in zip(writers, missing, strict=True):
        if todo and len(todo) < writer.head.parts:
            done = writer.head.parts - len(todo)
            log.info("%s: %d of %d parts are done; going on", writer.head.name, done, writer.head.parts)


class _Told:
    """What is told of one ranking on the way."""

    def __init__(self, kept: Kept, requests: int) -> None:
        self.kept, self.watch = kept, kept.watch or Watch()
        self.interim, self.odd = _Interim(kept.name, requests, self.watch), OddRequests()

    def answered(self, requests: Requests, items: Items, scores: Scores) -> None:
        if self.watch.answered is not None:
            self.watch.answered(requests, items, scores)

    def add(self, requests: Requests, items: Items, shortened: npt.NDArray[np.bool_], quiet: bool) -> None:
        self.odd.add(items, shortened, requests.users)
        self.interim.add(items, requests.targets, quiet=quiet)


def check_requests(requests: object) -> None:
    """Tell requests from what people take for them.

    Raises:
        ConfigError: these are none.
    """
    if not isinstance(requests, Requests):
        raise ConfigError(
            f"requests are wanted, not a {type(requests).__name__}",
            'Take those of a split, such as dataset.split("test").',
        )


class _Interim:
    """Running means over what has been ranked."""

    def __init__(self, name: str, total: int, watch: Watch) -> None:
        self.name, self.total, self.watch = name, total, watch
        self.seen = self.known = 0
        self.hits = self.gain = 0.0
        self.step = self.logged = 0
        self.told = time.monotonic()

    @property
    def numbers(self) -> dict[str, float]:
        return {f"hr@{INTERIM_K}": self.hits / self.known, f"ndcg@{INTERIM_K}": self.gain / self.known}

    @property
    def text(self) -> str:
        if not self.known:
            return f"ranking · {self.name}"
        scores = " ".join(f"{key.upper()} {value:.4f}" for key, value in self.numbers.items())
        return f"ranking · {self.name} · {scores}"

    def add(self, items: Items, targets: npt.NDArray[np.int32], quiet: bool) -> None:
        known = targets >= 0
        ranks = ranks_of(items[known], targets[known])
        self.seen += len(targets)
        self.known += len(ranks)
        self.hits += float(hit_rate(ranks, INTERIM_K).sum())
        self.gain += float(ndcg(ranks, INTERIM_K).sum())
        step = int(self.seen / self.total / INTERIM_EVERY + 1e-9)
        if step > self.step and self.known:
            if self.watch.interim is not None:
                self.watch.interim(self.seen, self.numbers)
            if not quiet:
                self._log(step)
        self.step = step

    def _log(self, step: int) -> None:
        """A line every 10 %, of those that follow each other within seconds only the last of all."""
        now, last = time.monotonic(), self.seen == self.total
        if last or (step - self.logged >= 2 and now - self.told >= LINES_APART):
            log.info("%s after %d of %d", self.text, self.seen, self.total)
            self.logged, self.told = step, now

"""Mixtures of rankers: what several of them say of an item, weighed, with one search for all mixtures.

``P(x | h) = E(x | h) + β(h) · (v_0 P_model(x | h) + Σ_m v_m P_m(x | h))``. ``P_m`` are rankers that score the whole
catalogue, normalised over the items that may come; of the language model the beams are known and what is asked for
beside them. ``E`` and ``β`` are what counts add and what they leave
(:meth:`itemic.evaluate.counting.ItemToItem.evidence`), 0 and 1 where there are none.

An item's probability under the language model is computed where it could bring the item into one of the lists, and
nowhere else: with the unknown ones at 0, the ``k``-th best of what is known is what an item must reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from itemic.data.sequences import Requests
from itemic.decode import Include
from itemic.evaluate.counting import ItemToItem, Ranked, history_keys, top_of_groups

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MARGIN = 1e-4  # of a floor, in nats: scores are float32
AT_ONCE = 64  # requests whose candidates are put together
CELLS = 8_000_000  # of the whole catalogue's probabilities that are held at once


class Prior(Protocol):
    """A language model as a ranker, see :class:`itemic.evaluate.recommend.ModelRanker`."""

    @property
    def name(self) -> str: ...

    @property
    def beams(self) -> int: ...

    @property
    def sharers(self) -> Float64:
        """float64 ``[n]``: how many items have each item's very semantic ID, itself included."""

    @property
    def config(self) -> dict[str, object]: ...

    def rank_including(
        self, requests: Requests, include: Include, k: int, exclude_history: bool = False
    ) -> tuple[Int32, Float32, list[Float32]]: ...

    def shortened(self, requests: Requests) -> Bool: ...


class Scorer(Protocol):
    """A ranker that gives every item of the catalogue a probability: a baseline, or a teacher."""

    @property
    def name(self) -> str: ...

    @property
    def config(self) -> dict[str, Any]: ...

    def scores(self, requests: Requests) -> Float32:
        """The log-probability of every item, float32 ``[R, n]``."""

    def shortened(self, requests: Requests) -> Bool: ...


@dataclass(frozen=True)
class Mixture:
    """How one list is mixed.

    Attributes:
        model: weight of the language model, ``v_0``.
        others: weights of the rankers that score everything, ``v_m``, in their order.
        counts: what gives ``E`` and ``β``; None for nothing.
    """

    model: float = 1.0
    others: tuple[float, ...] = ()
    counts: ItemToItem | None = None


@dataclass(frozen=True)
class Candidates:
    """The items that counts, rankers or beams know for some requests, and what the language model gives them.

    First come those that are known without it, request by request, then what the beams found besides.

    Attributes:
        asked: int64 ``[Q]``, the requests by their numbers in the evidence.
        own: int64 ``[m]``, where the evidence has those that are known without it.
        row: int64 ``[m + b]``, which of the asked requests each is of.
        items: int64 ``[m + b]``.
        chance: float64 ``[m + b]``, the language model's probability; 0 where it isn't known.
        found: bool ``[m]``, those known without it that the beams found as well.
    """

    asked: Int64
    own: Int64
    row: Int64
    items: Int64
    chance: Float64
    found: Bool

    def lowest_of_top(self, values: Float64, k: int) -> Float64:
        """float64 ``[S, Q]``: the ``k``-th highest value of each request, of ``[S, m + b]``; -inf where there are
        fewer."""
        count, own = len(self.asked), len(self.own)
        sizes = np.bincount(self.row, minlength=count)
        least = np.full((len(values), count), -np.inf)
        if int(sizes.max(initial=0)) < k:
            return least
        known = np.bincount(self.row[:own], minlength=count)
        beside = self.row[own:]
        place = np.arange(len(self.row))  # of each among its request's
        place[:own] -= (np.cumsum(known) - known)[self.row[:own]]
        place[own:] = known[beside] + np.arange(len(beside)) - np.searchsorted(beside, beside)
        for lowest, each in zip(least, values, strict=True):
            padded = np.full((count, int(sizes.max())), -np.inf)
            padded[self.row, place] = each
            lowest[:] = np.partition(padded, -k, axis=1)[:, -k]
        return least


@dataclass(frozen=True)
class Evidence:
    """What ``S`` mixtures know of some requests without the language model.

    Attributes:
        offsets: int64 ``[R + 1]``.
        item: int64 ``[E]``, the rows of the items that are looked at whatever the beams find, one request after the
            other, rising within each.
        share: float64 ``[S, E]``, what they get.
        backoff: float64 ``[S, R]``, ``β``.
        weight: float64 ``[S, R]``, what the language model's probability is multiplied with: ``β v_0``.
        known: float32 ``[U, R, n]``, ``Σ_m v_m P_m`` for each set of weights that mixtures have.
        which: int64 ``[S]``, each mixture's own of these; -1 for none.
    """

    offsets: Int64
    item: Int64
    share: Float64
    backoff: Float64
    weight: Float64
    known: Float32
    which: Int64

    @classmethod
    def of(
        cls,
        mixtures: Sequence[Mixture],
        scorers: Sequence[Scorer],
        requests: Requests,
        exclude_history: bool,
        shortlist: int,
        items: int,
        widest: ItemToItem | None = None,
    ) -> Evidence:
        """Ask the rankers and count.

        Args:
            mixtures: ``S`` of them.
            scorers: whose weights the mixtures have.
            requests: what is asked.
            exclude_history: leave out the items of each request's own history.
            shortlist: how many of the best items by the rankers alone are looked at, for each set of weights.
            items: how many there are in the catalogue.
            widest: knows every item that any of the mixtures counts; None asks each of them.
        """
        history = history_keys(requests, items) if exclude_history else np.zeros(0, np.int64)
        known, which = _known(mixtures, scorers, requests, items, history)
        shortlists = [_shortlist(each, history, shortlist) for each in known]
        counts = {id(each.counts): each.counts for each in mixtures if each.counts is not None}
        counted = {key: each.evidence(requests) for key, each in counts.items()}
        asked = [found for found, _ in counted.values()] if widest is None else [widest.evidence(requests)[0]]
        keys = _united([*shortlists, *(_keys(each, items) for each in asked)])
        keys = keys[~among(np.sort(history), keys)]
        row, item = keys // items, keys % items
        share, backoff = np.zeros((len(mixtures), len(keys))), np.ones((len(mixtures), len(requests)))
        for place, mixture in enumerate(mixtures):
            if mixture.counts is not None:
                found, backoff[place] = counted[id(mixture.counts)]
                own = _keys(found, items)
                there = among(keys, own)
                share[place, np.searchsorted(keys, own[there])] = found.data[there]
            if which[place] >= 0:
                share[place] += backoff[place, row] * known[which[place], row, item]
        weight = backoff * np.array([[mixture.model] for mixture in mixtures])
        offsets = np.searchsorted(keys, np.arange(len(requests) + 1) * items).astype(np.int64)
        return cls(offsets, item, share, backoff, weight, known, which)

    @property
    def items(self) -> list[Int64]:
        """For each request its part of ``item``."""
        return np.split(self.item, self.offsets[1:-1])

    def candidates(
        self, asked: Int64, found: Int32, scores: Float32, sharers: Float64, included: Float32 | None = None
    ) -> Candidates:
        """The items that are looked at and those that the beams found.

        Args:
            asked: int64 ``[Q]``, some of the requests.
            found: int32 ``[Q, B]``, the beams' items; -1 for none.
            scores: float32 ``[Q, B]``, their log-probabilities.
            sharers: float64 ``[n]``, how many items share each item's semantic ID.
            included: float32 ``[m]``, log-probabilities of the items that are looked at, one request after the other.
        """
        sizes = self.offsets[asked + 1] - self.offsets[asked]
        own_row = np.repeat(np.arange(len(asked)), sizes)
        own = np.arange(len(own_row)) + (self.offsets[asked] - np.cumsum(sizes) + sizes)[own_row]
        row, beam = np.nonzero(found >= 0)
        item, beams = self.item[own], found[row, beam].astype(np.int64)
        chance = np.exp(scores[row, beam].astype(np.float64)) / sharers[beams]
        known, by_beams = np.zeros(len(own)), np.zeros(len(own), bool)
        if included is not None:
            known = np.exp(included.astype(np.float64)) / sharers[item]
        keys, wanted = own_row * len(sharers) + item, row * len(sharers) + beams
        both = among(keys, wanted)
        place = np.searchsorted(keys, wanted[both])
        known[place], by_beams[place] = chance[both], True
        return Candidates(
            asked,
            own,
            np.concatenate([own_row, row[~both]]),
            np.concatenate([item, beams[~both]]),
            np.concatenate([known, chance[~both]]),
            by_beams,
        )

    def values(self, known: Candidates) -> Float64:
        """float64 ``[S, m + b]``: the mixtures' probabilities of the candidates. Where the language model's isn't
        known, that is the least it can be; 0 where a mixture knows nothing of an item and no beam found it."""
        request, count = known.asked[known.row], len(known.own)
        values = self.weight[:, request] * known.chance
        for place, each in enumerate(values):
            part, own, beside = self.share[place][known.own], each[:count], each[count:]
            own += part
            own[(part == 0) & ~known.found] = 0.0
            if self.which[place] >= 0:
                others = self.known[self.which[place]][request[count:], known.items[count:]]
                beside += others * self.backoff[place][request[count:]]
        return values

    def floors(self, known: Candidates, least: Float64, sharers: Float64) -> Float64:
        """The log-probability that the semantic ID of each item that is known without the language model must have, so
        that the item reaches ``least`` in any of the mixtures, float64 ``[m]``; a mixture that knows nothing of an item
        has no use for it.

        Args:
            known: the candidates.
            least: ``[S, m]``, the values to reach.
            sharers: float64 ``[n]``, how many items share each item's semantic ID.
        """
        count = len(known.own)
        request, needed = known.asked[known.row[:count]], np.full(count, np.inf)
        for place, each in enumerate(least):
            part, weight = self.share[place][known.own], self.weight[place][request]
            asks = (part > 0) & (weight > 0)
            asked = (each - part) / np.where(weight > 0, weight, 1.0)
            np.minimum(needed, asked, out=needed, where=asks)
        needed *= sharers[known.items[:count]]
        floors = np.full(count, -np.inf)
        np.log(needed, out=floors, where=needed > 0)
        return floors - MARGIN


class Mixtures:
    """Ranks by several mixtures of the same rankers, with one search for all.

    What is ranked are the beams, all items that are counted, and the best ones by the rankers that score everything,
    as many as there are beams (or places in the list, where these are more). Without a language model that is the top
    ``k`` of the whole catalogue; with one it is where the beams are wide enough, and else lacks only items that no beam
    found, nobody counted and that so many others are before in the rest of the mixture. Of equal items the lower row
    comes first.

    Args:
        model: the language model; None for none.
        scorers: the rankers that score everything.
        mixtures: how each list is mixed.
        items: how many there are in the catalogue.
    """

    def __init__(
        self, model: Prior | None, scorers: Sequence[Scorer], mixtures: Sequence[Mixture], items: int
    ) -> None:
        self.model, self.scorers, self.mixtures, self.size = model, list(scorers), list(mixtures), items
        self.sharers = np.ones(items) if model is None else model.sharers

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> tuple[Ranked, list[Ranked]]:
        """The best ``k`` items of each request by the language model alone, and by each mixture.

        Returns:
            of each int32 and float32 ``[R, k]``, scores being logarithms; -1 and -inf where items run out. By the
            language model alone there are no more than it has beams; their scores are its semantic IDs'.
        """
        alone = np.full((len(requests), k), -1, np.int32), np.full((len(requests), k), -np.inf, np.float32)
        found = [tuple(each.copy() for each in alone) for _ in self.mixtures]
        for start, stop in self.chunks(requests):
            by_model, by_mixtures = self._rank_chunk(requests[start:stop], k, exclude_history)
            for whole, part in zip(alone, by_model, strict=True):
                width = min(k, part.shape[1])
                whole[start:stop, :width] = part[:, :width]
            for (items, scores), (best, values) in zip(found, by_mixtures, strict=True):
                items[start:stop] = best
                np.log(values, out=scores[start:stop], where=values > 0, casting="same_kind")
        return alone, found  # type: ignore[return-value]

    def _rank_chunk(
        self, requests: Requests, k: int, exclude_history: bool
    ) -> tuple[Ranked, list[tuple[Int32, Float64]]]:
        shortlist = max(k, self.beams)
        evidence = Evidence.of(self.mixtures, self.scorers, requests, exclude_history, shortlist, self.size)

        def floors(asked: Int64, items: Int32, scores: Float32) -> Float64:
            known = evidence.candidates(asked, items, scores, self.sharers)
            least = known.lowest_of_top(evidence.values(known), k)
            return evidence.floors(known, least[:, known.row[: len(known.own)]], self.sharers)

        wanted = Include(evidence.items, together=floors)
        items, scores, included = self.search(requests, wanted, exclude_history)
        best = [(np.zeros((len(requests), k), np.int32), np.zeros((len(requests), k))) for _ in self.mixtures]
        for start in range(0, len(requests), AT_ONCE):
            asked = np.arange(start, min(start + AT_ONCE, len(requests)))
            part = np.concatenate(included[start : start + AT_ONCE])
            known = evidence.candidates(asked, items[asked], scores[asked], self.sharers, part)
            values = evidence.values(known)
            enough = values >= known.lowest_of_top(values, k)[:, known.row]
            for (rows, shares), each, kept in zip(best, values, enough, strict=True):
                rows[asked], shares[asked] = top_of_groups(
                    known.row[kept], known.items[kept], each[kept], len(asked), k
                )
        return (items, scores), best

    @property
    def beams(self) -> int:
        """Of the language model; 0 without one."""
        return 0 if self.model is None else self.model.beams

    def search(
        self, requests: Requests, include: Include, exclude_history: bool
    ) -> tuple[Int32, Float32, list[Float32]]:
        """The language model's beams, and its scores of further items; nothing without one."""
        if self.model is not None:
            return self.model.rank_including(requests, include, self.model.beams, exclude_history)
        nothing = [np.full(len(rows), -np.inf, np.float32) for rows in include.items]
        return np.zeros((len(requests), 0), np.int32), np.zeros((len(requests), 0), np.float32), nothing

    def chunks(self, requests: Requests, cells: int | None = None) -> Iterator[tuple[int, int]]:
        """Runs of requests whose candidates together stay near ``cells`` (None for the default), and whose scores of
        the whole catalogue near :data:`CELLS`."""
        weights = {mixture.others for mixture in self.mixtures if any(mixture.others)}
        step = max(1, CELLS // (self.size * (len(weights) + 1))) if weights else len(requests)
        counts = next((each.counts for each in self.mixtures if each.counts is not None), None)
        for begin in range(0, len(requests), max(step, 1)):
            part = requests[begin : begin + step]
            runs = counts.chunks(part, cells) if counts is not None else iter([(0, len(part))])
            yield from ((begin + start, begin + stop) for start, stop in runs)


def chances(scorer: Scorer, requests: Requests, history: Int64) -> Float32:
    """A ranker's probability of every item, float32 ``[R, n]``, among the items that may come: those of ``history``
    (keys ``request · n + item``) get 0, and the others what these had, in proportion."""
    found = np.exp(scorer.scores(requests))
    if len(history):
        found.reshape(-1)[history] = 0.0
        total = found.sum(axis=1, keepdims=True)
        np.divide(found, total, out=found, where=total > 0)
    return found


def _known(
    mixtures: Sequence[Mixture], scorers: Sequence[Scorer], requests: Requests, items: int, history: Int64
) -> tuple[Float32, Int64]:
    """``Evidence.known`` and ``Evidence.which``."""
    weights = list(dict.fromkeys(mixture.others for mixture in mixtures if any(mixture.others)))
    known = np.zeros((len(weights), len(requests), items), np.float32)
    for place, scorer in enumerate(scorers):
        if not any(each[place] for each in weights):
            continue
        chance = chances(scorer, requests, history)
        for mixed, each in zip(known, weights, strict=True):
            if each[place]:
                mixed += np.float32(each[place]) * chance
    which = [weights.index(mixture.others) if any(mixture.others) else -1 for mixture in mixtures]
    return known, np.array(which, np.int64)


def _shortlist(known: Float32, history: Int64, count: int) -> Int64:
    """Keys of the ``count`` highest items of each row ``[R, n]`` that aren't of the history and aren't impossible,
    rising."""
    items = known.shape[1]
    known = known.copy()
    known.reshape(-1)[history] = 0.0
    count = min(count, items)
    best = np.argpartition(-known, count - 1, axis=1)[:, :count] if len(known) else np.zeros((0, 0), np.int64)
    # of those equal to the last one the lowest rows count
    row, item = np.nonzero(
        known >= np.take_along_axis(known, best, axis=1).min(axis=1, keepdims=True, initial=np.inf)
    )
    keys = row.astype(np.int64) * items + item
    value = known[row, item]
    order = np.lexsort((item, -value, row))
    place = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    kept = order[(place < count) & (value[order] > 0)]
    return np.sort(keys[kept])


def _united(parts: Sequence[Int64]) -> Int64:
    """Every key of the parts once, rising; what is a part alone rises already."""
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else np.unique(np.concatenate([*filled, np.zeros(0, np.int64)]))


def among(keys: Int64, wanted: Int64) -> Bool:
    """Which of the wanted numbers are among the rising ``keys``."""
    if not len(keys):
        return np.zeros(len(wanted), bool)
    return np.asarray(keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted)


def _keys(found: sparse.csr_array, items: int) -> Int64:
    """``request · items + item`` of each entry."""
    row = np.repeat(np.arange(found.shape[0], dtype=np.int64), np.diff(found.indptr))
    return np.asarray(row * items + found.indices)

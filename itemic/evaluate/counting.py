"""Rankers that count: popularity, and whatever counts which item goes with which.

They read ``Dataset.train`` alone, and rank the whole catalogue in arrays and sparse matrices, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests, Sequences
from itemic.errors import ConfigError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ranked = tuple[Int32, Float32]

CELLS = 4_000_000  # scores or candidates that are held at once


class Popularity:
    """Everyone gets the items that training saw most often; ties go to the lower row.

    Scores are log-probabilities of a draw from the training interactions, one added to each count.
    """

    name = "popularity"

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        counts = np.bincount(dataset.train.items, minlength=len(dataset.item_ids)) + 1.0
        self.share: Float64 = counts / counts.sum()
        self.order: Int32 = np.argsort(-self.share, kind="stable").astype(np.int32)

    def __repr__(self) -> str:
        return f"<Popularity: {len(self.order):,} items>"

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> Ranked:
        """The best ``k`` items of each request.

        Returns:
            items int32 ``[R, k]`` and scores float32 ``[R, k]``, best first; -1 and -inf where items run out.

        Raises:
            ConfigError: k is below 1.
            IndexMismatchError: the requests are of another catalogue.
            DataError: they name items that aren't there.
        """
        self.check(requests)
        nobody = np.zeros((len(requests), 0), np.int32)
        return self.complete(requests, k, exclude_history, nobody, np.zeros((len(requests), 0)), 1.0)

    def scores(self, requests: Requests) -> Float32:
        """The log-probability of every item, float32 ``[R, n]``: for as many requests as there is room for.

        Raises:
            IndexMismatchError: the requests are of another catalogue.
            DataError: they name items that aren't there.
        """
        self.check(requests)
        return np.tile(np.log(self.share).astype(np.float32), (len(requests), 1))

    @property
    def config(self) -> dict[str, Any]:
        """What a ranking depends on beside the dataset, for resuming."""
        return {"counts": self.name}

    def check(self, requests: Requests) -> None:
        """Make sure that the requests are about the items that were counted."""
        dataset = self.dataset
        requests.check_catalogue(dataset.catalogue, len(dataset.item_ids), f"the baseline {self.name!r}")

    def shortened(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """bool ``[R]``: no history is too long for counting."""
        return np.zeros(len(requests), bool)

    def complete(
        self,
        requests: Requests,
        k: int,
        exclude_history: bool,
        items: Int32,
        values: Float64,
        scale: float | Float64,
    ) -> Ranked:
        """As :meth:`rank`, out of each request's own candidates and the popular items.

        The ``k`` places, the own candidates and the history are at most all that can stand before the
        ``k``-th popular item that counts, so that many popular items suffice.

        Args:
            requests: what is asked; its histories are left out under ``exclude_history``.
            k: how many items to give.
            exclude_history: whether items of the history are left out.
            items: int32 ``[R, m]``, the own candidates, -1 pads; they must respect ``exclude_history``
                already.
            values: float64 ``[R, m]``, their probabilities.
            scale: what a popular item's share is multiplied with, float64 ``[R]`` or one number.
        """
        if k < 1:
            raise ConfigError(f"a ranking of {k} items", "Give a k of 1 or more.")
        longest = int(np.diff(requests.offsets).max(initial=0)) if exclude_history else 0
        popular = self.order[: k + items.shape[1] + longest]
        scales = np.broadcast_to(np.asarray(scale, np.float64), len(requests))
        ranked = np.full((len(requests), k), -1, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        step = max(1, CELLS // (len(popular) + items.shape[1]))
        for start in range(0, len(requests), step):
            rows = slice(start, min(start + step, len(requests)))
            own, value = items[rows], values[rows]
            keys = np.arange(len(own), dtype=np.int64)[:, None] * len(self.share)
            banned = (keys + own)[own >= 0]
            if exclude_history:
                banned = np.concatenate([banned, history_keys(requests[rows], len(self.share))])
            chance = scales[rows, None] * self.share[popular]
            chance = np.where(np.isin(keys + popular, banned), 0.0, chance)
            every = np.concatenate([own, np.broadcast_to(popular, chance.shape)], axis=1)
            ranked[rows], scores[rows] = _best(every, np.concatenate([value, chance], axis=1), k)
        return ranked, scores


class ItemToItem:
    """What goes with the items that a user had last: a mixture of what each of them proposes, smoothed by popularity.

    Each item ``i`` of the history proposes ``P(x | i) = (C[i, x] + prior · pop(x)) / (ΣC[i] + prior)``, so an item with
    little evidence ``C`` backs off to popularity; the item ``j`` places back weighs ``decay^j`` among the ``last``
    ones. The score is the log of the mixture, a true probability over the catalogue.

    Args:
        popularity: of the dataset that was counted.
        counts: float64 ``[n, n]``, ``C``.
        decay: weight of each further step back in the history.
        last: how many of the most recent items take part.
        prior: evidence, in units of ``counts``, that popularity counts for.

    Raises:
        ConfigError: numbers that make no sense.
    """

    name = "item to item"

    def __init__(
        self, popularity: Popularity, counts: sparse.csr_array, *, decay: float, last: int, prior: float
    ) -> None:
        self.popularity, self.counts = popularity, counts
        self.totals: Float64 = np.asarray(counts.sum(axis=1)).ravel()
        self._weigh(decay, last, prior)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.totals):,} items, {self.words}>"

    @property
    def words(self) -> str:
        """The settings."""
        return f"decay {self.decay}, last {self.last}"

    def _weigh(self, decay: float, last: int, prior: float) -> None:
        if last < 1 or not 0 < decay <= 1 or not 0 < prior < np.inf:
            raise ConfigError(
                f"{self.name} with decay {decay}, last {last}, prior {prior}",
                "Give last from 1 up, decay in (0, 1] and a positive prior.",
            )
        self.decay, self.last, self.prior = decay, last, prior

    def having(self, *, decay: float, last: int, prior: float) -> Self:
        """The same counts, weighed otherwise.

        Raises:
            ConfigError: as for a new one.
        """
        other = copy(self)
        other._weigh(decay, last, prior)
        return other

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> Ranked:
        """The best ``k`` items of each request; as :meth:`Popularity.rank`."""
        self.popularity.check(requests)
        items = np.full((len(requests), k), -1, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        for start, stop in self.chunks(requests):
            part = requests[start:stop]
            items[start:stop], scores[start:stop] = self._rank_chunk(part, k, exclude_history)
        return items, scores

    def shortened(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """bool ``[R]``: no history is too long for counting."""
        return self.popularity.shortened(requests)

    def scores(self, requests: Requests) -> Float32:
        """The log-probability of every item; as :meth:`Popularity.scores`."""
        self.popularity.check(requests)
        counted, backoff = self.evidence(requests)
        found = backoff[:, None] * self.popularity.share
        row = np.repeat(np.arange(len(requests)), np.diff(counted.indptr))
        found[row, counted.indices] += counted.data
        return np.log(found).astype(np.float32)

    @property
    def config(self) -> dict[str, Any]:
        """What a ranking depends on beside the dataset, for resuming."""
        return {"counts": f"{self.name}: {self.words}, prior {self.prior}"}

    def _rank_chunk(self, requests: Requests, k: int, exclude_history: bool) -> Ranked:
        scored, backoff = self.evidence(requests)
        scored = scored.tocoo()
        request, item = scored.coords[0].astype(np.int64), scored.coords[1].astype(np.int64)
        share = self.popularity.share
        values = scored.data + backoff[request] * share[item]
        if exclude_history:
            kept = ~np.isin(request * len(share) + item, history_keys(requests, len(share)))
            request, item, values = request[kept], item[kept], values[kept]
        best = top_of_groups(request, item, values, len(requests), k)
        return self.popularity.complete(requests, k, exclude_history, *best, backoff)

    def evidence(self, requests: Requests) -> tuple[sparse.csr_array, Float64]:
        """What the counts alone say, and how much of the mixture they leave to the prior.

        Returns:
            ``Σ_j w_j C[i_j, x] / (ΣC[i_j] + prior)``, float64 ``[R, n]`` with rising columns, and ``Σ_j w_j prior /
            (ΣC[i_j] + prior)``, float64 ``[R]``, which is 1 without a history.
        """
        weights = recent_weights(requests, len(self.totals), self.decay, self.last)
        backoff = np.asarray(weights @ (self.prior / (self.totals + self.prior)))
        backoff[np.diff(requests.offsets) == 0] = 1.0  # nothing but the prior is there
        weights.data /= (self.totals + self.prior)[weights.indices]
        counted = sparse.csr_array(weights @ self.counts)
        counted.sort_indices()
        return counted, backoff

    def chunks(self, requests: Requests, cells: int | None = None) -> Iterator[tuple[int, int]]:
        """Runs of requests whose candidates together stay near ``cells``, or :data:`CELLS`."""
        cells = cells or CELLS
        fan_out = np.diff(self.counts.indptr).astype(np.int64)
        upto = np.concatenate([[0], np.cumsum(fan_out[requests.items])])
        cost = np.minimum(upto[requests.offsets[1:]] - upto[requests.offsets[:-1]], len(self.totals)) + 1
        part = (np.cumsum(cost) - cost) // cells
        edges = np.concatenate([[0], np.flatnonzero(np.diff(part)) + 1, [len(requests)]])
        return ((int(a), int(b)) for a, b in pairwise(edges) if b > a)


def count_transitions(train: Sequences, items: int, window: int) -> sparse.csr_array:
    """float64 ``[n, n]``: ``1/d`` for each time that an item came ``d ≤ window`` places after another."""
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    counts = sparse.csr_array((items, items), dtype=np.float64)
    for distance in range(1, window + 1):
        same = user[:-distance] == user[distance:]
        pairs = (train.items[:-distance][same], train.items[distance:][same])
        counts = counts + sparse.csr_array(
            (np.full(len(pairs[0]), 1.0 / distance), pairs), shape=(items, items)
        )
    return sparse.csr_array(counts)


def recent_weights(requests: Requests, items: int, decay: float, last: int) -> sparse.csr_array:
    """float64 ``[R, n]``: the share of each of the ``last`` items of a history, ``decay`` less for each step back; they
    sum to 1, and to 0 without a history."""
    lengths = np.diff(requests.offsets)
    age = np.repeat(requests.offsets[1:], lengths) - 1 - np.arange(len(requests.items))
    recent = age < last
    request = np.repeat(np.arange(len(requests)), lengths)[recent]
    weight = decay ** age[recent].astype(np.float64)
    total = np.bincount(request, weight, minlength=len(requests))
    return sparse.csr_array(
        (weight / total[request], (request, requests.items[recent])), shape=(len(requests), items)
    )


def history_keys(requests: Requests, items: int) -> Int64:
    """``request · items + item`` of every pair of request and history item."""
    request = np.repeat(np.arange(len(requests), dtype=np.int64), np.diff(requests.offsets))
    return np.asarray(request * items + requests.items)


def top_of_groups(
    request: Int64, item: Int64, values: Float64, requests: int, k: int
) -> tuple[Int32, Float64]:
    """The k highest values of each request, ``[R, k]``; ties go to the lower item; -1 and 0 pad."""
    order = np.lexsort((item, -values, request))
    request, item, values = request[order], item[order], values[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(request, minlength=requests))])
    place = np.arange(len(request)) - starts[request]
    kept = place < k
    items = np.full((requests, k), -1, np.int32)
    scores = np.zeros((requests, k))
    items[request[kept], place[kept]] = item[kept]
    scores[request[kept], place[kept]] = values[kept]
    return items, scores


def _best(items: Int32, values: Float64, k: int) -> Ranked:
    """The k highest positive values of each row, as items and logarithms; ties go to the earlier column."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    top = np.take_along_axis(values, order, axis=1)
    ranked = np.full((len(items), k), -1, np.int32)
    scores = np.full((len(items), k), -np.inf, np.float32)
    ranked[:, : top.shape[1]] = np.where(top > 0, np.take_along_axis(items, order, axis=1), -1)
    np.log(top, where=top > 0, out=scores[:, : top.shape[1]], casting="same_kind")
    return ranked, scores

"""A model that remembers: counts of what followed what, with the model as their prior.

Semantic IDs generalise, so that a model gives a rare item the probability of its like; counts remember what really
followed an item, and know nothing where little was seen. As the prior of the counts the model speaks where they are
silent (a Dirichlet mixture; for language models: MacKay and Peto, "A hierarchical Dirichlet language model", 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.decode import Include
from itemic.errors import ConfigError
from itemic.evaluate.baselines import Transitions, history_keys, top_of_groups
from itemic.evaluate.settings import MemorySettings

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MARGIN = 1e-4  # of a floor, in nats: scores are float32


class Prior(Protocol):
    """A ranker that gives items probabilities, see :class:`itemic.evaluate.recommend.ModelRanker`."""

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


class Memory:
    """A ranker that joins a model with what training counted.

    ``P(x | h) = Σ_j w_j (C[i_j, x] + κ P_model(x | h)) / (ΣC[i_j] + κ)``: ``i_j`` is the ``j``-th last item of the
    history, ``w_j ∝ decay^j``, κ the ``prior``, and ``C`` what :class:`Transitions` counts, whose popularity the model
    takes the place of. The probability of a semantic ID is divided evenly among the items that share it. Under
    ``normalize: legal`` the mixture is a distribution over the catalogue; under ``level`` and ``vocab`` what the model
    gives to codes and words that name no item is lost to all items alike.

    What is ranked are the beams and all items that the counts know: that is the top ``k`` of the whole catalogue where
    the beams are wide enough, and else lacks only items that neither knows. The model's probability of a counted item
    that no beam found is computed where it could bring the item into the top ``k``, and nowhere else.

    Args:
        dataset: counts come from its ``train`` alone.
        prior: the model.
        settings: how counts are weighed.
        name: for tables.

    Raises:
        ConfigError: settings that make no sense.
    """

    def __init__(
        self,
        dataset: Dataset,
        prior: Prior,
        settings: MemorySettings | None = None,
        *,
        name: str = "model with memory",
    ) -> None:
        self.name, self.prior, self.settings = name, prior, settings or MemorySettings()
        self.counts = Transitions(dataset, **asdict(self.settings))

    def __repr__(self) -> str:
        return f"<Memory {self.name!r}: {self.settings.words}, {self.prior!r}>"

    @property
    def config(self) -> dict[str, Any]:
        """What the ranking depends on, for resuming."""
        return self.prior.config | {"memory": asdict(self.settings)}

    def shortened(self, requests: Requests) -> Bool:
        """bool ``[R]``: whose oldest items the model doesn't read; the counts look at the latest ones alone."""
        return self.prior.shortened(requests)

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> tuple[Int32, Float32]:
        """The best ``k`` items of each request and the logarithms of their shares, int32 and float32 ``[R, k]``; -1 and
        -inf where items run out.

        Raises:
            ConfigError: k is below 1.
            IndexMismatchError: the requests are of another catalogue.
            DataError: they name items that aren't there.
        """
        if k < 1:
            raise ConfigError(f"a ranking of {k} items", "Give a k of 1 or more.")
        self.counts.popularity.check(requests)
        items = np.full((len(requests), k), -1, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        for start, stop in self.counts.chunks(requests):
            part = requests[start:stop]
            found, values = self._rank_chunk(part, k, exclude_history)
            items[start:stop] = found
            np.log(values, out=scores[start:stop], where=values > 0, casting="same_kind")
        return items, scores

    def _rank_chunk(self, requests: Requests, k: int, exclude_history: bool) -> tuple[Int32, Float64]:
        counted = Counted.of([self.counts], requests, exclude_history)
        share = self.prior.sharers

        def floors(request: int, items: Int32, scores: Float32) -> Float64:
            known = counted.candidates(request, items, scores, share)
            values = known.values(counted.part(request), counted.backoff[:, request])
            least = lowest_of_top(values, k)
            return floors_of(counted.part(request), counted.backoff[:, request], least, share[known.own])

        include = Include(counted.items, floors)
        items, scores, included = self.prior.rank_including(
            requests, include, self.prior.beams, exclude_history
        )
        request, item, value = [], [], []
        for row in range(len(requests)):
            known = counted.candidates(row, items[row], scores[row], share, included[row])
            item.append(known.items)
            value.append(known.values(counted.part(row), counted.backoff[:, row])[0])
            request.append(np.full(len(known.items), row))
        return top_of_groups(
            np.concatenate(request), np.concatenate(item), np.concatenate(value), len(requests), k
        )


@dataclass(frozen=True)
class Candidates:
    """The items that counts or beams know for a request, and what the model gives them.

    Attributes:
        own: int64 ``[m]``, the counted ones.
        items: int64 ``[m + b]``: these, then what the beams found besides.
        chance: float64 ``[m + b]``, the model's probability; 0 where it isn't known.
        found: bool ``[m]``, the counted ones that the beams found as well.
    """

    own: Int64
    items: Int64
    chance: Float64
    found: Bool

    def values(self, counted: Float64, backoff: Float64) -> Float64:
        """The mixture under ``S`` settings, ``[S, m + b]``, by the counted parts ``[S, m]`` and the model's shares
        ``[S]``. Where the model's probability isn't known, that is the least it can be; 0 where an item is neither
        counted under a setting nor found."""
        values = backoff[:, None] * self.chance
        own = values[:, : len(self.own)]
        own += counted
        own[(counted == 0) & ~self.found] = 0.0
        return values


@dataclass(frozen=True)
class Counted:
    """What counts say of some requests under ``S`` settings.

    Attributes:
        offsets: int64 ``[R + 1]``.
        items: for each request the rows of the items that followed, rising.
        share: float64 ``[S, E]``, what they get for it, one request after the other.
        backoff: float64 ``[S, R]``, what is left to the model.
    """

    offsets: Int64
    items: list[Int64]
    share: Float64
    backoff: Float64

    @classmethod
    def of(
        cls,
        settings: Sequence[Transitions],
        requests: Requests,
        exclude_history: bool,
        widest: Transitions | None = None,
    ) -> Counted:
        """Count; ``widest`` knows every item that any of the settings knows, and isn't needed for one alone."""
        catalogue = len(settings[0].totals)

        def keyed(found: sparse.csr_array) -> Int64:
            row = np.repeat(np.arange(len(requests), dtype=np.int64), np.diff(found.indptr))
            return np.asarray(row * catalogue + found.indices)

        keys = keyed((widest or settings[0]).evidence(requests)[0])
        share, backoff = (np.zeros((len(settings), count)) for count in (len(keys), len(requests)))
        for place, counts in enumerate(settings):
            found, backoff[place] = counts.evidence(requests)
            share[place, np.searchsorted(keys, keyed(found))] = found.data
        if exclude_history:
            kept = ~np.isin(keys, history_keys(requests, catalogue))
            keys, share = keys[kept], share[:, kept]
        offsets = np.searchsorted(keys, np.arange(len(requests) + 1) * catalogue).astype(np.int64)
        return cls(offsets, np.split(keys % catalogue, offsets[1:-1]), share, backoff)

    def part(self, request: int) -> Float64:
        """float64 ``[S, m]`` of one request."""
        return self.share[:, self.offsets[request] : self.offsets[request + 1]]

    def candidates(
        self,
        request: int,
        found: Int32,
        scores: Float32,
        sharers: Float64,
        included: Float32 | None = None,
    ) -> Candidates:
        """The counted items and those that the beams found, with log-probabilities ``scores`` and ``included``."""
        own, real = self.items[request], found >= 0
        beams = found[real].astype(np.int64)
        chance = np.exp(scores[real].astype(np.float64)) / sharers[beams]
        place = np.minimum(np.searchsorted(own, beams), max(len(own) - 1, 0))
        both = own[place] == beams if len(own) else np.zeros(len(beams), bool)
        known, by_beams = np.zeros(len(own)), np.zeros(len(own), bool)
        if included is not None:
            known = np.exp(included.astype(np.float64)) / sharers[own]
        known[place[both]], by_beams[place[both]] = chance[both], True
        items = np.concatenate([own, beams[~both]])
        return Candidates(own, items, np.concatenate([known, chance[~both]]), by_beams)


def lowest_of_top(values: Float64, k: int) -> Float64:
    """float64 ``[S]``: the ``k``-th highest of each row ``[S, C]``; -inf where there are fewer."""
    if values.shape[1] < k:
        return np.full(len(values), -np.inf)
    return np.asarray(np.partition(values, -k, axis=1)[:, -k])


def floors_of(counted: Float64, backoff: Float64, least: Float64, sharers: Float64) -> Float64:
    """The log-probability that each counted item's semantic ID must have so that the item reaches ``least`` under any
    of the settings, float64 ``[m]``; a setting that doesn't count it has no use for it.

    Args:
        counted: ``[S, m]``, what the counts give.
        backoff: ``[S]``, the model's share.
        least: ``[S]`` or ``[S, m]``, the value to reach.
        sharers: ``[m]``, items that share the semantic ID.
    """
    least = least[:, None] if least.ndim == 1 else least
    needed = np.where(counted > 0, (least - counted) / backoff[:, None], np.inf).min(axis=0) * sharers
    floors = np.full(len(needed), -np.inf)
    np.log(needed, out=floors, where=needed > 0)
    return floors - MARGIN

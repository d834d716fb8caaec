"""Which settings of a :class:`itemic.evaluate.memory.Memory` rank the validation split best.

The model is asked once for each request; all settings are then tried on what it said, since counts are cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.decode import Include
from itemic.errors import ConfigError
from itemic.evaluate.baselines import Transitions
from itemic.evaluate.blend import Blend
from itemic.evaluate.memory import mixture_of, parts_of
from itemic.evaluate.mixture import (
    AT_ONCE,
    Candidates,
    Evidence,
    Float32,
    Float64,
    Int32,
    Int64,
    Mixtures,
    Prior,
)
from itemic.evaluate.sample import known_requests
from itemic.evaluate.settings import MemorySettings
from itemic.evaluate.tables import short
from itemic.metrics import ndcg, ranks_of
from itemic.progress import progress_bar

K = 10
REQUESTS = 2000
CELLS = 4_000_000  # settings × candidates held at once

WINDOWS = (1, 3, 5)
PRIORS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 1280.0)  # the last hardly counts at all
DECAYS = (0.5, 0.7, 0.85)
LAST = 10
SAY = "Say how counts are weighed: evaluate.memory: {window: 3, prior: 20, decay: .7, last: 10}."
GRID = tuple(
    [MemorySettings(window, prior, 1.0, 1) for window, prior in product(WINDOWS, PRIORS)]
    + [MemorySettings(*each, LAST) for each in product(WINDOWS, PRIORS, DECAYS)]
)


def grid_with(**given: Any) -> list[MemorySettings]:
    """:data:`GRID` where some of the settings are given, each once."""
    return list(dict.fromkeys(replace(each, **given) for each in GRID))


@dataclass(frozen=True)
class Choice:
    """The best settings and how they were found.

    Attributes:
        settings: of the highest NDCG@10; of equals the first in the grid.
        ndcg: what they reach on the requests.
        alone: what the model alone reaches there.
        requests: how many were asked.
        tried: how many settings were compared.
    """

    settings: MemorySettings
    ndcg: float
    alone: float
    requests: int
    tried: int

    @property
    def words(self) -> str:
        """How it was found, for a reader."""
        return (
            f"the best of {self.tried} settings by NDCG@{K} of {self.requests:,} validation requests: "
            f"{short(self.ndcg)}, the model alone {short(self.alone)}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Choice:
        return cls(**(value | {"settings": MemorySettings(**value["settings"])}))


def choose_memory(
    dataset: Dataset,
    prior: Prior | Blend,
    *,
    exclude_history: bool = False,
    requests: int = REQUESTS,
    grid: Sequence[MemorySettings] = GRID,
    seed: int = 0,
) -> Choice:
    """Try all settings of a grid on the validation split, by NDCG@10.

    Counts come from ``dataset.train`` alone, which holds no target of validation or test.

    Args:
        dataset: whose ``valid`` is asked.
        prior: the model, or a blend.
        exclude_history: as the memory will be asked.
        requests: at most so many are asked.
        grid: the settings.
        seed: chooses the requests.

    Raises:
        ConfigError: there is nothing to ask or to try, or settings make no sense.
    """
    if not grid or requests < 1:
        raise ConfigError(
            f"{len(grid)} settings on {requests} requests to choose from", "Give at least one of both."
        )
    sample = known_requests(dataset, requests, seed, "memory", SAY)
    trials, widest = _trials(dataset, grid)
    ranks = np.zeros((len(grid), len(sample)), np.int64)
    alone = np.zeros(len(sample), np.int64)
    with progress_bar("choosing memory", len(sample)) as bar:
        for start, stop in _chunks(sample, prior, widest, max(1, CELLS // len(grid))):
            part = sample[start:stop]
            ranks[:, start:stop], alone[start:stop] = _ranks(trials, widest, part, prior, exclude_history)
            bar.advance(stop - start)
    reached = [float(ndcg(each, K).mean()) for each in ranks]
    best = int(np.argmax(reached))
    return Choice(grid[best], reached[best], float(ndcg(alone, K).mean()), len(sample), len(grid))


def _trials(dataset: Dataset, grid: Sequence[MemorySettings]) -> tuple[list[Transitions], Transitions]:
    """Counts under all settings, and those that know every item that any of them knows."""
    windows, last = {each.window for each in grid}, max(each.last for each in grid)
    counts = {window: Transitions(dataset, window=window) for window in windows}
    trials = [counts[each.window].having(decay=each.decay, last=each.last, prior=each.prior) for each in grid]
    return trials, counts[max(windows)].having(decay=1.0, last=last, prior=1.0)


def _chunks(
    requests: Requests, prior: Prior | Blend, widest: Transitions, cells: int
) -> Iterator[tuple[int, int]]:
    model, scorers = parts_of(prior)
    return Mixtures(model, scorers, [mixture_of(prior, widest)], len(widest.totals)).chunks(requests, cells)


def _ranks(
    trials: list[Transitions],
    widest: Transitions,
    requests: Requests,
    prior: Prior | Blend,
    exclude_history: bool,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The target's rank under each setting, ``[S, R]``, and by the prior alone, ``[R]``; 0 where beyond."""
    model, scorers = parts_of(prior)
    mixtures = [mixture_of(prior, counts) for counts in (*trials, None)]
    engine = Mixtures(model, scorers, mixtures, len(widest.totals))
    evidence = Evidence.of(
        mixtures, scorers, requests, exclude_history, max(K, engine.beams), engine.size, widest
    )
    share, targets = engine.sharers, requests.targets.astype(np.int64)

    def floors(asked: Int64, items: Int32, scores: Float32) -> Float64:
        known = evidence.candidates(asked, items, scores, share)
        target = known.items == targets[asked][known.row]
        own, row = target[: len(known.own)], known.row[: len(known.own)]
        values = evidence.values(known)
        enters = known.lowest_of_top(values, K)
        reached = np.full((len(mixtures), len(asked)), np.inf)  # no candidate: a miss under every setting
        reached[:, known.row[target]] = values[:, target]
        # of the others only those matter that could stand before the target
        least = np.where(own, enters[:, row], np.maximum(enters, reached)[:, row])
        return evidence.floors(known, least, share)

    items, scores, included = engine.search(
        requests, Include(evidence.items, together=floors), exclude_history
    )
    ranks = np.zeros((len(mixtures), len(requests)), np.int64)
    for start in range(0, len(requests), AT_ONCE):
        asked = np.arange(start, min(start + AT_ONCE, len(requests)))
        part = np.concatenate(included[start : start + AT_ONCE])
        known = evidence.candidates(asked, items[asked], scores[asked], share, part)
        ranks[:, asked] = _ranks_of(known, evidence.values(known), targets[asked])
    if isinstance(prior, Blend):
        return ranks[:-1], ranks[-1]
    return ranks[:-1], ranks_of(
        items, requests.targets
    )  # items of one semantic ID stand as the search has them


def _ranks_of(known: Candidates, values: Float64, targets: Int64) -> npt.NDArray[np.int64]:
    """The targets' places by each row of values, int64 ``[S, Q]``, from 1; 0 where it is no candidate, or impossible.
    Ties go to the lower row."""
    at = np.flatnonzero(known.items == targets[known.row])
    own = np.zeros((len(values), len(targets)))
    own[:, known.row[at]] = values[:, at]
    ranks = np.zeros(own.shape, np.int64)
    for rank, each, target in zip(ranks, values, own, strict=True):
        level = target[known.row]
        before = (each > level) | ((each == level) & (known.items < targets[known.row]))
        rank[:] = np.bincount(known.row[before], minlength=len(targets)) + 1
    return np.where(own > 0, ranks, 0)

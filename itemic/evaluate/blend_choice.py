"""Which weights of a :class:`itemic.evaluate.blend.Blend` rank the validation split best.

Each ranker is asked once for each request; all weights are then tried on what they said of the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.decode import Include
from itemic.errors import ConfigError
from itemic.evaluate.blend import catalogue_size, split_rankers
from itemic.evaluate.counting import history_keys
from itemic.evaluate.mixture import CELLS, Float64, Int64, Prior, Scorer, chances
from itemic.evaluate.sample import known_requests
from itemic.evaluate.tables import short
from itemic.progress import progress_bar

K = 10
REQUESTS = 2000
STEPS = 10  # weights are multiples of one part in so many
SHORTLIST = 50  # of the best items of each ranker that are candidates
SAY = "Say the weights yourself: evaluate.blend: {weights: {model: .5, item-knn: .5}}."


@dataclass(frozen=True)
class BlendChoice:
    """The weights of a blend and how they were found.

    Attributes:
        weights: of each ranker, by its name.
        ndcg: NDCG@10 that the blend reaches on the requests.
        alone: the same of each ranker.
        requests: how many were asked.
        tried: how many weights were compared.
    """

    weights: dict[str, float]
    ndcg: float
    alone: dict[str, float]
    requests: int
    tried: int

    @property
    def words(self) -> str:
        """How they were found, for a reader."""
        best = max(self.alone, key=self.alone.__getitem__)
        return (
            f"the best of {self.tried} weights by NDCG@{K} of {self.requests:,} validation requests: "
            f"{short(self.ndcg)}, {best} alone {short(self.alone[best])}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BlendChoice:
        return cls(**value)


def choose_blend(
    dataset: Dataset,
    rankers: Sequence[Prior | Scorer],
    *,
    exclude_history: bool = False,
    requests: int = REQUESTS,
    steps: int = STEPS,
    seed: int = 0,
) -> BlendChoice:
    """Try all weights that are multiples of ``1 / steps`` on the validation split, by NDCG@10.

    Candidates of a request are the best :data:`SHORTLIST` items of each ranker, a language model's beams, and the
    target; each ranker is asked for its probability of all of them.

    Args:
        dataset: whose ``valid`` is asked.
        rankers: as those of :class:`itemic.evaluate.blend.Blend`.
        exclude_history: as the blend will be asked.
        requests: at most so many are asked.
        steps: how fine the weights are.
        seed: chooses the requests.

    Returns:
        the best weights; of equals the first, which give the rankers that are named first the most.

    Raises:
        ConfigError: there is nothing to ask, or rankers that can't be blended.
    """
    if requests < 1 or steps < 1:
        raise ConfigError(
            f"{requests} requests and {steps} steps to choose from", "Give at least one of both."
        )
    models, scorers = split_rankers(rankers)
    model = next(iter(models.values()), None)
    sample = known_requests(dataset, requests, seed, "a blend", SAY)
    size = catalogue_size(model, list(scorers.values()), sample)
    weights = simplex(len(rankers), steps)
    gained = np.zeros(len(weights))
    room = max(1, CELLS // (size * (len(scorers) + 1)))
    with progress_bar("choosing a blend", len(sample)) as bar:
        for start in range(0, len(sample), room):
            part = sample[start : start + room]
            for target, items, chance in _candidates(rankers, part, size, exclude_history):
                gained += _gains(weights @ chance, items, target)
            bar.advance(len(part))
    reached = gained / len(sample)
    best = int(np.argmax(reached))
    names = [ranker.name for ranker in rankers]
    alone = {name: float(reached[(weights[:, at] == 1).argmax()]) for at, name in enumerate(names)}
    chosen = {name: float(weight) for name, weight in zip(names, weights[best], strict=True)}
    return BlendChoice(chosen, float(reached[best]), alone, len(sample), len(weights))


def simplex(size: int, steps: int) -> Float64:
    """All weights ``[S, size]`` from 0 up that are multiples of ``1 / steps`` and sum to 1, the first falling first."""
    every = list(combinations(range(steps + size - 1), size - 1))
    bars = np.array(every, np.int64).reshape(len(every), size - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, steps + size - 1)))
    return np.asarray((np.diff(edges, axis=1) - 1)[::-1] / steps)


def _candidates(
    rankers: Sequence[Prior | Scorer], requests: Requests, size: int, exclude_history: bool
) -> Iterator[tuple[int, Int64, Float64]]:
    """For each request the target, the candidates ``[C]`` and each ranker's probabilities of them ``[M, C]``."""
    models, scorers = split_rankers(rankers)
    keys = history_keys(requests, size) if exclude_history else np.zeros(0, np.int64)
    given = {place: chances(scorer, requests, keys) for place, scorer in scorers.items()}
    count = min(SHORTLIST, size)
    best = [np.argpartition(-chance, count - 1, axis=1)[:, :count] for chance in given.values()]
    targets = requests.targets.astype(np.int64)
    known = [
        np.unique(np.concatenate([*(own[row] for own in best), targets[row : row + 1]]))
        for row in range(len(requests))
    ]
    by_model: list[Float64] = [np.zeros(0)] * len(requests)
    for model in models.values():
        beams, scores, included = model.rank_including(requests, Include(known), model.beams, exclude_history)
        for row, own in enumerate(known):
            new = (beams[row] >= 0) & ~np.isin(beams[row], own)
            items = np.concatenate([own, beams[row][new].astype(np.int64)])
            chance = np.exp(np.concatenate([included[row], scores[row][new]]).astype(np.float64))
            known[row], by_model[row] = items, chance / model.sharers[items]
    for row, items in enumerate(known):
        said = [
            by_model[row] if place in models else given[place][row, items].astype(np.float64)
            for place in range(len(rankers))
        ]
        yield int(targets[row]), items, np.stack(said)


def _gains(values: Float64, items: Int64, target: int) -> Float64:
    """What each row of values ``[S, C]`` gains by where it has the target; ties go to the lower row."""
    own = values[:, items == target]
    before = (values > own) | ((values == own) & (items < target))
    rank = before.sum(axis=1) + 1
    return np.where((own[:, 0] > 0) & (rank <= K), 1 / np.log2(rank + 1.0), 0.0)

"""Blends: several rankers as one, by the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.decode import Include
from itemic.errors import ConfigError
from itemic.evaluate.counting import ItemToItem, Ranked
from itemic.evaluate.mixture import CELLS, Bool, Float64, Mixture, Mixtures, Prior, Scorer
from itemic.evaluate.sample import known_requests
from itemic.progress import progress_bar

REQUESTS = 2000
ROUNDS = 500
ENOUGH = 1e-7  # a step of the weights that is none
SAY = "Say the weights yourself: evaluate.blend: {weights: {model: .5, item-knn: .5}}."


class Blend:
    """A ranker by ``P(x | h) = Σ_m v_m P_m(x | h)``, whatever the rankers: a language model, a teacher, counts.

    Rankers that score everything are summed exactly. Of a language model the beams are known; its probability of
    another item is computed where it could bring the item into the list. What is ranked then says
    :class:`itemic.evaluate.mixture.Mixtures`. Scores are logarithms of the mixture; a semantic ID's probability is
    divided evenly among the items that share it.

    A blend can be the prior of a :class:`itemic.evaluate.memory.Memory`.

    Args:
        rankers: each of its own name; one of them at most is a language model.
        weights: of each, not negative; they are brought to a sum of 1.
        name: for tables.

    Raises:
        ConfigError: no rankers, two language models, a ranker that gives no probabilities, or weights that make no
            sense.
    """

    def __init__(
        self, rankers: Sequence[Prior | Scorer], weights: Sequence[float], *, name: str = "blend"
    ) -> None:
        self.name, self.rankers = name, list(rankers)
        values = np.array(weights, np.float64)
        if not self.rankers or values.shape != (len(self.rankers),):
            raise ConfigError(
                f"a blend of {len(self.rankers)} rankers with {len(values)} weights",
                "Give one weight for each.",
            )
        if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
            raise ConfigError(f"weights {list(weights)}", "Give numbers from 0 up, one of them above 0.")
        self.weights: Float64 = values / values.sum()
        models, scorers = split_rankers(self.rankers)
        self.model = next(iter(models.values()), None)
        self.scorers = list(scorers.values())
        self._of_model = float(self.weights[next(iter(models))]) if models else 0.0
        self._of_scorers = tuple(float(self.weights[place]) for place in scorers)

    def __repr__(self) -> str:
        return f"<Blend {self.name!r}: {self.words}>"

    @property
    def words(self) -> str:
        """The weights."""
        return words_of(self.config["blend"])

    @property
    def config(self) -> dict[str, Any]:
        """What the ranking depends on, for resuming."""
        weights = {
            ranker.name: float(weight) for ranker, weight in zip(self.rankers, self.weights, strict=True)
        }
        return {"blend": weights, "rankers": {ranker.name: ranker.config for ranker in self.rankers}}

    def mixture(self, counts: ItemToItem | None = None) -> Mixture:
        """The blend, or counts that have it as their prior."""
        return Mixture(self._of_model, self._of_scorers, counts)

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> Ranked:
        """The best ``k`` items of each request and the logarithms of their shares, int32 and float32 ``[R, k]``; -1 and
        -inf where items run out.

        Raises:
            ConfigError: k is below 1.
            IndexMismatchError: the requests are of another catalogue than one of the rankers.
            DataError: they name items that aren't there.
        """
        if k < 1:
            raise ConfigError(f"a ranking of {k} items", "Give a k of 1 or more.")
        size = catalogue_size(self.model, self.scorers, requests)
        return Mixtures(self.model, self.scorers, [self.mixture()], size).rank(requests, k, exclude_history)[
            1
        ][0]

    def shortened(self, requests: Requests) -> Bool:
        """bool ``[R]``: whose oldest items one of the rankers doesn't read."""
        return np.asarray(np.any([ranker.shortened(requests) for ranker in self.rankers], axis=0))


def words_of(weights: Mapping[str, float]) -> str:
    """The weights of rankers for a reader: ``model 0.4, SASRec 0.6``."""
    return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())


def split_rankers(rankers: Sequence[Prior | Scorer]) -> tuple[dict[int, Prior], dict[int, Scorer]]:
    """The language model, and those that score everything, by their places.

    Raises:
        ConfigError: there are two language models, two of a name, or a ranker that gives no probabilities.
    """
    models: dict[int, Any] = {}
    scorers: dict[int, Any] = {}
    for place, ranker in enumerate(rankers):
        kind = models if hasattr(ranker, "rank_including") else scorers
        if kind is scorers and not hasattr(ranker, "scores"):
            raise ConfigError(
                f"{ranker.name!r} gives no probabilities of items", "Blend models, teachers and baselines."
            )
        kind[place] = ranker
    names = [ranker.name for ranker in rankers]
    if len(set(names)) < len(names):
        raise ConfigError(f"rankers of the names {', '.join(names)}", "Give each a name of its own.")
    if len(models) > 1:
        raise ConfigError(
            f"a blend of {len(models)} language models",
            "Blend one of them with teachers and baselines; each would have to be searched for the other's beams.",
        )
    return models, scorers


def catalogue_size(model: Prior | None, scorers: Sequence[Scorer], requests: Requests) -> int:
    """How many items the rankers know."""
    if model is not None:
        return len(model.sharers)
    return int(scorers[0].scores(requests[:0]).shape[1])


@dataclass(frozen=True)
class BlendChoice:
    """The weights of a blend and how they were found.

    Attributes:
        weights: of each ranker, by its name.
        likelihood: mean log-probability that the blend gives to the targets.
        alone: the same of each ranker; None where it gives a target nothing.
        requests: how many were asked.
        rounds: of expectation and maximisation.
    """

    weights: dict[str, float]
    likelihood: float
    alone: dict[str, float | None]
    requests: int
    rounds: int

    @property
    def words(self) -> str:
        """How they were found, for a reader."""
        return f"the likeliest weights of {self.requests:,} validation requests"

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
    seed: int = 0,
) -> BlendChoice:
    """The weights under which the targets of the validation split are likeliest.

    They are found by expectation and maximisation from equal weights on (Dempster, Laird and Rubin 1977), which climbs
    to the one best value: ``v_m ← mean_r v_m P_m(x_r) / Σ_j v_j P_j(x_r)``. Requests whose target none of the rankers
    can give don't count.

    Args:
        dataset: whose ``valid`` is asked.
        rankers: as those of :class:`Blend`.
        exclude_history: as the blend will be asked; targets that are in their history then don't count.
        requests: at most so many are asked.
        seed: chooses the requests.

    Raises:
        ConfigError: there is nothing to ask, or rankers that can't be blended.
    """
    if requests < 1:
        raise ConfigError(f"{requests} requests to choose from", "Give at least one.")
    sample = known_requests(dataset, requests, seed, "a blend", SAY)
    if exclude_history:
        had = [sample.targets[row] in sample.history(row) for row in range(len(sample))]
        sample = sample.take(np.flatnonzero(~np.array(had, bool)))
    chances = target_chances(rankers, sample, exclude_history)
    weights, rounds = likeliest(chances)
    known = chances.max(axis=1) > 0
    alone: dict[str, float | None] = {}
    for place, ranker in enumerate(rankers):
        given = chances[known, place]
        alone[ranker.name] = float(np.log(given).mean()) if (given > 0).all() and known.any() else None
    mixed = chances[known] @ weights
    return BlendChoice(
        {ranker.name: float(weight) for ranker, weight in zip(rankers, weights, strict=True)},
        float(np.log(mixed).mean()) if known.any() else 0.0,
        alone,
        int(known.sum()),
        rounds,
    )


def target_chances(rankers: Sequence[Prior | Scorer], requests: Requests, exclude_history: bool) -> Float64:
    """float64 ``[R, M]``: the probability that each ranker gives to the target of each request."""
    models, scorers = split_rankers(rankers)
    found = np.zeros((len(requests), len(rankers)))
    targets = requests.targets.astype(np.int64)
    size = catalogue_size(next(iter(models.values()), None), list(scorers.values()), requests)
    step = max(1, CELLS // size)
    with progress_bar("choosing a blend", len(requests)) as bar:
        for start in range(0, len(requests), step):
            part = slice(start, min(start + step, len(requests)))
            own = targets[part]
            for place, scorer in scorers.items():
                scores = scorer.scores(requests[part])
                found[part, place] = np.exp(scores[np.arange(len(own)), own].astype(np.float64))
            for place, model in models.items():
                include = Include([own[row : row + 1] for row in range(len(own))])
                included = model.rank_including(requests[part], include, 1, exclude_history)[2]
                found[part, place] = np.exp(np.concatenate(included).astype(np.float64)) / model.sharers[own]
            bar.advance(len(own))
    return found


def likeliest(chances: Float64) -> tuple[Float64, int]:
    """Weights ``[M]`` on the simplex under which ``Σ_r log(chances @ weights)`` is highest, and the rounds it took;
    rows without any chance don't count."""
    chances = chances[chances.max(axis=1, initial=0) > 0]
    weights = np.full(chances.shape[1], 1.0 / chances.shape[1])
    if not len(chances):
        return weights, 0
    for done in range(1, ROUNDS + 1):
        parts = chances * weights
        after = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
        moved = float(np.abs(after - weights).max())
        weights = after
        if moved < ENOUGH:
            return weights, done
    return weights, ROUNDS

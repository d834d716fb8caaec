"""Blends: several rankers as one, by the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate.counting import ItemToItem, Ranked
from itemic.evaluate.mixture import Bool, Float64, Mixture, Mixtures, Prior, Scorer


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

"""A model that remembers: counts of what followed what, with the model as their prior.

Semantic IDs generalise, so that a model gives a rare item the probability of its like; counts remember what really
followed an item, and know nothing where little was seen. As the prior of the counts the model speaks where they are
silent (a Dirichlet mixture; for language models: MacKay and Peto, "A hierarchical Dirichlet language model", 1995).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate.baselines import Transitions
from itemic.evaluate.blend import Blend
from itemic.evaluate.counting import ItemToItem, Ranked
from itemic.evaluate.mixture import Bool, Mixture, Mixtures, Prior, Scorer
from itemic.evaluate.settings import MemorySettings


class Memory:
    """A ranker that joins a model with what training counted.

    ``P(x | h) = Σ_j w_j (C[i_j, x] + κ P_model(x | h)) / (ΣC[i_j] + κ)``: ``i_j`` is the ``j``-th last item of the
    history, ``w_j ∝ decay^j``, κ the ``prior``, and ``C`` what :class:`Transitions` counts, whose popularity the model
    takes the place of. The probability of a semantic ID is divided evenly among the items that share it. Under
    ``normalize: legal`` the mixture is a distribution over the catalogue; under ``level`` and ``vocab`` what the model
    gives to codes and words that name no item is lost to all items alike.

    What is ranked are the beams and all items that the counts know: that is the top ``k`` of the whole catalogue where
    the beams are wide enough, and else lacks only items that neither knows. The model's probability of a counted item
    that no beam found is computed where it could bring the item into the top ``k``, and nowhere else. With a
    :class:`itemic.evaluate.blend.Blend` in the model's place the best items by its other rankers are ranked as well.

    Args:
        dataset: counts come from its ``train`` alone.
        prior: the model, or a blend.
        settings: how counts are weighed.
        name: for tables.

    Raises:
        ConfigError: settings that make no sense.
    """

    def __init__(
        self,
        dataset: Dataset,
        prior: Prior | Blend,
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

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> Ranked:
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
        model, scorers = parts_of(self.prior)
        mixtures = Mixtures(model, scorers, [self.mixture], len(self.counts.totals))
        return mixtures.rank(requests, k, exclude_history)[1][0]

    @property
    def mixture(self) -> Mixture:
        """What is mixed of the prior's rankers."""
        return mixture_of(self.prior, self.counts)


def parts_of(prior: Prior | Blend) -> tuple[Prior | None, list[Scorer]]:
    """The language model of a prior, and its rankers that score everything."""
    return (prior.model, prior.scorers) if isinstance(prior, Blend) else (prior, [])


def mixture_of(prior: Prior | Blend, counts: ItemToItem | None = None) -> Mixture:
    """A prior alone, or counts with it as their prior."""
    return prior.mixture(counts) if isinstance(prior, Blend) else Mixture(counts=counts)

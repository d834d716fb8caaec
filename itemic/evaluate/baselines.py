"""Baselines that every model has to beat: popularity, and what goes with the items of a history.

They read ``Dataset.train`` alone; how they rank is in :mod:`itemic.evaluate.counting`.
"""

from __future__ import annotations

from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.evaluate.counting import ItemToItem, Popularity, count_transitions
from itemic.evaluate.item_knn import ItemKNN
from itemic.evaluate.linear import Ease, Linear, Ridge

__all__ = ["BASELINES", "ItemKNN", "LastItem", "Popularity", "Transitions"]


class Transitions(ItemToItem):
    """What tends to follow the items that a user had last: a mixture of smoothed Markov chains.

    Training counts ``C[i, x]`` add ``1/d`` whenever ``x`` came ``d ≤ window`` places after ``i``. Each item
    of the history proposes ``P(x | i) = (C[i, x] + prior · pop(x)) / (ΣC[i] + prior)``, so an item with
    little evidence backs off to popularity; the item ``j`` places back weighs ``decay^j`` among the ``last``
    ones. The score is the log of the mixture, a true probability over the catalogue.

    With ``window=1, last=1`` this is the first-order Markov chain of the literature (Rendle et al.,
    "Factorizing personalized Markov chains", WWW 2010, section 4); skips and decay follow the sequential
    rules of Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018.

    Args:
        dataset: counts come from its ``train`` alone.
        window: how far apart two items may stand to count as a transition.
        decay: weight of each further step back in the history.
        last: how many of the most recent items take part.
        prior: evidence, in transitions, that popularity counts for.
    """

    name = "transitions"

    def __init__(
        self, dataset: Dataset, *, window: int = 5, decay: float = 0.7, last: int = 10, prior: float = 10.0
    ) -> None:
        if window < 1:
            raise ConfigError(f"transitions with window {window}", "Give window from 1 up.")
        self.window = window
        counts = count_transitions(dataset.train, len(dataset.item_ids), window)
        super().__init__(Popularity(dataset), counts, decay=decay, last=last, prior=prior)

    @property
    def words(self) -> str:
        return f"window {self.window}, {super().words}"


class LastItem(Transitions):
    """What followed the very last item in training: the first-order Markov chain, smoothed by popularity."""

    name = "last-item transitions"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, window=1, last=1)


BASELINES: dict[str, type[Popularity] | type[Transitions] | type[ItemKNN] | type[Linear]] = {
    "popularity": Popularity,
    "last-item": LastItem,
    "transitions": Transitions,
    "item-knn": ItemKNN,
    "ease": Ease,
    "ridge": Ridge,
}

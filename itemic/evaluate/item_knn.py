"""Item-based nearest neighbours: what was had by the users who had the items of a history."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import sparse

from itemic.data.dataset import Dataset
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.evaluate import counting
from itemic.evaluate.counting import Float64, Int64, ItemToItem, Popularity, top_of_groups


class ItemKNN(ItemToItem):
    """What is had together with the items of a history: item-based nearest neighbours, whatever their order.

    With ``n_i`` users who have item ``i`` in training and ``n_ij`` who have both, items are as similar as the cosine of
    their columns, shrunk where few users speak: ``S[i, j] = n_ij / (√(n_i n_j) + shrinkage)``. Of each item the
    ``neighbours`` most similar ones count (of equals the lower row), as its ``C`` in :class:`ItemToItem`: rows of ``S``
    are brought to a sum of 1 as Deshpande and Karypis do (section 4.3), so that common items don't outvote rare ones.

    Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001; Deshpande and Karypis,
    "Item-based top-N recommendation algorithms", TOIS 2004.

    Args:
        dataset: its ``train`` alone is counted.
        neighbours: how many of each item count.
        shrinkage: how many users it takes, about, for a similarity to be believed by half.
        decay: weight of each further step back in the history.
        last: how many of the most recent items take part.
        prior: evidence, in similarities, that popularity counts for.

    Raises:
        ConfigError: numbers that make no sense.
    """

    name = "item kNN"

    def __init__(
        self,
        dataset: Dataset,
        *,
        neighbours: int = 100,
        shrinkage: float = 50.0,
        decay: float = 0.7,
        last: int = 20,
        prior: float = 1.0,
    ) -> None:
        if neighbours < 1 or not 0 <= shrinkage < np.inf:
            raise ConfigError(
                f"{self.name} with {neighbours} neighbours and shrinkage {shrinkage}",
                "Give 1 or more neighbours and a shrinkage of 0 or more.",
            )
        self.neighbours, self.shrinkage = neighbours, shrinkage
        similar = similarities(dataset.train, len(dataset.item_ids), neighbours, shrinkage)
        super().__init__(Popularity(dataset), similar, decay=decay, last=last, prior=prior)

    @property
    def words(self) -> str:
        return f"{self.neighbours} neighbours, shrinkage {self.shrinkage}, {super().words}"


def similarities(train: Sequences, items: int, neighbours: int, shrinkage: float) -> sparse.csr_array:
    """``S`` of :class:`ItemKNN`, float64 ``[n, n]``: at most ``neighbours`` entries a row, none on the diagonal."""
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    had = sparse.csr_array((np.ones(len(user)), (user, train.items)), shape=(len(train), items))
    had.data[:] = 1.0  # once or twice is the same
    by_item = sparse.csr_array(had.T)
    counts: Float64 = np.diff(by_item.indptr).astype(np.float64)
    parts = [
        _nearest(by_item[start:stop] @ had, start, counts, neighbours, shrinkage)
        for start, stop in _chunks(had, by_item)
    ]
    return sparse.csr_array(sparse.vstack(parts, format="csr")) if parts else sparse.csr_array((0, 0))


def _nearest(
    together: sparse.csr_array, start: int, counts: Float64, neighbours: int, shrinkage: float
) -> sparse.csr_array:
    """The rows of ``S`` from ``start`` on, by how often their items are had ``together`` with any."""
    pairs = together.tocoo()
    row, other = (axis.astype(np.int64) for axis in pairs.coords)
    kept = row + start != other
    row, other, both = row[kept], other[kept], pairs.data[kept]
    value = both / (np.sqrt(counts[row + start] * counts[other]) + shrinkage)
    item, similar = top_of_groups(row, other, value, together.shape[0], neighbours)
    at, place = np.nonzero(item >= 0)
    return sparse.csr_array((similar[at, place], (at, item[at, place])), shape=together.shape)


def _chunks(had: sparse.csr_array, by_item: sparse.csr_array) -> list[tuple[int, int]]:
    """Runs of items whose pairs together stay near :data:`itemic.evaluate.counting.CELLS`."""
    pairs: Int64 = np.asarray(by_item @ np.diff(had.indptr).astype(np.int64), np.int64) + 1
    part = (np.cumsum(pairs) - pairs) // counting.CELLS
    edges = np.concatenate([[0], np.flatnonzero(np.diff(part)) + 1, [len(pairs)]])
    return [(int(a), int(b)) for a, b in pairwise(edges) if b > a]

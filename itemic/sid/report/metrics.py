"""What a quality report counts: pure functions on arrays of codes, groups and labels.

A *group* is the set of items that share a prefix; groups are given as one int64 number per item, as
:attr:`itemic.sid.prefixes.Prefixes.groups` holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from itemic.sid.prefixes import Prefixes
from itemic.sid.vectors import Float32

Int64 = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.integer]
CHUNK = 1 << 24  # numbers of a block of vectors in memory at a time


# --------------------------------------------------------------- usage of codes


def perplexity(counts: Numbers) -> float:
    """How many codes a level has in effect: ``exp(-Σ p ln p)`` with ``p = counts / Σ counts``.

    Counts ``[2, 2, 0, 0]`` give 2, ``[4, 0, 0, 0]`` give 1; with all ``K`` codes equally used it is ``K``.
    """
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def variation(counts: Numbers) -> float:
    """The coefficient of variation: standard deviation over mean, of all codes, the unused ones as 0.

    ``1 + variation²`` over the mean is how crowded the code of an average *item* is, so it says what unevenness costs
    the levels below. Counts ``[2, 2, 0, 0]`` give 1.
    """
    return float(counts.std() / counts.mean())


# ------------------------------------------------------------------- the trie


def children(prefixes: Prefixes, level: int) -> Int64:
    """How many codes follow each prefix of length ``level`` (0: the root alone), int64 ``[prefixes]``."""
    parents = prefixes.keys[level] // prefixes.sizes[level]
    return np.bincount(parents).astype(np.int64)


def doubling_histogram(values: Numbers) -> list[tuple[int, int, int]]:
    """Counts of positive integers in bins 1, 2, 3–4, 5–8, …: (low, high, count), up to the bin of the largest.

    Branching falls from thousands to one within a few levels: only bins of doubling width show both.
    """
    bins = np.frexp(np.asarray(values, np.float64) - 1)[1]  # bits of value - 1: exact, unlike a logarithm
    counts = np.bincount(bins)
    return [(1 if i == 0 else (1 << (i - 1)) + 1, 1 << i, int(count)) for i, count in enumerate(counts)]


# -------------------------------------------------------------------- collisions


@dataclass(frozen=True)
class CollisionCounts:
    """Items that share their semantic ID, and which of them only because they are the same item twice.

    Attributes:
        items: items in all.
        sids: distinct semantic IDs.
        rate: ``1 - sids / items``, the collision rate of the papers.
        collided: items that share their semantic ID.
        largest: items of the most crowded semantic ID.
        sizes: how many semantic IDs have 1, 2, … items, as (items, semantic IDs), rising.
        texts: distinct item texts; None where no texts are known, and so are the fields below.
        duplicates: items whose text another item has as well.
        duplicate_rate: the rate where items with one text *and* one semantic ID count once:
            ``1 - sids / distinct (text, semantic ID) pairs``. 0 when duplicates alone collide.
        collided_by_duplicates: items whose semantic ID is shared by items of their own text alone.
    """

    items: int
    sids: int
    rate: float
    collided: int
    largest: int
    sizes: list[tuple[int, int]]
    texts: int | None = None
    duplicates: int | None = None
    duplicate_rate: float | None = None
    collided_by_duplicates: int | None = None


def count_collisions(sids: Int64, texts: Int64 | None = None) -> CollisionCounts:
    """Count collisions at item level, and at duplicate level where ``texts`` are known.

    Semantic IDs ``[0, 0, 0, 1]`` of texts ``[5, 5, 6, 7]``: rate ``1 - 2/4 = .5``, three items collide; the pairs
    (text, ID) are three, so the duplicate rate is ``1 - 2/3``; none collide by duplicates alone.

    Args:
        sids: int64 ``[n]``, the number of each item's semantic ID, from 0 without gaps.
        texts: int64 ``[n]``, equal for items with equal text.
    """
    crowd = np.bincount(sids)
    size, ids = np.unique(crowd, return_counts=True)
    plain = CollisionCounts(
        items=len(sids),
        sids=len(crowd),
        rate=1 - len(crowd) / len(sids),
        collided=int(crowd[crowd > 1].sum()),
        largest=int(crowd.max()),
        sizes=list(zip(size.tolist(), ids.tolist(), strict=True)),
    )
    if texts is None:
        return plain
    _, text, copies = np.unique(texts, return_inverse=True, return_counts=True)
    pairs = np.unique(sids * len(copies) + text)
    kinds = np.bincount(pairs // len(copies))  # distinct texts under each semantic ID
    return CollisionCounts(
        **vars(plain)
        | {
            "texts": len(copies),
            "duplicates": int(copies[copies > 1].sum()),
            "duplicate_rate": 1 - len(crowd) / len(pairs),
            "collided_by_duplicates": int(crowd[(crowd > 1) & (kinds == 1)].sum()),
        }
    )


# -------------------------------------------------------------- groups and labels


def purity(groups: Int64, labels: Int64) -> float:
    """The share of items that have the most frequent label of their group (weighted purity).

    Groups ``[0, 0, 0, 1]`` with labels ``[a, a, b, b]`` give ``(2 + 1) / 4``. Groups of one item are always pure: read
    it beside :func:`by_chance`.
    """
    return _purity(_Cells.of(*_dense(groups, labels)))


def mutual_information(groups: Int64, labels: Int64) -> float:
    """Normalised mutual information: ``I(G; C) / ((H(G) + H(C)) / 2)``, 1 where both are one cluster."""
    return _information(_Cells.of(*_dense(groups, labels)))


def by_chance(groups: Int64, labels: Int64, rng: np.random.Generator, draws: int = 5) -> tuple[float, float]:
    """Purity and normalised mutual information of random groups of the same sizes, means over ``draws``."""
    group, label = _dense(groups, labels)
    found = []
    for _ in range(draws):
        cells = _Cells.of(group, rng.permutation(label))
        found.append((_purity(cells), _information(cells)))
    pure, shared = np.mean(found, axis=0).tolist()
    return pure, shared


class _Cells(NamedTuple):
    """The occupied cells of the table group × label, by group: the group, the label, and the items there."""

    group: Int64
    label: Int64
    items: Int64

    @classmethod
    def of(cls, group: Int64, label: Int64) -> _Cells:
        """Both count from 0."""
        width = int(label.max()) + 1
        cell, count = np.unique(group * width + label, return_counts=True)
        return cls(cell // width, cell % width, count)


def _dense(groups: Int64, labels: Int64) -> tuple[Int64, Int64]:
    return np.unique(groups, return_inverse=True)[1], np.unique(labels, return_inverse=True)[1]


def _purity(cells: _Cells) -> float:
    starts = np.flatnonzero(np.concatenate([[True], cells.group[1:] != cells.group[:-1]]))
    return float(np.maximum.reduceat(cells.items, starts).sum() / cells.items.sum())


def _information(cells: _Cells) -> float:
    in_group, in_label = np.bincount(cells.group, cells.items), np.bincount(cells.label, cells.items)
    if len(in_group) == len(in_label) == 1:
        return 1.0
    n = cells.items.sum()
    together = cells.items * n / (in_group[cells.group] * in_label[cells.label])
    shared = float((cells.items / n * np.log(together)).sum())
    return max(shared, 0.0) / ((_entropy(in_group / n) + _entropy(in_label / n)) / 2)


def _entropy(share: npt.NDArray[np.float64]) -> float:
    return float(-(share * np.log(share)).sum())


# -------------------------------------------------------------------- neighbours


@dataclass(frozen=True)
class Recall:
    """How well groups keep neighbours together.

    Attributes:
        found: the share of true neighbours that are in the item's own group.
        chance: what random groups of the same sizes would give.
        ceiling: what the best groups of the same sizes could give: a group of ``g`` has ``g - 1`` other items.
    """

    found: float
    chance: float
    ceiling: float


def neighbour_recall(groups: Int64, items: Int64, neighbours: Int64) -> Recall:
    """The share of each item's neighbours that have its group.

    Args:
        groups: int64 ``[n]``, of the whole catalogue.
        items: int64 ``[q]``, rows of the items asked for.
        neighbours: int64 ``[q, k]``, rows of their true neighbours.
    """
    others = np.bincount(groups)[groups[items]] - 1
    return Recall(
        found=float((groups[neighbours] == groups[items, None]).mean()),
        chance=float(others.mean() / (len(groups) - 1)),
        ceiling=float(np.minimum(others / neighbours.shape[1], 1).mean()),
    )


def nearest_neighbours(unit: Float32, items: Int64, k: int, chunk: int = CHUNK) -> Int64:
    """The ``k`` nearest other items by cosine, int64 ``[q, k]``, the nearest first.

    The catalogue goes by in blocks and each item keeps its best so far, so the memory is ``chunk`` numbers whatever
    the number of items.

    Args:
        unit: ``[n, d]``, rows of length 1 (a row of zeros is equally far from everything).
        items: int64 ``[q]``, rows whose neighbours are wanted.
        k: ``1 ≤ k < n``.
        chunk: numbers in one block of similarities.
    """
    asked = unit[items]
    rows = max(k, min(chunk // max(len(items), 1), len(unit)))
    best = np.full((len(items), k), -np.inf, np.float32)
    near = np.full((len(items), k), -1, np.int64)
    for start in range(0, len(unit), rows):
        part = asked @ unit[start : start + rows].T
        inside = np.flatnonzero((items >= start) & (items < start + part.shape[1]))
        part[inside, items[inside] - start] = -np.inf
        values = np.concatenate([best, part], axis=1)
        top = np.argpartition(-values, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(values, top, 1)
        kept = np.take_along_axis(near, np.minimum(top, k - 1), 1)
        near = np.where(top < k, kept, start + top - k)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(near, order, 1)


# ----------------------------------------------------------------- reconstruction


def squared_sums(vectors: Float32, rebuilt: Float32, mean: npt.NDArray[np.float64]) -> tuple[float, float]:
    """``Σ ‖x - x̂‖²`` and ``Σ ‖x - mean‖²`` over some rows, in float64."""
    exact = vectors.astype(np.float64)
    return float(np.square(exact - rebuilt).sum()), float(np.square(exact - mean).sum())

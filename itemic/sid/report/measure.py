"""From an index to a report on its quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, DataError
from itemic.metrics import gini
from itemic.sid.duplicates import duplicate_groups
from itemic.sid.index import ItemIndex
from itemic.sid.report.examples import crowded_sid, find_examples
from itemic.sid.report.metrics import (
    CHUNK,
    by_chance,
    children,
    count_collisions,
    doubling_histogram,
    mutual_information,
    nearest_neighbours,
    neighbour_recall,
    perplexity,
    purity,
    squared_sums,
    variation,
)
from itemic.sid.report.records import Branching, LevelQuality, PrefixQuality, Purity
from itemic.sid.report.report import SidReport
from itemic.sid.vectors import Float32, check_vectors, normalize

if TYPE_CHECKING:
    from itemic.sid.codebooks import Codebooks

Int64 = npt.NDArray[np.int64]
NEIGHBOURS, QUERIES = 10, 4096
DEEPEST = 6  # category names of a path that are compared
RANKED = "The last level numbers the items of each semantic ID before it: its codes mean nothing."


def report(
    index: ItemIndex,
    dataset: Dataset | None = None,
    vectors: npt.NDArray[np.floating] | None = None,
    codebooks: Codebooks | None = None,
    *,
    seed: int = 0,
    name: str | None = None,
    neighbours: int = NEIGHBOURS,
    queries: int = QUERIES,
) -> SidReport:
    """Measure how good semantic IDs are.

    Args:
        index: whose codes are measured.
        dataset: the items; adds duplicates, category purity and examples.
        vectors: ``[n, d]``, one row an item; adds how well prefixes keep true neighbours (by cosine). Items whose
            vector is zero have no neighbours and are not asked for.
        codebooks: what the codes were made with; with ``vectors`` it adds the reconstruction error.
        seed: of the sample of items whose neighbours are looked for, of the random groups that purity is held against,
            and of the examples.
        name: in tables; the dataset's and the quantizer's by default.
        neighbours: true neighbours of an item; fewer in a smaller catalogue.
        queries: items whose neighbours are looked for; a catalogue with no more is measured whole.

    Raises:
        IndexMismatchError: the index is of other items than the dataset.
        DataError: the vectors are of another number of items, or broken.
        ConfigError: codebooks without vectors, codebooks of other levels than the index, nothing to sample, or an index
            of the codes alone.
    """
    if not len(index):
        raise ConfigError(
            "the index holds codes without items: there is nothing to measure", "Give one that has items."
        )
    if dataset is not None:
        index.check_dataset(dataset)
    if neighbours < 1 or queries < 1:
        raise ConfigError(
            f"{neighbours} neighbours of {queries} items", "Ask for at least one neighbour of one item."
        )
    table = None if vectors is None else _vectors_of(index, vectors)
    errors = _errors(index, table, codebooks)
    levels = [_level(index, level, errors) for level in range(index.levels)]
    rng = np.random.default_rng(seed)
    prefixes = [PrefixQuality(length + 1, *_crowding(index, length)) for length in range(index.levels)]
    if dataset is not None:
        prefixes = _with_purity(prefixes, index, _paths(dataset), rng)
    asked = None
    if table is not None and len(index) > 1:
        prefixes, asked = _with_recall(prefixes, index, table, neighbours, queries, rng)
    policy = index.origin.get("collisions", {}).get("policy")
    return SidReport(
        name=name or default_name(index, dataset),
        digest=index.digest,
        dataset=None if dataset is None else dataset.name,
        format=index.format,
        origin=index.origin,
        collisions=count_collisions(
            index.sid_numbers, None if dataset is None else duplicate_groups(dataset.items)
        ),
        crowded=crowded_sid(index, dataset),
        levels=levels,
        prefixes=prefixes,
        neighbours=asked,
        examples=[] if dataset is None else find_examples(index, dataset, rng),
        notes=[RANKED] if policy == "rank" else [],
        seed=seed,
    )


def default_name(index: ItemIndex, dataset: Dataset | None = None) -> str:
    """What it was made from and how, ``Beauty · lsa + rqkmeans``; the name of the file for an imported index."""
    origin = index.origin
    parts = [origin.get(part, {}).get("name") for part in ("encoder", "quantizer")]
    file = str(origin.get("file", "")).removesuffix(".json").removesuffix(".parquet").removesuffix(".index")
    made = " + ".join(str(part) for part in parts if part) or file or index.digest
    return f"{dataset.name} · {made}" if dataset is not None else made


def _vectors_of(index: ItemIndex, vectors: npt.NDArray[np.floating]) -> Float32:
    table = check_vectors(vectors)
    if len(table) != len(index):
        raise DataError(
            f"{len(table)} vectors for an index of {len(index)} items",
            "Give one vector an item, in the order of the dataset.",
        )
    return table


# ------------------------------------------------------------------------- levels


def _level(index: ItemIndex, level: int, errors: list[float]) -> LevelQuality:
    size = index.sizes[level]
    counts = np.bincount(index.codes[:, level], minlength=size)
    fans = children(index.prefixes, level)
    return LevelQuality(
        size=size,
        used=int((counts > 0).sum()),
        perplexity=perplexity(counts),
        gini=gini(counts),
        max_over_mean=float(counts.max() / counts.mean()),
        variation=variation(counts),
        counts=np.sort(counts)[::-1].tolist(),
        branching=Branching(
            nodes=len(fans),
            mean=float(fans.mean()),
            largest=int(fans.max()),
            single=float((fans == 1).mean()),
            histogram=doubling_histogram(fans),
        ),
        error=errors[level] if level < len(errors) else None,
    )


def _errors(index: ItemIndex, vectors: Float32 | None, codebooks: Codebooks | None) -> list[float]:
    """The relative error after every level that has a codebook; empty where it can't be known."""
    if codebooks is None:
        return []
    if vectors is None:
        raise ConfigError(
            "codebooks alone don't tell the reconstruction error", "Give the item vectors as well."
        )
    sizes = codebooks.sizes
    if sizes != index.sizes[: len(sizes)]:
        raise ConfigError(
            f"codebooks of the sizes {list(sizes)} for an index of {list(index.sizes)}",
            "Give the codebooks that the index was made with.",
        )
    mean = vectors.mean(axis=0, dtype=np.float64)
    rows = max(1, CHUNK // vectors.shape[1])
    lost, total = np.zeros(len(sizes)), 0.0
    for start in range(0, len(vectors), rows):
        part, codes = vectors[start : start + rows], index.codes[start : start + rows]
        for level in range(len(sizes)):
            missed, spread = squared_sums(part, codebooks.rebuild(codes[:, : level + 1]), mean)
            lost[level] += missed
        total += spread
    return [float(missed / total) if total else 0.0 for missed in lost]


# ----------------------------------------------------------------------- prefixes


def _crowding(index: ItemIndex, depth: int) -> tuple[int, int, float, list[tuple[int, int, int]]]:
    """Groups, the largest one, the share of items that are alone, and items by the size of their group."""
    group = index.prefixes.groups[:, depth]
    crowd = np.bincount(group)
    alone = float((crowd == 1).sum() / len(index))
    return len(crowd), int(crowd.max()), alone, doubling_histogram(crowd[group])


def _paths(dataset: Dataset) -> dict[int, tuple[Int64, Int64]]:
    """By depth of the category paths: the rows of items that deep, and the number of each one's path.

    Depths at which all paths are one and the same tell nothing and are left out. Tags have no depth: an item that has
    tags and no path stands for all of them together.
    """
    items = dataset.items
    tags = items[c.TAGS].to_list() if c.TAGS in items.columns else [None] * len(items)
    paths = [
        tuple(path) if path else (", ".join(labels),) if labels else ()
        for path, labels in zip(items[c.CATEGORIES].to_list(), tags, strict=True)
    ]
    found = {}
    for depth in range(1, min(max(map(len, paths), default=0), DEEPEST) + 1):
        rows = [row for row, path in enumerate(paths) if len(path) >= depth]
        numbers: dict[tuple[str, ...], int] = {}
        labels = [numbers.setdefault(paths[row][:depth], len(numbers)) for row in rows]
        if len(numbers) > 1:
            found[depth] = (np.array(rows, np.int64), np.array(labels, np.int64))
    return found


def _with_purity(
    prefixes: list[PrefixQuality],
    index: ItemIndex,
    paths: dict[int, tuple[Int64, Int64]],
    rng: np.random.Generator,
) -> list[PrefixQuality]:
    measured = []
    for depth, known in enumerate(prefixes):
        found = []
        for names, (rows, labels) in paths.items():
            groups = index.prefixes.groups[rows, depth]
            chance, information = by_chance(groups, labels, rng)
            found.append(
                Purity(
                    depth=names,
                    items=len(rows),
                    categories=int(labels.max()) + 1,
                    purity=purity(groups, labels),
                    chance=chance,
                    information=mutual_information(groups, labels),
                    information_chance=information,
                )
            )
        measured.append(PrefixQuality(**vars(known) | {"purity": found}))
    return measured


def _with_recall(
    prefixes: list[PrefixQuality],
    index: ItemIndex,
    vectors: Float32,
    neighbours: int,
    queries: int,
    rng: np.random.Generator,
) -> tuple[list[PrefixQuality], dict[str, int] | None]:
    unit = normalize(vectors)
    items = np.flatnonzero(unit.any(axis=1)).astype(np.int64)
    if not len(items):
        return prefixes, None
    if len(items) > queries:
        items = np.sort(rng.choice(items, queries, replace=False))
    k = min(neighbours, len(index) - 1)
    near = nearest_neighbours(unit, items, k)
    groups = index.prefixes.groups
    measured = [
        PrefixQuality(**vars(known) | {"recall": neighbour_recall(groups[:, depth], items, near)})
        for depth, known in enumerate(prefixes)
    ]
    return measured, {"k": k, "queries": len(items)}

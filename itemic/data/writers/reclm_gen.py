"""RecLM-gen's pickles ``sequential``, ``meta``, ``category`` and ``ranking_candidate``, see
:mod:`itemic.data.readers.reclm_gen`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.categories import named_rows, paths_of
from itemic.data.dataset import Dataset
from itemic.data.readers.further import RESERVED
from itemic.data.readers.reclm_gen import CANDIDATES, CATEGORIES, ITEMS, SEQUENCES
from itemic.data.writers.lost import lost_columns, lost_split, lost_times
from itemic.data.writers.texts import safe
from itemic.data.writers.writer import Writer

TEXTS = (c.TITLE, c.DESCRIPTION, c.BRAND)


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """Categories as cumulative prefixes of the items' paths, and tags beside them. Files have their fixed names."""
    sequences, ids = dataset.sequences, dataset.item_ids
    histories = {str(user): [ids[row] for row in sequences[i]] for i, user in enumerate(sequences.users)}
    _dump(folder, SEQUENCES, histories)
    further = _further(dataset.items)
    _dump(folder, ITEMS, _records(dataset.items, further))
    labels = _safe_labels(dataset.items)
    named = named_rows(labels)
    _dump(folder, CATEGORIES, {label: [ids[row] for row in rows] for label, rows in named.items()})
    if dataset.candidates is not None:
        _dump(folder, CANDIDATES, dict(dataset.candidates.select(c.USER_ID, c.CANDIDATES).iter_rows()))
    kept = (*c.ITEM_COLUMNS, c.TAGS, *further)
    lost = [*lost_times(dataset), *lost_columns(dataset.items, kept), *lost_split(dataset)]
    if not _kinds_come_back(labels, named):
        lost.append("whether categories are paths or tags (name it when the files are read: categories_are)")
    if _spaced(dataset.items):
        lost.append("white space in names of categories (a reader makes one blank of it)")
    return lost


def _spaced(items: pl.DataFrame) -> bool:
    """Whether a category or tag has white space that is more than one blank between words."""
    columns = [name for name in (c.CATEGORIES, c.TAGS) if name in items.columns]
    labels = (label for name in columns for each in items[name].to_list() for label in each or [])
    return any(label != " ".join(label.split()) for label in labels)


def _dump(folder: Path, name: str, value: Any) -> None:
    with (folder / f"{name}.pickle").open("wb") as stream:
        pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)


def _further(items: pl.DataFrame) -> list[str]:
    """The further columns of texts and of numbers."""
    return [
        name
        for name, dtype in items.schema.items()
        if name not in RESERVED and (dtype == pl.String or dtype.is_numeric())
    ]


def _records(items: pl.DataFrame, further: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``{item: {title, description, brand, …}}``; a further field is left out where nothing is known."""
    return {
        row[c.ITEM_ID]: {name: safe(row[name]) for name in TEXTS}
        | {name: row[name] for name in further if row[name] is not None}
        for row in items.select(c.ITEM_ID, *TEXTS, *further).iter_rows(named=True)
    }


def _safe_labels(items: pl.DataFrame) -> pl.DataFrame:
    """Paths and tags as texts that come back as they are."""
    columns = [name for name in (c.CATEGORIES, c.TAGS) if name in items.columns]
    return pl.DataFrame(
        {
            name: [[safe(label) for label in labels or []] for labels in items[name].to_list()]
            for name in columns
        },
        schema=dict.fromkeys(columns, pl.List(pl.String)),
    )


def _kinds_come_back(labels: pl.DataFrame, named: dict[str, Any]) -> bool:
    """Whether the reader makes the same paths, or the same tags, of the names."""
    filed: dict[int, list[str]] = {}
    for name, rows in named.items():
        for row in rows.tolist():
            filed.setdefault(row, []).append(name)
    paths = paths_of(list(filed.values()))
    if paths is None:
        return not labels[c.CATEGORIES].list.len().sum()
    found = dict(zip(filed, paths, strict=True))
    return labels[c.CATEGORIES].to_list() == [found.get(row, []) for row in range(len(labels))]


WRITER = Writer("reclm-gen", write, candidates=True)

"""Requests cut into slices: by what was asked, and by columns of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.analysis.evidence import Bools, Evidence
from itemic.errors import DataError
from itemic.evaluate.report import LENGTH_EDGES, POPULARITY_EDGES

MOST = 12  # values of a category or column that are told apart
OTHERS, UNKNOWN = "others", "unknown"
Slices = dict[str, list[tuple[str, Bools]]]


def slices_of(evidence: Evidence, tables: Sequence[str | Path] = ()) -> Slices:
    """All slices, by their name; each a list of values with the requests (bool ``[R]``) that have it.

    They are the history's length; the target's popularity in training; its category (its labels; the twelve most
    frequent ones, a request counts in each that its target has); its novelty (whether it follows the history's last
    item anywhere in training); and the columns of ``tables``.

    Args:
        evidence: whose requests.
        tables: CSV, TSV or Parquet files with a column ``user_id`` or ``item_id`` (of the target) and others: each of
            these is a slice. Numbers with more than twelve values are cut into quarters of the requests.

    Raises:
        DataError: a file can't be read, has neither column or both, no other, or an id twice.
    """
    targets = evidence.requests.targets
    found: Slices = {
        "history length": _cut(evidence.lengths, LENGTH_EDGES),
        "target popularity": _cut(evidence.counts[targets], POPULARITY_EDGES),
    }
    if evidence.labels is not None:
        wanted = evidence.labels[targets].tocsc()
        often = np.argsort(-np.diff(wanted.indptr), kind="stable")[:MOST]
        found["target category"] = [
            (evidence.label_names[label], _at(wanted[:, [label]], len(targets))) for label in often.tolist()
        ]
    seen = follows(evidence)
    found["target novelty"] = [("seen after the last item", seen), ("never seen after it", ~seen)]
    for table in tables:
        found |= _own(evidence, Path(table))
    kept = {
        name: [(value, inside) for value, inside in parts if inside.any()] for name, parts in found.items()
    }
    return {name: parts for name, parts in kept.items() if parts}


def follows(evidence: Evidence) -> Bools:
    """Whether the target follows the history's last item anywhere in training: bool ``[R]``."""
    train, n = evidence.dataset.train, len(evidence.dataset.item_ids)
    pairs = train.items[:-1].astype(np.int64) * n + train.items[1:]
    within = np.ones(max(len(train.items) - 1, 0), bool)
    within[train.offsets[1:-1] - 1] = False  # from one user to the next
    requests = evidence.requests
    some = evidence.lengths > 0
    last = requests.items[np.where(some, requests.offsets[1:] - 1, 0)].astype(np.int64)
    return np.asarray(some & np.isin(last * n + requests.targets, pairs[within]))


def _cut(sizes: npt.NDArray[np.integer], edges: tuple[int, ...]) -> list[tuple[str, Bools]]:
    found = []
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        inside = (sizes >= low) & (sizes < high) if high is not None else sizes >= low
        name = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}–{high - 1}"
        found.append((name, np.asarray(inside)))
    return found


def _at(column: object, count: int) -> Bools:
    inside = np.zeros(count, bool)
    inside[column.indices] = True  # type: ignore[attr-defined]
    return inside


def _own(evidence: Evidence, file: Path) -> Slices:
    table = _table(file)
    keys = [name for name in (c.USER_ID, c.ITEM_ID) if name in table.columns]
    if len(keys) != 1 or len(table.columns) == 1:
        raise DataError(
            f"{file} has the columns {', '.join(table.columns)}",
            f"Give a file with {c.USER_ID} or {c.ITEM_ID} (one of them), and the columns to slice by.",
        )
    key = keys[0]
    table = table.with_columns(pl.col(key).cast(pl.String)).filter(pl.col(key).is_not_null())
    if table[key].is_duplicated().any():
        twice = table.filter(pl.col(key).is_duplicated())[key][0]
        raise DataError(f"{file} has {key} {twice!r} more than once", "Give each id one row.")
    ids = (
        evidence.requests.users.tolist()
        if key == c.USER_ID
        else pl.Series(evidence.dataset.item_ids).gather(evidence.requests.targets)
    )
    asked = pl.DataFrame({key: pl.Series(ids, dtype=pl.String)}).join(
        table, on=key, how="left", maintain_order="left"
    )
    found = {name: _values(asked[name]) for name in table.columns if name != key}
    if all(value == UNKNOWN for parts in found.values() for value, _ in parts):
        raise DataError(
            f"no {key} of {file} is asked about: it has {', '.join(map(repr, table[key].head(3)))}",
            "Give the ids that the dataset has.",
        )
    return found


def _table(file: Path) -> pl.DataFrame:
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return pl.read_parquet(file)
        tabs = file.suffix.lower() == ".tsv"
        mark = "\t" if tabs else ","
        head = pl.read_csv(file, separator=mark, n_rows=0).columns
        texts = {str(name): pl.String() for name in (c.USER_ID, c.ITEM_ID) if name in head}
        return pl.read_csv(file, separator=mark, infer_schema_length=None, schema_overrides=texts)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"can't read {file}: {error}", "Give a CSV, TSV or Parquet file.") from error


def _values(column: pl.Series) -> list[tuple[str, Bools]]:
    """A column's values, one a request, as slices."""
    parts: list[tuple[str, Bools]] = []
    known = column.is_not_null().to_numpy()
    if column.dtype.is_numeric() and column.n_unique() > MOST:
        numbers = column.cast(pl.Float64).to_numpy()
        edges = np.unique(np.nanquantile(numbers[known], [0, 0.25, 0.5, 0.75, 1]))
        for low, high in pairwise(edges):
            last = high == edges[-1]
            inside = known & (numbers >= low) & ((numbers <= high) if last else (numbers < high))
            parts.append((f"{low:g} to {high:g}" if last else f"{low:g} to below {high:g}", inside))
    else:
        texts = column.cast(pl.String)
        often = texts.drop_nulls().value_counts(sort=True)[texts.name].head(MOST).to_list()
        parts += [(value, (texts == value).fill_null(False).to_numpy()) for value in often]
        if len(often) == MOST:
            rest = known & ~texts.is_in(often).fill_null(False).to_numpy()
            parts.append((OTHERS, rest))
    return [*parts, (UNKNOWN, ~known)]

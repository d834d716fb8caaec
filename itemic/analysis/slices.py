"""Slices of the requests: by length, popularity, category, and by one's own columns of users and items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.analysis.evidence import Evidence, Int64
from itemic.errors import DataError
from itemic.evaluate.report import LENGTH_EDGES, POPULARITY_EDGES

LENGTH, POPULARITY, CATEGORY = "history length", "target popularity", "target category"
UNKNOWN = "unknown"
CUTS = 5  # parts of a column of numbers
MOST = 30  # values of a slice; the rarest ones go together
OTHERS = "others"

Slicing = tuple[list[str], Int64]  # the values in their order, and the number of each request's, [R]


def slicings(
    evidence: Evidence, own: Mapping[str, pl.DataFrame] | None = None
) -> Iterator[tuple[str, Slicing]]:
    """Ways to divide the requests, by name.

    Args:
        evidence: whose requests.
        own: tables of one's own by name, with a column ``user_id`` or ``item_id`` (of the target) and others, each of
            which is a slicing.

    Raises:
        DataError: a table has neither column or both, names one twice, or nobody who asks.
    """
    yield LENGTH, cut(evidence.lengths, LENGTH_EDGES)
    yield POPULARITY, cut(evidence.counts[evidence.requests.targets], POPULARITY_EDGES)
    if evidence.labels is not None:
        first = evidence.labels.indptr
        has = np.diff(first) > 0
        label = np.full(len(has), -1, np.int64)
        label[has] = evidence.labels.indices[first[:-1][has]]
        names = [*evidence.label_names, UNKNOWN]
        yield CATEGORY, _most_frequent(names, label[evidence.requests.targets] % len(names))
    for name, table in (own or {}).items():
        yield from _own(name, table, evidence)


def cut(sizes: npt.NDArray[np.integer], edges: Sequence[int]) -> Slicing:
    """``edge ≤ size < next edge``, with the parts that nobody is in left out."""
    number = np.searchsorted(np.asarray(edges), sizes, "right") - 1
    number = np.maximum(number, 0)
    names = [
        f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}–{high - 1}"
        for low, high in zip(edges, (*edges[1:], None), strict=True)
    ]
    used, number = np.unique(number, return_inverse=True)
    return [names[int(at)] for at in used], number.astype(np.int64)


def read_columns(file: Path) -> pl.DataFrame:
    """A table of one's own: CSV, TSV or Parquet with a header.

    Raises:
        DataError: it can't be read.
    """
    try:
        if file.suffix == ".parquet":
            return pl.read_parquet(file)
        return pl.read_csv(file, separator="\t" if file.suffix == ".tsv" else ",", infer_schema_length=10_000)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"can't read {file}: {error}", "Give a CSV, TSV or Parquet file with a header."
        ) from error


def _own(name: str, table: pl.DataFrame, evidence: Evidence) -> Iterator[tuple[str, Slicing]]:
    keys = [key for key in (c.USER_ID, c.ITEM_ID) if key in table.columns]
    if len(keys) != 1:
        raise DataError(
            f"{name} has the columns {', '.join(table.columns)}",
            f"It needs exactly one of {c.USER_ID} and {c.ITEM_ID}, and what to slice by.",
        )
    key = keys[0]
    requests = evidence.requests
    if key == c.USER_ID:
        asked = pl.Series(key, requests.users.tolist(), pl.String)
    else:
        asked = pl.Series(key, evidence.dataset.item_ids, pl.String).gather(requests.targets)
    table = table.with_columns(pl.col(key).cast(pl.String))
    if (twice := table[key].is_duplicated()).any():
        raise DataError(
            f"{name} names {table.filter(twice)[key][0]!r} more than once", f"Give one row for each {key}."
        )
    joined = pl.DataFrame({key: asked}).join(table, on=key, how="left", maintain_order="left")
    if not asked.is_in(table[key].implode()).any():
        raise DataError(f"{name} knows no {key} that is asked about", "Give a table of the same ids.")
    for column in table.columns:
        if column != key:
            yield column, _values(joined[column])


def _values(column: pl.Series) -> Slicing:
    if column.dtype.is_numeric() and column.n_unique() > CUTS * 2:
        numbers = column.cast(pl.Float64).to_numpy()
        known = np.isfinite(numbers)
        edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, CUTS + 1)))
        number = np.clip(np.searchsorted(edges, numbers, "right") - 1, 0, len(edges) - 2)
        names = [f"{low:.6g}–{high:.6g}" for low, high in pairwise(edges)]
        if known.all():
            return names, number.astype(np.int64)
        return [*names, UNKNOWN], np.where(known, number, len(names)).astype(np.int64)
    texts = column.cast(pl.String).fill_null(UNKNOWN)
    names = sorted(texts.unique().to_list())
    at = {text: number for number, text in enumerate(names)}
    return _most_frequent(names, texts.replace_strict(at, return_dtype=pl.Int64).to_numpy())


def _most_frequent(names: list[str], number: Int64) -> Slicing:
    """The values by how many have them, most first; those beyond :data:`MOST` as one."""
    counts = np.bincount(number, minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    place = np.full(len(names), MOST - 1, np.int64)
    kept = order if len(order) <= MOST else order[: MOST - 1]
    place[kept] = np.arange(len(kept))
    found = [names[int(at)] for at in kept]
    return (found if len(order) <= MOST else [*found, OTHERS]), place[number]

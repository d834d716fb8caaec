"""What items can be asked for by: categories, tags, brands, bands of prices, any column. Each is a label with a name.

``Beauty > Makeup`` is a label, and so is ``Beauty``: every beginning of a category path, which holds all that is below
it. A label of another column is named ``brand=Nike``.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, DataError

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

ARROW = " > "  # between the levels of a category path
BANDS = 4  # of a column of numbers, about as many items in each
POPULARITY, NOVELTY = "popularity", "novelty"  # from the training interactions, not from a column
THIRDS = {POPULARITY: ("low", "middle", "high"), NOVELTY: ("old", "recent", "new")}
BARE = (c.CATEGORIES, c.TAGS)  # labels of these go by their value alone


class _Found(NamedTuple):
    """A column's labels: for each item the values that it has, from the general one to the fine one."""

    values: list[str]
    items: Int32  # [m]
    numbers: Int32  # [m], into values
    finest: Int32  # [n], into values; -1 for items without any


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of the items of a catalogue.

    Attributes:
        names: of the ``C`` labels, all different.
        columns: which column each is of.
        values: what each says, without its column: ``Nike`` of ``brand=Nike``.
        matrix: ``scipy.sparse.csr_array``, bool ``[n, C]``: which item has which.
        finest_labels: int32 ``[n]``: the number of each item's finest label; -1 for items that have none.
    """

    names: list[str]
    columns: list[str]
    values: list[str]
    matrix: Any
    finest_labels: Int32

    def __repr__(self) -> str:
        columns = ", ".join(dict.fromkeys(self.columns))
        return f"<Labels: {len(self.names):,} of {self.items:,} items, by {columns}>"

    @classmethod
    def of(cls, dataset: Dataset, columns: Sequence[str] = (c.CATEGORIES,)) -> Labels:
        """The labels that some columns give.

        A list of texts gives each of them; the categories give every beginning of their path. A text or a truth value
        gives itself, a number the band that it is in: about a quarter of the items each. ``popularity`` is the third of
        the catalogue by interactions of the training split, ``novelty`` that by the first of them.

        An item's finest label is of the first of the columns that it has labels of: its whole path; of several paths
        the last one; of other lists the label that the fewest items have.

        Args:
            dataset: whose items they are of.
            columns: of ``dataset.items``, or ``popularity`` and ``novelty``.

        Raises:
            ConfigError: there is no such column, none at all, or one of a kind that gives no labels.
            DataError: novelty of interactions without times, or no item has any label.
        """
        if not columns or len(set(columns)) != len(columns):
            raise ConfigError(f"labels by the columns {list(columns)}", "Name one or more, each once.")
        found = {column: _column(dataset, column) for column in columns}
        if not any(len(each.values) for each in found.values()):
            raise DataError(
                f"no item of {dataset.name!r} has a label by {', '.join(columns)}",
                "Choose columns that the catalogue has values in.",
            )
        bare = Counter(value for column in found if column in BARE for value in found[column].values)
        twice = {value for value, count in bare.items() if count > 1}
        names: list[str] = []
        of: list[str] = []
        values: list[str] = []
        items: list[Int32] = []
        numbers: list[Int64] = []
        finest = np.full(len(dataset.item_ids), -1, np.int32)
        for column, each in found.items():
            finest = np.where((finest < 0) & (each.finest >= 0), each.finest + len(names), finest)
            items.append(each.items)
            numbers.append(each.numbers.astype(np.int64) + len(names))
            plain = column in BARE
            names += [v if plain and v not in twice else f"{column}={v}" for v in each.values]
            of += [column] * len(each.values)
            values += each.values
        place = (np.concatenate(items), np.concatenate(numbers))
        shape = (len(dataset.item_ids), len(names))
        matrix = sparse.csr_array((np.ones(len(place[0]), np.bool_), place), shape)
        matrix.sum_duplicates()
        return cls(names, of, values, matrix, finest.astype(np.int32))

    def __len__(self) -> int:
        """How many labels there are."""
        return len(self.names)

    @property
    def items(self) -> int:
        """How many items there are."""
        return int(self.matrix.shape[0])

    @cached_property
    def sizes(self) -> Int64:
        """int64 ``[C]``: how many items have each."""
        return np.asarray(np.diff(self._by_label.indptr), np.int64)

    def number(self, name: str) -> int:
        """The number of the label that is meant: by its name, or by its value or the last part of its path where only
        one label has it (``Makeup`` for ``Beauty > Makeup``).

        Raises:
            ConfigError: none has it, or more than one; what is near is told, and never taken.
        """
        if (exact := self._numbers.get(name)) is not None:
            return exact
        shared = self._short.get(name, [])
        if len(shared) == 1:
            return shared[0]
        if shared:
            told = ", ".join(repr(self.names[number]) for number in shared[:5])
            raise ConfigError(
                f"{name!r} may mean {told}" + (", …" if len(shared) > 5 else ""), "Give the whole name."
            )
        near = difflib.get_close_matches(name, [*self.names, *self._short], 3, 0.5)
        told = "did you mean " + " or ".join(map(repr, near)) + "?" if near else ""
        told = told or f"there are {', '.join(map(repr, self.names[:5]))}" + ", …" * (len(self) > 5)
        raise ConfigError(f"no item has the label {name!r}; {told}", "Give a label's name as it is written.")

    def rows(self, name: str) -> Int32:
        """The rows of the items that have the label, int32, rising.

        Raises:
            ConfigError: as :meth:`number`.
        """
        return self.rows_of(self.number(name))

    def rows_of(self, number: int) -> Int32:
        """The same by the label's number."""
        first, stop = self._by_label.indptr[number : number + 2]
        return np.asarray(self._by_label.indices[first:stop], np.int32)

    def mask(self, number: int) -> Bool:
        """bool ``[n]``: which items have the label of that number."""
        found = np.zeros(self.items, np.bool_)
        found[self.rows_of(number)] = True
        return found

    def numbers_of(self, row: int) -> Int32:
        """The numbers of an item's labels, rising."""
        first, stop = self.matrix.indptr[row : row + 2]
        return np.asarray(self.matrix.indices[first:stop], np.int32)

    def finest(self, row: int) -> str | None:
        """The name of an item's finest label, None where it has none."""
        number = int(self.finest_labels[row])
        return None if number < 0 else self.names[number]

    def said(self, number: int) -> str:
        """The label as a sentence says it: ``"Makeup"``, ``the brand "Nike"``, ``high popularity``."""
        column, value = self.columns[number], self.values[number]
        if column in BARE:
            return f'"{value}"'
        if column in THIRDS:
            return f"{value} {column}"
        return f'{"the " if column == c.BRAND else ""}{column} "{value}"'

    @cached_property
    def _by_label(self) -> Any:
        found = self.matrix.tocsc()
        found.sort_indices()
        return found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def _short(self) -> dict[str, list[int]]:
        """Which labels go by a value, or by the last part of a path, that isn't their name."""
        found: dict[str, list[int]] = {}
        for number, (name, column, value) in enumerate(
            zip(self.names, self.columns, self.values, strict=True)
        ):
            words = {value, value.rsplit(ARROW, 1)[-1]} if column == c.CATEGORIES else {value}
            for word in words - {name}:
                found.setdefault(word, []).append(number)
        return found


def _column(dataset: Dataset, column: str) -> _Found:
    """The labels of one column."""
    if column == POPULARITY:
        seen = np.bincount(dataset.train.items, minlength=len(dataset.item_ids)).astype(np.float64)
        return _banded(seen, THIRDS[POPULARITY])
    if column == NOVELTY:
        return _banded(_first_seen(dataset), THIRDS[NOVELTY])
    if column not in dataset.items.columns:
        known = [*dataset.items.columns, POPULARITY, NOVELTY]
        near = difflib.get_close_matches(column, known, 1)
        told = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"items have no column {column!r}{told}", f"Choose among {', '.join(known)}.")
    values = dataset.items[column]
    kind = values.dtype
    if kind == pl.List(pl.List(pl.String)):
        return _listed([_beginnings(paths or ()) for paths in values.to_list()], True)
    if kind == pl.List(pl.String):
        lists = values.to_list()
        if column == c.CATEGORIES:
            return _listed([_beginnings([path or ()]) for path in lists], True)
        return _listed([[v for v in dict.fromkeys(own or ()) if v] for own in lists], False)
    if kind == pl.String or kind == pl.Boolean:
        texts = values.cast(pl.String).to_list()
        return _listed([[v] if v else [] for v in texts], True)
    if kind.is_numeric():
        return _banded(values.cast(pl.Float64).fill_null(np.nan).to_numpy(), None)
    raise ConfigError(
        f"the column {column!r} of {kind} gives no labels", "Choose texts, lists of texts or numbers."
    )


def _beginnings(paths: Sequence[Sequence[str | None]]) -> list[str]:
    """``[[Beauty, Makeup]]`` → ``[Beauty, Beauty > Makeup]``, the whole of the last path at the end."""
    parts = [[part for part in path if part] for path in paths]
    found = [ARROW.join(path[:stop]) for path in parts for stop in range(1, len(path) + 1)]
    return [*dict.fromkeys(name for name in found if name != found[-1]), *found[-1:]]


def _listed(lists: Sequence[Sequence[str]], ordered: bool) -> _Found:
    """Labels of lists of texts.

    Args:
        lists: of each item.
        ordered: whether the last of a list is its finest, or the rarest is.
    """
    numbers: dict[str, int] = {}
    flat = np.array([numbers.setdefault(v, len(numbers)) for own in lists for v in own], np.int32)
    lengths = np.array([len(own) for own in lists], np.int64)
    items = np.repeat(np.arange(len(lists), dtype=np.int32), lengths)
    finest = np.full(len(lists), -1, np.int32)
    if ordered:
        finest[items] = flat  # the last one stays
    elif len(flat):
        counts = np.bincount(flat)
        order = np.lexsort((-flat, -counts[flat], items))
        finest[items[order]] = flat[order]
    return _Found(list(numbers), items, flat, finest)


def _banded(numbers: Float64, words: Sequence[str] | None) -> _Found:
    """Labels of bands of numbers, equal numbers in the same one; NaN has none.

    Args:
        numbers: float64 ``[n]``.
        words: what the bands are called, from the lowest one; None for what they hold.
    """
    known = np.flatnonzero(np.isfinite(numbers))
    parts = BANDS if words is None else len(words)
    own = numbers[known]
    if not len(own):
        return _Found([], known.astype(np.int32), known.astype(np.int32), np.full(len(numbers), -1, np.int32))
    if words is None:
        edges = np.unique(np.quantile(own, np.arange(1, parts) / parts, method="lower"))
        edges = edges[edges < own.max()]
        names = list(_spans(edges))
        band = np.searchsorted(edges, own, side="left")
    else:
        names = list(words)
        # a band's number is where its lowest item stands, so that few different numbers don't all fall into the first
        rank = np.searchsorted(np.sort(own), own, side="left") / len(own)
        band = np.minimum((rank * parts).astype(np.int64), parts - 1)
    finest = np.full(len(numbers), -1, np.int32)
    finest[known] = band
    return _Found(names, known.astype(np.int32), band.astype(np.int32), finest)


def _spans(edges: Float64) -> Iterator[str]:
    if not len(edges):
        yield "any"
        return
    yield f"up to {edges[0]:.12g}"
    for low, high in pairwise(edges):
        yield f"above {low:.12g} up to {high:.12g}"
    yield f"above {edges[-1]:.12g}"


def _first_seen(dataset: Dataset) -> Float64:
    """When training first saw each item, float64 ``[n]``; NaN for those that it never saw."""
    train = dataset.train
    if train.timestamps is None:
        raise DataError(
            "novelty needs the times of interactions, and this dataset has none", "Leave novelty out."
        )
    first = np.full(len(dataset.item_ids), np.inf)
    np.minimum.at(first, train.items, train.timestamps.astype(np.float64))
    return np.where(np.isinf(first), np.nan, first)

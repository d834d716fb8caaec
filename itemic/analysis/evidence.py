"""What detectors read: one ranking with its requests, its catalogue and what training counted, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.evaluate.ranking import Ranking, digest_requests
from itemic.metrics import ranks_of, sid_numbers

T = TypeVar("T")
Bools = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """All that is known of ranked requests. Only requests with a known target are here: ``R`` of them.

    Attributes:
        dataset: whose requests were ranked.
        split: ``valid`` or ``test``; None where the requests are neither.
        name: of the ranker.
        requests: histories and targets, ``R``.
        numbers: int64 ``[R]``, each request's number within the split.
        items: int32 ``[R, K]``, item rows, best first; -1 pads.
        scores: float32 ``[R, K]``.
        shortened: bool ``[R]``, the ranker couldn't read the whole history.
        k: how many places a person sees. A case is *bad* where the target is not among them.
        codes: int32 ``[n, L]``, the items' semantic IDs; None without an index.
        sids: the same as texts, ``n``, or other names of the items; None without.
        excluded: whether items of the history were left out of the lists.
        forced: float32 ``[R]``, the model's score of the target where it was asked for it, else NaN; None where the
            model wasn't asked at all.
    """

    dataset: Dataset
    split: str | None
    name: str
    requests: Requests
    numbers: Int64
    items: Int32
    scores: Float32
    shortened: Bools
    k: int
    codes: Int32 | None = None
    sids: list[str] | None = None
    excluded: bool = False
    forced: Float32 | None = None

    def __len__(self) -> int:
        return len(self.requests)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What several detectors compute from the same settings (``key``), computed once."""
        kept: dict[Hashable, T] = self.__dict__.setdefault("_once", {})
        if key not in kept:
            kept[key] = make()
        return kept[key]

    def __repr__(self) -> str:
        return f"<Evidence on {self.name!r}: {len(self):,} requests, {int(self.bad.sum()):,} bad at {self.k}>"

    @cached_property
    def ranks(self) -> Int64:
        """The place of each target, 0 where it isn't in the list: int64 ``[R]``."""
        return ranks_of(self.items, self.requests.targets)

    @cached_property
    def bad(self) -> Bools:
        """Whose target is not among the first ``k``: bool ``[R]``."""
        return np.asarray((self.ranks == 0) | (self.ranks > self.k))

    @property
    def top(self) -> Int32:
        """What a person sees: int32 ``[R, k]``."""
        return self.items[:, : self.k]

    @cached_property
    def lengths(self) -> Int64:
        """Items of each history: int64 ``[R]``."""
        return np.diff(self.requests.offsets)

    @cached_property
    def counts(self) -> Int64:
        """How often training saw each item: int64 ``[n]``."""
        return np.bincount(self.dataset.train.items, minlength=len(self.dataset.item_ids)).astype(np.int64)

    @cached_property
    def labels(self) -> sparse.csr_array | None:
        """Which items carry which label, bool ``[n, C]``: tags where there are any, else the most special level of the
        category path that more than one item has; None where no item has a label."""
        return labels_of(self.dataset)[0]

    @cached_property
    def label_names(self) -> list[str]:
        """The labels' names, ``C``."""
        return labels_of(self.dataset)[1]

    @cached_property
    def history(self) -> sparse.csr_array:
        """How often each item stands in each history: int ``[R, n]``."""
        requests = self.requests
        shape = (len(requests), len(self.dataset.item_ids))
        ones = np.ones(len(requests.items), np.int32)
        # copies: adding up sorts and shortens in place
        found = sparse.csr_array((ones, requests.items, requests.offsets), shape=shape, copy=True)
        found.sum_duplicates()
        return found

    @cached_property
    def sid_numbers(self) -> Int32 | None:
        """A number for each distinct semantic ID: int32 ``[n]``; None without an index."""
        return None if self.codes is None else sid_numbers(self.codes)


def gather(
    ranking: Ranking,
    dataset: Dataset,
    *,
    k: int = 10,
    codes: Int32 | None = None,
    excluded: bool | None = None,
) -> Evidence:
    """Read a ranking whole, with the requests that it answers.

    Args:
        ranking: finished.
        dataset: whose requests were ranked.
        k: how many places count as shown.
        codes: int32 ``[n, L]``, of the dataset's items, row by row.
        excluded: whether items of the histories were left out; None takes it from the ranking's config, or looks at
            the lists.

    Raises:
        ConfigError: k is beyond the lists, or no target is known.
        IndexMismatchError: the ranking or the codes are of another catalogue.
        DataError: the ranking answers no split of the dataset.
    """
    if not 1 <= k <= ranking.head.k:
        raise ConfigError(
            f"cases at k = {k} of a ranking with {ranking.head.k} items a request",
            f"Choose k between 1 and {ranking.head.k}, or rank more items.",
        )
    if dataset.item_ids != ranking.catalogue[c.ITEM_ID].to_list():
        raise IndexMismatchError(
            f"the ranking in {ranking.folder} has other items than dataset {dataset.name!r}",
            "Give the dataset that was ranked.",
        )
    if codes is not None and len(codes) != len(dataset.item_ids):
        raise IndexMismatchError(
            f"an index of {len(codes)} items for a dataset of {len(dataset.item_ids)}",
            "Give the index that was made for this dataset.",
        )
    split, requests = _asked(ranking, dataset)
    texts = ranking.catalogue[c.RANKED_SIDS]
    parts = list(ranking.arrays())
    known = requests.targets >= 0
    if not known.any():
        raise ConfigError(
            f"no target of the ranking in {ranking.folder} is known",
            "Analyse a split whose targets are known.",
        )
    keep = np.flatnonzero(known)
    items = np.concatenate([part.items for part in parts])[known]
    requests = requests if known.all() else requests.take(keep)
    found = Evidence(
        dataset,
        split,
        ranking.head.name,
        requests,
        keep.astype(np.int64),
        items,
        np.concatenate([part.scores for part in parts])[known],
        np.concatenate([part.shortened for part in parts])[known],
        k,
        codes,
        None if texts.null_count() else texts.to_list(),
        bool(ranking.head.config.get("exclude_history", False)) if excluded is None else excluded,
    )
    if excluded is None and "exclude_history" not in ranking.head.config:
        object.__setattr__(found, "excluded", not _offers_history(found))
    return found


def labels_of(dataset: Dataset) -> tuple[sparse.csr_array | None, list[str]]:
    """Which items carry which label, see :attr:`Evidence.labels`."""
    import polars as pl

    items = dataset.items.with_row_index("_row")
    if c.TAGS in items.columns and items[c.TAGS].list.len().sum():
        pairs = items.select("_row", pl.col(c.TAGS).alias("_label")).explode("_label").drop_nulls()
    else:
        paths = items.select("_row", c.CATEGORIES).filter(pl.col(c.CATEGORIES).list.len() > 0)
        steps = paths.with_columns(_at=pl.int_ranges(1, pl.col(c.CATEGORIES).list.len() + 1)).explode("_at")
        steps = steps.with_columns(_label=pl.col(c.CATEGORIES).list.head(pl.col("_at")).list.join(" > "))
        common = steps.filter(pl.col("_row").n_unique().over("_label") > 1)
        pairs = common.sort("_row", "_at").group_by("_row", maintain_order=True).agg(pl.col("_label").last())
    if not len(pairs):
        return None, []
    names = sorted(pairs["_label"].unique().to_list())
    number = pl.DataFrame({"_label": names, "_number": np.arange(len(names), dtype=np.int64)})
    pairs = pairs.join(number, on="_label", how="left", maintain_order="left")
    at = (pairs["_row"].to_numpy().astype(np.int64), pairs["_number"].to_numpy())
    shape = (len(items), len(names))
    found = sparse.csr_array((np.ones(len(pairs), bool), at), shape=shape)
    found.sum_duplicates()
    return found, names


def _asked(ranking: Ranking, dataset: Dataset) -> tuple[str, Requests]:
    for name in (c.VALID, c.TEST):
        try:
            requests = dataset.split(name)
        except DataError:  # this split is empty
            continue
        if digest_requests(requests, dataset.catalogue) == ranking.head.digest:
            return name, requests
    raise DataError(
        f"the ranking in {ranking.folder} answers no split of dataset {dataset.name!r}",
        "Give the dataset that was ranked, with the same filters and split.",
    )


def _offers_history(evidence: Evidence) -> bool:
    """Whether any list holds an item of its history."""
    request, place = np.nonzero(evidence.top >= 0)
    return bool(evidence.history[request, evidence.top[request, place]].sum())

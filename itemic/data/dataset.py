"""The dataset: a catalogue, time-ordered interactions, and how they are split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import digest_of, verify, write_json
from itemic.data.split import UNKNOWN, SplitRule, label_interactions, requests_of
from itemic.errors import DataError, IndexMismatchError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.object_]


def catalogue_digest(item_ids: Sequence[str]) -> str:
    """16 hex digits that name a catalogue: the item ids in their order, which rows are numbers of."""
    return digest_of(list(item_ids))


@dataclass(frozen=True)
class Sequences:
    """Every user's item rows in time order, as one flat array.

    Attributes:
        users: ids of the ``U`` users.
        offsets: int64 ``[U + 1]``; user ``u`` owns ``items[offsets[u]:offsets[u + 1]]``.
        items: int32 ``[N]``, rows of ``Dataset.items``, oldest first.
        timestamps: int64 ``[N]`` in milliseconds, or None where the source tells only the order.
    """

    users: Strings
    offsets: Int64
    items: Int32
    timestamps: Int64 | None = None

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"<Sequences: {len(self):,} users, {len(self.items):,} interactions>"

    def __getitem__(self, user: int) -> Int32:
        return self.items[self.offsets[user] : self.offsets[user + 1]]


@dataclass(frozen=True)
class Requests:
    """Questions to a recommender: a user's history, and the item that came next where it is known.

    Attributes:
        users: ids of the users, ``[R]``; a user may ask more than once.
        offsets: int64 ``[R + 1]``; request ``r`` has the history ``items[offsets[r]:offsets[r + 1]]``.
        items: int32, the histories' item rows one after the other, oldest first.
        targets: int32 ``[R]``, the row of the item to be found; -1 where it is unknown.
        catalogue: digest of the catalogue whose rows these are, see :func:`catalogue_digest`; None for requests
            made by hand, of which only the range of the rows can be checked.
    """

    users: Strings
    offsets: Int64
    items: Int32
    targets: Int32
    catalogue: str | None = None

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        lengths = np.diff(self.offsets)
        between = f"{lengths.min(initial=int(lengths.max(initial=0)))} to {lengths.max(initial=0)} items"
        known = int((self.targets >= 0).sum())
        return f"<Requests: {len(self):,}, histories of {between}, {known:,} with a target>"

    def history(self, request: int) -> Int32:
        return self.items[self.offsets[request] : self.offsets[request + 1]]

    def __getitem__(self, part: slice) -> Requests:
        """A contiguous part of the requests (step 1)."""
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("requests are sliced with step 1 only")
        stop = max(start, stop)
        offsets = self.offsets[start : stop + 1]
        return Requests(
            self.users[start:stop],
            offsets - offsets[0],
            self.items[offsets[0] : offsets[-1]],
            self.targets[start:stop],
            self.catalogue,
        )

    def take(self, requests: Int64) -> Requests:
        """Some of the requests, int64 ``[m]``, in the order given."""
        lengths = np.diff(self.offsets)[requests]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][requests] - offsets[:-1], lengths)
        return Requests(
            self.users[requests], offsets, self.items[places], self.targets[requests], self.catalogue
        )

    def check_catalogue(self, catalogue: str, size: int, owner: str) -> None:
        """Make sure that the rows are rows of this catalogue.

        Args:
            catalogue: its digest.
            size: how many items it has.
            owner: whose catalogue it is, for the error.

        Raises:
            IndexMismatchError: they are another's; both digests are named.
            DataError: a row is outside it.
        """
        if self.catalogue is not None and self.catalogue != catalogue:
            raise IndexMismatchError(
                f"the requests are of catalogue {self.catalogue}, {owner} is of catalogue {catalogue} "
                f"({size} items)",
                "Use the dataset that it was made with: the same source under the same filters.",
            )
        for rows, least in ((self.items, 0), (self.targets, -1)):
            wrong = np.flatnonzero((rows < least) | (rows >= size))
            if len(wrong):
                at = int(wrong[0])
                request = at if rows is self.targets else int(np.searchsorted(self.offsets, at, "right")) - 1
                raise DataError(
                    f"request {request} (user {str(self.users[request])!r}) names item row {int(rows[at])}, "
                    f"and {owner} has {size} items",
                    "Make requests with `Dataset.split`, or use rows of the same catalogue.",
                )


@dataclass(frozen=True)
class Dataset:
    """A catalogue and its interactions.

    Attributes:
        items: one row an item, columns ``schema.ITEM_COLUMNS``; ids unique, texts never null (empty if
            missing).
        interactions: columns ``schema.INTERACTION_COLUMNS``, users contiguous, each user's events in time
            order.
        name: a short name for tables.
        rule: how :meth:`split` divides the interactions.
        notes: what was read, filtered and dropped, by rule; goes into the manifest.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    name: str = "dataset"
    rule: SplitRule = field(default_factory=SplitRule)
    notes: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        users = self.interactions[c.USER_ID].n_unique()
        counts = f"{users:,} users, {len(self.items):,} items, {len(self.interactions):,} interactions"
        return f"<Dataset {self.name!r}: {counts}; split {self.rule.method}>"

    @cached_property
    def item_ids(self) -> list[str]:
        return self.items[c.ITEM_ID].to_list()

    @property
    def titles(self) -> pl.Series:
        """What to call each item on a screen: its title, or its id where it has none."""
        title = pl.when(pl.col(c.TITLE) != "").then(pl.col(c.TITLE))
        return self.items.select(pl.coalesce(title, c.ITEM_ID).alias(c.TITLE)).to_series()

    @cached_property
    def catalogue(self) -> str:
        """The digest of the catalogue, see :func:`catalogue_digest`: equal where rows mean the same items."""
        return catalogue_digest(self.item_ids)

    @cached_property
    def sequences(self) -> Sequences:
        """All interactions as flat arrays."""
        rows = pl.DataFrame({c.ITEM_ID: self.item_ids, "_row": np.arange(len(self.item_ids), dtype=np.int32)})
        joined = self.interactions.select(c.ITEM_ID).join(
            rows, on=c.ITEM_ID, how="left", maintain_order="left"
        )["_row"]
        if joined.null_count():
            lost = self.interactions.filter(joined.is_null())[c.ITEM_ID][0]
            raise DataError(
                f"interactions name item {lost!r}, which is not in the catalogue", "Read the raw files again."
            )
        user = self.interactions[c.USER_ID]
        runs = user.rle()
        lengths = runs.struct.field("len").to_numpy().astype(np.int64)
        users = runs.struct.field("value")
        if users.n_unique() != len(users):
            raise DataError("the interactions of a user are not contiguous", "Sort them by user and time.")
        time = self.interactions[c.TIMESTAMP]
        return Sequences(
            users.to_numpy().astype(object),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            joined.to_numpy().astype(np.int32),
            None if time.null_count() else time.to_numpy().astype(np.int64),
        )

    @cached_property
    def labels(self) -> npt.NDArray[np.int8]:
        """Which split each interaction is a target of: 0 train, 1 valid, 2 test (int8 ``[N]``)."""
        given = self.interactions[c.SPLIT].to_list() if self.rule.method == "published" else None
        return label_interactions(self.sequences, self.rule, given)

    def with_split(self, rule: SplitRule) -> Dataset:
        return replace(self, rule=rule)

    @cached_property
    def train(self) -> Sequences:
        """What training may see: each user's interactions before the first target of validation or test."""
        whole = self.sequences
        kept = self.labels == 0
        counts = (
            np.add.reduceat(kept, whole.offsets[:-1], dtype=np.int64) if len(whole) else np.zeros(0, np.int64)
        )
        return Sequences(
            whole.users,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            whole.items[kept],
            None if whole.timestamps is None else whole.timestamps[kept],
        )

    def split(self, name: str) -> Requests:
        """The requests of ``"valid"`` or ``"test"``.

        Raises:
            DataError: the split has no requests under the dataset's rule.
        """
        return replace(requests_of(self.sequences, self.labels, self.rule, name), catalogue=self.catalogue)

    def save(self, folder: str | Path) -> None:
        """Write ``items.parquet``, ``interactions.parquet`` and ``dataset.json``."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        self.items.write_parquet(root / "items.parquet")
        self.interactions.write_parquet(root / "interactions.parquet")
        write_json(
            root / "dataset.json", {"name": self.name, "split": self.rule.to_json(), "notes": self.notes}
        )

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read a folder that :meth:`save` wrote.

        Raises:
            DataError: a file is missing or has other columns.
            ArtifactError: a file is not as it was when a command or a run wrote the folder.
        """
        root = Path(folder)
        verify(root)
        try:
            head = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
            name, rule, notes = head["name"], SplitRule.from_json(head["split"]), head["notes"]
            items = pl.read_parquet(root / "items.parquet")
            interactions = pl.read_parquet(root / "interactions.parquet")
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{root} is not a dataset folder: {error}", "Make one with `itemic data import`."
            ) from error
        for table, columns, file in (
            (items, c.ITEM_COLUMNS, "items.parquet"),
            (interactions, c.INTERACTION_COLUMNS, "interactions.parquet"),
        ):
            missing = [name for name in columns if name not in table.columns]
            if missing:
                raise DataError(
                    f"{root / file} lacks the columns {', '.join(missing)}", "Import the raw files again."
                )
        return cls(items, interactions, name, rule, notes)


__all__ = ["UNKNOWN", "Dataset", "Requests", "Sequences", "catalogue_digest"]

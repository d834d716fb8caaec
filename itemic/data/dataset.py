"""The dataset: a catalogue, time-ordered interactions, and how they are split."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.artifact import verify, write_json
from itemic.data.sequences import Requests, Sequences, catalogue_digest
from itemic.data.settings import SplitRule
from itemic.data.split import label_interactions, requests_of
from itemic.errors import DataError

USERS, CANDIDATES = "users.parquet", "candidates.parquet"


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
        users: what the source knows of users, one row a user: ``user_id`` and columns of the source's own. Not every
            user of the interactions need be there; None where the source knows nothing.
        candidates: items to put in order beside a user's next one, one row a user: ``user_id`` and ``candidates``, a
            list of item ids. Not every user need be there; None where the source has none.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    name: str = "dataset"
    rule: SplitRule = field(default_factory=SplitRule)
    notes: dict[str, Any] = field(default_factory=dict)
    users: pl.DataFrame | None = None
    candidates: pl.DataFrame | None = None

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
    def candidate_rows(self) -> dict[str, npt.NDArray[np.int32]]:
        """The rows of each user's candidates, in their order; empty where there are none."""
        if self.candidates is None:
            return {}
        row = {item: number for number, item in enumerate(self.item_ids)}
        return {
            user: np.array([row[item] for item in items], np.int32)
            for user, items in self.candidates.select(c.USER_ID, c.CANDIDATES).iter_rows()
        }

    @cached_property
    def catalogue(self) -> str:
        """Its digest (:func:`itemic.data.sequences.catalogue_digest`): equal where rows mean the same items."""
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
        """Write ``items.parquet``, ``interactions.parquet``, ``dataset.json`` and, where there are such,
        ``users.parquet`` and ``candidates.parquet``."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        self.items.write_parquet(root / "items.parquet")
        self.interactions.write_parquet(root / "interactions.parquet")
        for table, file in ((self.users, USERS), (self.candidates, CANDIDATES)):
            (root / file).unlink(missing_ok=True)
            if table is not None:
                table.write_parquet(root / file)
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
            users, candidates = (
                pl.read_parquet(root / file) if (root / file).is_file() else None
                for file in (USERS, CANDIDATES)
            )
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{root} is not a dataset folder: {error}", "Make one with `itemic data import`."
            ) from error
        for table, columns, file in (
            (items, c.ITEM_COLUMNS, "items.parquet"),
            (interactions, c.INTERACTION_COLUMNS, "interactions.parquet"),
            *([] if users is None else [(users, (c.USER_ID,), USERS)]),
            *([] if candidates is None else [(candidates, (c.USER_ID, c.CANDIDATES), CANDIDATES)]),
        ):
            missing = [name for name in columns if name not in table.columns]
            if missing:
                raise DataError(
                    f"{root / file} lacks the columns {', '.join(missing)}", "Import the raw files again."
                )
        return cls(items, interactions, name, rule, notes, users, candidates)


def users_left(users: pl.DataFrame | None, interactions: pl.DataFrame) -> pl.DataFrame | None:
    """Of the users that a source knows those who are there in the interactions."""
    if users is None:
        return None
    there = interactions.select(pl.col(c.USER_ID).cast(pl.String)).unique()
    return users.join(there, on=c.USER_ID, how="semi", maintain_order="left")

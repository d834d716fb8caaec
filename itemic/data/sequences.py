"""Users' sequences of items, and the requests that are made of them: arrays of rows of one catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.artifact import digest_of
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

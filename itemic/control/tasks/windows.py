"""The histories that requests are drawn for: windows of training sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.data.sequences import Requests, Sequences
from itemic.tasks.windows import gather_windows
from itemic.teacher.teacher import Teacher

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Parts of training sequences: histories, and the item that comes after each.

    Attributes:
        user: int64 ``[n]``; -1 for requests without a history.
        start: int64 ``[n]``, of the history in ``Sequences.items``.
        stop: int64 ``[n]``, where the item after it is.
    """

    user: Int64
    start: Int64
    stop: Int64

    def __len__(self) -> int:
        return len(self.user)

    def take(self, places: Sequence[int]) -> Windows:
        """Some of them."""
        some = np.asarray(places, np.int64)
        return Windows(self.user[some], self.start[some], self.stop[some])

    def at(self, place: int) -> tuple[int, int, int]:
        """User, start and stop of one."""
        return int(self.user[place]), int(self.start[place]), int(self.stop[place])


def requests_of(windows: Windows, train: Sequences, teacher: Teacher) -> Requests:
    """The histories of windows as requests to the teacher."""
    offsets, items = gather_windows(train.items, windows.start, windows.stop)
    unknown = np.full(len(windows), -1, np.int32)
    return Requests(train.users[windows.user], offsets, items, unknown, teacher.catalogue)


def targets_of(windows: Windows, train: Sequences) -> Int32:
    """The item after each history, int32 ``[n]``."""
    return train.items[windows.stop]

"""Users and items by the ids that somebody types."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from itemic.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from itemic.data.dataset import Dataset


def user_place(dataset: Dataset, user: str) -> int:
    """A user's number among the dataset's.

    Raises:
        DataError: there is no such user; the remedy names some that are spelled like it.
    """
    sequences = dataset.sequences
    places = (sequences.users == user).nonzero()[0]
    if not len(places):
        raise DataError(
            f"{dataset.name} has no user {user!r}", _near(user, [str(name) for name in sequences.users])
        )
    return int(places[0])


def user_rows(dataset: Dataset, user: str) -> npt.NDArray[np.int32]:
    """A user's items, rows of the catalogue, oldest first.

    Raises:
        DataError: there is no such user.
    """
    return dataset.sequences[user_place(dataset, user)]


def item_rows(known: list[str], items: Sequence[str]) -> npt.NDArray[np.int32]:
    """Rows of items.

    Args:
        known: the catalogue's ids.
        items: ids.

    Raises:
        DataError: there is no such item.
    """
    import numpy as np

    place = {item: row for row, item in enumerate(known)}
    for item in items:
        if item not in place:
            raise DataError(f"the catalogue has no item {item!r}", _near(item, known))
    return np.array([place[item] for item in items], np.int32)


def _near(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known[:100_000], 3, 0.5) or known[:3]
    return f"Ids look like {', '.join(map(repr, near))}."

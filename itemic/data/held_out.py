"""Users who are kept out of supervised training, so that what they chose is news to what learns later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from itemic.data.sequences import Sequences
from itemic.errors import ConfigError


def held_out(users: Iterable[str], share: float) -> npt.NDArray[np.bool_]:
    """Which users are held out, bool ``[U]``: a function of each one's id and the share alone, so that it is the same
    in every order, in part or in whole, and a larger share holds out those of a smaller one and more.

    Args:
        users: their ids.
        share: about how many of them, from 0 to 1.

    Raises:
        ConfigError: the share isn't between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"a share of {share} of the users", "Give a number from 0 to 1.")
    bound = int(share * 2**64)
    return np.array([_number(str(user)) < bound for user in users], bool)


def _number(user: str) -> int:
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest(), "big")


def without_held_out(sequences: Sequences, share: float) -> Sequences:
    """The sequences of the users who aren't held out."""
    kept = ~held_out(sequences.users, share)
    lengths = np.diff(sequences.offsets)
    items = np.repeat(kept, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64)
    times = sequences.timestamps
    return Sequences(
        sequences.users[kept], offsets, sequences.items[items], None if times is None else times[items]
    )

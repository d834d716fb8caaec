"""What to do with items that a quantizer gave the same semantic ID: an explicit, reported choice.

| policy | what happens |
|---|---|
| ``keep`` | nothing: items share their semantic ID |
| ``rank`` | one more level counts the items of each semantic ID (0, 1, 2, …) |
| ``reassign`` | items move to the free semantic ID that fits them best, mostly by the last code alone |

A new policy is a function and one row in :data:`COLLISIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.sid.prefixes import Prefixes
from itemic.sid.reassign import reassign_codes

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Coded:
    """Items under codes, and what the codes were made from where that is known.

    Attributes:
        codes: int32 ``[n, L]``.
        sizes: codes per level.
        vectors: float32 ``[n, d]`` or None.
        codebooks: float32 ``[sizes[l], d]`` per level, or None.
    """

    codes: Int32
    sizes: tuple[int, ...]
    vectors: Float32 | None = None
    codebooks: Sequence[Float32] | None = None


def keep(coded: Coded) -> tuple[Int32, tuple[int, ...]]:
    """Leave collisions as they are."""
    return coded.codes, coded.sizes


def rank(coded: Coded) -> tuple[Int32, tuple[int, ...]]:
    """Add a level that numbers the items of each semantic ID by their row; its size is the largest group."""
    group = Prefixes.of(coded.codes, coded.sizes).groups[:, -1]
    order = np.argsort(group, kind="stable")
    place = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    number = np.zeros((len(group), 1), np.int32)
    number[order, 0] = place
    return np.concatenate([coded.codes, number], axis=1), (*coded.sizes, int(number.max()) + 1)


def reassign(coded: Coded) -> tuple[Int32, tuple[int, ...]]:
    """Give every item a semantic ID of its own, at the least cost inside each prefix.

    Raises:
        ConfigError: the vectors are not known, or there are more items than semantic IDs.
    """
    if coded.vectors is None or coded.codebooks is None:
        raise ConfigError(
            "collisions can't be re-assigned without the item vectors and the codebooks",
            "Use collisions 'rank' (one more level) or 'keep' for imported semantic IDs.",
        )
    return reassign_codes(coded.codes, coded.vectors, coded.codebooks), coded.sizes


Policy = Callable[[Coded], tuple[Int32, tuple[int, ...]]]
COLLISIONS: dict[str, Policy] = {"keep": keep, "rank": rank, "reassign": reassign}


def resolve(coded: Coded, policy: str) -> tuple[Int32, tuple[int, ...], int]:
    """Apply a policy: codes int32 ``[n, L or L + 1]``, sizes, and how many items changed one of their codes.

    Raises:
        ConfigError: there is no such policy, or it can't be applied.
    """
    if policy not in COLLISIONS:
        raise ConfigError(f"unknown collision policy {policy!r}", f"Use one of {', '.join(COLLISIONS)}.")
    codes, sizes = COLLISIONS[policy](coded)
    changed = (codes[:, : coded.codes.shape[1]] != coded.codes).any(axis=1)
    return codes, sizes, int(changed.sum())

"""What to do with items that a quantizer gave the same semantic ID: an explicit, reported choice.

| policy | what happens |
|---|---|
| ``keep`` | nothing: items share their semantic ID |
| ``rank`` | one more level counts the items of each semantic ID (0, 1, 2, …) |
| ``reassign`` | items move to the free semantic ID that fits them best, mostly by the last code alone |
| ``sinkhorn`` | the last codes of colliding items are spread by optimal transport; some collisions may stay |

A new policy is a function and one row in :data:`COLLISIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.sid.prefixes import Prefixes
from itemic.sid.reassign import reassign_codes
from itemic.sid.sinkhorn import sinkhorn_codes

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Coded:
    """Items under codes, and what the codes were made from where that is known.

    Attributes:
        codes: int32 ``[n, L]``.
        sizes: codes per level.
        vectors: float32 ``[n, d]`` or None.
        codebooks: float32 ``[sizes[l], d]`` per level, or None.
        taken: int32 ``[m, L or L + 1]``, semantic IDs that other items have already and keep; None for none. With one
            level more, that level is :func:`rank`'s.
    """

    codes: Int32
    sizes: tuple[int, ...]
    vectors: Float32 | None = None
    codebooks: Sequence[Float32] | None = None
    taken: Int32 | None = None

    def need(self, policy: str) -> tuple[Float32, Sequence[Float32]]:
        """Vectors and codebooks for a policy that can't do without.

        Raises:
            ConfigError: they are not known.
        """
        if self.vectors is None or self.codebooks is None:
            raise ConfigError(
                f"collisions can't be resolved by {policy!r} without the item vectors and the codebooks",
                "Use collisions 'rank' (one more level) or 'keep' for imported semantic IDs.",
            )
        return self.vectors, self.codebooks


def keep(coded: Coded) -> tuple[Int32, tuple[int, ...]]:
    """Leave collisions as they are."""
    return coded.codes, coded.sizes


def rank(coded: Coded) -> tuple[Int32, tuple[int, ...]]:
    """Add a level that numbers the items of each semantic ID by their row; its size is the largest group."""
    old = np.zeros((0, 1 + len(coded.sizes)), np.int32) if coded.taken is None else coded.taken
    together = np.concatenate([old[:, :-1], coded.codes])
    group = Prefixes.of(together, coded.sizes).groups[:, -1]
    start = np.zeros(int(group.max()) + 1, np.int64)
    np.maximum.at(start, group[: len(old)], old[:, -1] + 1)
    group = group[len(old) :]
    order = np.argsort(group, kind="stable")
    place = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    number = np.zeros((len(group), 1), np.int32)
    number[order, 0] = place + start[group[order]]
    largest = int(max(number.max(), old[:, -1].max(initial=0)))
    return np.concatenate([coded.codes, number], axis=1), (*coded.sizes, largest + 1)


def reassign(coded: Coded) -> tuple[Int32, tuple[int, ...]]:
    """Give every item a semantic ID of its own, at the least cost inside each prefix.

    Raises:
        ConfigError: the vectors are not known, or there are more items than semantic IDs.
    """
    vectors, books = coded.need("reassign")
    return reassign_codes(coded.codes, vectors, books, coded.taken), coded.sizes


def sinkhorn(coded: Coded) -> tuple[Int32, tuple[int, ...]]:
    """Spread the last codes of colliding items by optimal transport; some may still collide.

    Raises:
        ConfigError: the vectors are not known.
    """
    vectors, books = coded.need("sinkhorn")
    return sinkhorn_codes(coded.codes, vectors, books, coded.taken), coded.sizes


Policy = Callable[[Coded], tuple[Int32, tuple[int, ...]]]
COLLISIONS: dict[str, Policy] = {"keep": keep, "rank": rank, "reassign": reassign, "sinkhorn": sinkhorn}


def resolve(coded: Coded, policy: str, alike: Int64 | None = None) -> tuple[Int32, tuple[int, ...], int]:
    """Apply a policy: codes int32 ``[n, L or L + 1]``, sizes, and how many items changed one of their codes.

    Args:
        coded: items under plain codes.
        policy: a key of :data:`COLLISIONS`.
        alike: int64 ``[n]``, equal numbers (from 0 up, none left out) for items that are to share their semantic ID;
            the first of them speaks for all.

    Raises:
        ConfigError: there is no such policy, or it can't be applied.
    """
    if policy not in COLLISIONS:
        raise ConfigError(f"unknown collision policy {policy!r}", f"Use one of {', '.join(COLLISIONS)}.")
    if alike is None:
        codes, sizes = COLLISIONS[policy](coded)
    else:
        first = np.unique(alike, return_index=True)[1]
        vectors = None if coded.vectors is None else coded.vectors[first]
        codes, sizes = COLLISIONS[policy](replace(coded, codes=coded.codes[first], vectors=vectors))
        codes = codes[alike]
    changed = (codes[:, : coded.codes.shape[1]] != coded.codes).any(axis=1)
    return codes, sizes, int(changed.sum())

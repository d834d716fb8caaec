"""Many samples under one grammar, side by side: what a sampler asks at each token, for all of them at once.

A grammar that has ``states`` answers with arrays. Any other one is asked sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from itemic.decode.grammar import Grammar, State
from itemic.forest.rows import TokenRows

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class Allowed(NamedTuple):
    """What may come next in ``m`` samples.

    ``free`` bool ``[m]``: where anything may. ``row``, ``token`` int64 ``[T]``, in any order: these tokens may in these
    samples; each pair comes once.
    """

    free: Bool
    row: Int64
    token: Int64


class States(Protocol):
    """Where ``P`` samples are in their grammar."""

    def __len__(self) -> int: ...

    def allowed(self, part: slice) -> Allowed:
        """What may come next in some of them, counted from the first of the part."""

    def step(self, tokens: Int64) -> Bool:
        """One token further, each by its own of ``tokens`` (int64 ``[P]``, which may follow): which are done now."""

    def ahead(self, places: Int64) -> tuple[TokenRows, Bool]:
        """What must come next in some places, up to where there is a choice again, which may be nothing; they go on
        behind it. Which of them are done then: bool ``[m]``."""

    def take(self, places: Int64) -> Self:
        """Those places alone, in that order."""

    def joined(self, other: Self) -> Self:
        """The other's behind these."""


@runtime_checkable
class Abreast(Protocol):
    """A grammar that keeps many states in arrays, beside what any :class:`Grammar` says of itself."""

    def tokens(self) -> Int32: ...
    def check(self, requests: int) -> None: ...

    def states(self, requests: Int64) -> States:
        """Before the first token of a sample of each of these requests."""


class OneByOne:
    """States of a grammar that knows single ones."""

    def __init__(self, grammar: Grammar, states: Sequence[State]) -> None:
        self.grammar, self.own = grammar, list(states)

    def __len__(self) -> int:
        return len(self.own)

    def allowed(self, part: slice) -> Allowed:
        """Each is asked."""
        found = [self.grammar.allowed(state) for state in self.own[part]]
        free = np.array([tokens is None for tokens in found], np.bool_)
        bound = [(row, tokens) for row, tokens in enumerate(found) if tokens is not None]
        row = np.repeat([row for row, _ in bound], [len(tokens) for _, tokens in bound]).astype(np.int64)
        token = np.concatenate([np.zeros(0, np.int64), *(tokens for _, tokens in bound)])
        return Allowed(free, row, token.astype(np.int64))

    def step(self, tokens: Int64) -> Bool:
        """Each goes on by itself; one that is done stays as it is."""
        after = [
            self.grammar.step(state, token) for state, token in zip(self.own, tokens.tolist(), strict=True)
        ]
        self.own = after
        return np.array([state is None for state in after], np.bool_)

    def ahead(self, places: Int64) -> tuple[TokenRows, Bool]:
        """Nothing: each token is asked for."""
        return TokenRows.of([[]] * len(places)), np.zeros(len(places), np.bool_)

    def take(self, places: Int64) -> OneByOne:
        """Those alone."""
        return OneByOne(self.grammar, [self.own[place] for place in places.tolist()])

    def joined(self, other: OneByOne) -> OneByOne:
        """All of both."""
        return OneByOne(self.grammar, self.own + other.own)


def states_of(grammar: Grammar | Abreast, requests: Int64) -> States:
    """The states of samples of these requests, before their first token."""
    if isinstance(grammar, Abreast):
        return grammar.states(requests)
    return OneByOne(grammar, [grammar.start(request) for request in requests.tolist()])

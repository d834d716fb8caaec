"""What may come next in a sample: free text, given tokens, an item, and sequences of these.

A grammar keeps a state for each sample. It says which tokens may follow a state and which state a token leads to; None
is the state behind the last token, where the sample is done.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, ConstraintError
from itemic.sid.trie import Trie

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

State = Any  # whatever a grammar likes, but None


class Grammar(Protocol):
    """What may come next."""

    def start(self, request: int) -> State:
        """The state of a sample of that request before its first token."""

    def allowed(self, state: State) -> Int32 | None:
        """The tokens that may follow, at least one; None for all of the vocabulary."""

    def step(self, state: State, token: int) -> State | None:
        """Where a token that may follow leads to; None where nothing comes after it."""

    def tokens(self) -> Int32:
        """Tokens that it names, so that a model which lacks one is refused at once."""

    def check(self, requests: int) -> None:
        """Raise a ConfigError where it isn't made for so many requests."""


class FreeText:
    """Any tokens up to one that ends them.

    Args:
        end: the token that ends the text, such as ``</think>`` or the end of a turn; None for text that only a
            sampler's own stops end.
        limit: after so many tokens nothing but ``end`` may follow.

    Raises:
        ConfigError: a limit below 0, or without an end.
    """

    def __init__(self, end: int | None = None, limit: int | None = None) -> None:
        if limit is not None and (end is None or limit < 0):
            raise ConfigError(
                f"free text with limit {limit} and end {end}",
                "Give 0 or more, and the token that ends the text.",
            )
        self.end, self.limit = end, limit

    def start(self, request: int) -> int:
        """How many tokens there are."""
        return 0

    def allowed(self, state: int) -> Int32 | None:
        """All, or the end where the limit is reached."""
        return np.array([self.end], np.int32) if self.limit is not None and state >= self.limit else None

    def step(self, state: int, token: int) -> int | None:
        """One more."""
        return None if token == self.end else state + 1

    def tokens(self) -> Int32:
        """The end."""
        return np.array([] if self.end is None else [self.end], np.int32)

    def check(self, requests: int) -> None:
        """Any number will do."""


class Fixed:
    """Given tokens, one after the other, such as ``<think>``: they are written, not chosen.

    Args:
        tokens: at least one.

    Raises:
        ConfigError: there are none.
    """

    def __init__(self, tokens: Several[int]) -> None:
        if not len(tokens):
            raise ConfigError("a fixed text of no tokens", "Give at least one token, or leave the part out.")
        self.given = np.asarray(tokens, np.int32)

    def start(self, request: int) -> int:
        """How many are written."""
        return 0

    def allowed(self, state: int) -> Int32:
        """The next one."""
        return self.given[state : state + 1]

    def step(self, state: int, token: int) -> int | None:
        """On to the next one."""
        return state + 1 if state + 1 < len(self.given) else None

    def tokens(self) -> Int32:
        """All of them."""
        return self.given

    def check(self, requests: int) -> None:
        """Any number will do."""


class ItemWalk:
    """One item: a walk from the trie's root to where a sequence ends.

    Args:
        trie: of the items' token sequences, none of which begins another one.
        rows: for each request the rows of the items that it may get; None for all items.

    Raises:
        ConstraintError: a sequence begins another one, so that nobody could tell whether the item is complete; a row is
            not in the catalogue, or a request has none.
    """

    def __init__(self, trie: Trie, rows: Several[npt.NDArray[np.integer]] | None = None) -> None:
        early = np.flatnonzero(trie.terminal & ~trie.leaf)
        if len(early):
            row = trie.items[trie.item_first[early[0]]]
            raise ConstraintError(
                f"the tokens of item row {row} begin another item's",
                "Give all items a token that closes them.",
            )
        self.trie = trie
        self._open = None if rows is None else [self._nodes(request, own) for request, own in enumerate(rows)]
        self._known: dict[tuple[int, int], Int32] = {}  # siblings are asked for again and again

    def _nodes(self, request: int, rows: npt.NDArray[np.integer]) -> Int64:
        """The nodes above and at the ends of some items, rising."""
        trie, wanted = self.trie, np.asarray(rows, np.int64)
        place = np.argsort(trie.items, kind="stable")
        at = np.minimum(np.searchsorted(trie.items, wanted, sorter=place), len(place) - 1)
        wrong = np.flatnonzero(trie.items[place[at]] != wanted)
        if len(wrong):
            raise ConstraintError(
                f"request {request} may get item row {wanted[wrong[0]]}, which is not in the catalogue",
                "Name rows of the same index.",
            )
        if not len(wanted):
            raise ConstraintError(
                f"request {request} may get no item at all", "Leave it out, or name items for it."
            )
        node = np.unique(np.searchsorted(trie.item_first, place[at], "right") - 1)
        found = [node]
        while len(node):
            node = np.unique(trie.parent[node[node > 0]].astype(np.int64))
            found.append(node)
        return np.unique(np.concatenate(found))

    def start(self, request: int) -> tuple[int, int]:
        """The request (0 where all may get all) and the root."""
        return (request if self._open is not None else 0, 0)

    def allowed(self, state: tuple[int, int]) -> Int32:
        """The tokens of the node's children that lead to an item which may come."""
        if state not in self._known:
            request, node = state
            child = np.arange(self.trie.first[node], self.trie.first[node + 1])
            if self._open is not None:
                child = child[np.isin(child, self._open[request], assume_unique=True)]
            self._known[state] = self.trie.token[child]
        return self._known[state]

    def step(self, state: tuple[int, int], token: int) -> tuple[int, int] | None:
        """Down to the child."""
        request, node = state
        low, high = self.trie.first[node : node + 2]
        child = int(low + np.searchsorted(self.trie.token[low:high], token))
        return None if self.trie.leaf[child] else (request, child)

    def tokens(self) -> Int32:
        """All that items are made of."""
        return np.concatenate(self.trie.levels)

    def check(self, requests: int) -> None:
        """There must be rows for each request."""
        if self._open is not None and len(self._open) != requests:
            raise ConfigError(
                f"items for {len(self._open)} requests of {requests}", "Give rows for each prompt."
            )


class Sequence:
    """Parts one after the other: a thought and an item, a list of items, a profile.

    Args:
        parts: at least one; none but the last may be free text without an end.

    Raises:
        ConfigError: there are none, or a part never ends and another follows.
    """

    def __init__(self, *parts: Grammar) -> None:
        if not parts:
            raise ConfigError("a sequence of no parts", "Give at least one.")
        for number, part in enumerate(parts[:-1]):
            if isinstance(part, FreeText) and part.end is None:
                raise ConfigError(
                    f"part {number} is text without an end, and another part follows", "Give it an end."
                )
        self.parts = parts

    def start(self, request: int) -> tuple[int, int, State]:
        """The request, which part, and its state."""
        return (request, 0, self.parts[0].start(request))

    def allowed(self, state: tuple[int, int, State]) -> Int32 | None:
        """As its part says."""
        return self.parts[state[1]].allowed(state[2])

    def step(self, state: tuple[int, int, State], token: int) -> tuple[int, int, State] | None:
        """Within the part, or to the beginning of the next."""
        request, part, inner = state
        after = self.parts[part].step(inner, token)
        if after is not None:
            return (request, part, after)
        part += 1
        return None if part == len(self.parts) else (request, part, self.parts[part].start(request))

    def tokens(self) -> Int32:
        """Those of all parts."""
        return np.concatenate([part.tokens() for part in self.parts])

    def check(self, requests: int) -> None:
        """As each part says."""
        for part in self.parts:
            part.check(requests)

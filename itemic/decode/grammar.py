"""What may come next in a sample: free text, given tokens, an item, and sequences of these.

A grammar keeps a state for each sample. It says which tokens may follow a state and which state a token leads to; None
is the state behind the last token, where the sample is done.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from itemic.decode.plan import ancestors
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


def open_nodes(trie: Trie, rows: npt.NDArray[np.integer], request: int) -> tuple[Int64, Int64]:
    """The nodes above and at the ends of some items, int64 ``[N]``, rising, and how many ends are at or below each.

    Raises:
        ConstraintError: a row is not in the catalogue, or there are none; the request is named.
    """
    wanted = np.asarray(rows, np.int64)
    wrong = np.flatnonzero((wanted < 0) | (wanted >= len(trie.items)))
    if len(wrong):
        raise ConstraintError(
            f"request {request} may get item row {wanted[wrong[0]]}, which is not in the catalogue",
            "Name rows of the same index.",
        )
    if not len(wanted):
        raise ConstraintError(
            f"request {request} may get no item at all", "Leave it out, or name items for it."
        )
    place = np.flatnonzero(np.isin(trie.items, wanted))
    ends = np.unique(np.searchsorted(trie.item_first, place, "right") - 1)
    path = ancestors(trie, ends)
    return np.unique(path[path >= 0], return_counts=True)


def _refuse_early_ends(trie: Trie) -> None:
    early = np.flatnonzero(trie.terminal & ~trie.leaf)
    if len(early):
        row = trie.items[trie.item_first[early[0]]]
        raise ConstraintError(
            f"the tokens of item row {row} begin another item's",
            "Give all items a token that closes them.",
        )


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
        _refuse_early_ends(trie)
        self.trie = trie
        self._open = None if rows is None else [open_nodes(trie, own, n)[0] for n, own in enumerate(rows)]
        self._known: dict[tuple[int, int], Int32] = {}  # siblings are asked for again and again

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


class ListState(NamedTuple):
    """Where a list is: whose it is, the ends of its items, and how far it is in which ``part``.

    Parts are ``item`` (``at`` a node), ``between`` and ``end`` (``at`` how many of their tokens there are), and
    ``choice``, where the list may end or go on.
    """

    request: int
    items: tuple[int, ...]
    part: str
    at: int


class ItemList:
    """Several items, none of them twice: items that share their tokens count as one.

    Args:
        trie: as for :class:`ItemWalk`.
        most: of how many; fewer where a request may get fewer.
        least: how many there must be; ``most`` where it isn't given.
        between: tokens between two items, such as a comma.
        end: tokens behind the last item; what tells that there are no more where ``least`` and ``most`` differ.
        rows: as for :class:`ItemWalk`.

    Raises:
        ConfigError: numbers that can't be, or a list of any length whose end can't be told from its going on.
        ConstraintError: as for :class:`ItemWalk`, or a request may get fewer than ``least``.
    """

    def __init__(
        self,
        trie: Trie,
        most: int,
        least: int | None = None,
        *,
        between: Several[int] = (),
        end: Several[int] = (),
        rows: Several[npt.NDArray[np.integer]] | None = None,
    ) -> None:
        _refuse_early_ends(trie)
        self.trie, self.most, self.least = trie, most, most if least is None else least
        self.between, self.end = np.asarray(between, np.int32), np.asarray(end, np.int32)
        if not 1 <= self.least <= most:
            raise ConfigError(
                f"a list of {self.least} to {most} items", "Give at least 1, and most not below it."
            )
        begin = self.between[:1] if len(self.between) else trie.token[trie.first[0] : trie.first[1]]
        if self.least < most and (not len(self.end) or self.end[0] in begin):
            raise ConfigError(
                f"a list of {self.least} to {most} items that doesn't say where it ends",
                "Give an end that begins with another token than what goes on.",
            )
        self._given = rows is not None
        everything = [np.arange(len(trie.items))] if rows is None else rows
        self._open = [open_nodes(trie, own, request) for request, own in enumerate(everything)]
        for request, (_, count) in enumerate(self._open):
            if count[0] < self.least:
                raise ConstraintError(
                    f"request {request} may get {count[0]} items, a list has {self.least}",
                    "Ask for fewer, or allow more.",
                )

    def start(self, request: int) -> ListState:
        """No items yet, at the root."""
        return ListState(request if self._given else 0, (), "item", 0)

    def allowed(self, state: ListState) -> Int32:
        """Tokens that lead to an item which isn't there yet, or those between and behind items."""
        if state.part == "between":
            return self.between[state.at : state.at + 1]
        if state.part == "end":
            return self.end[state.at : state.at + 1]
        if state.part == "item":
            return self.trie.token[self._children(state)]
        more = self.between[:1] if len(self.between) else self.trie.token[self._children(state)]
        return np.concatenate([more, self.end[:1]])

    def _children(self, state: ListState) -> Int64:
        """Nodes below the state's own that lead to an item which isn't there yet."""
        nodes, count = self._open[state.request]
        child = np.arange(self.trie.first[state.at], self.trie.first[state.at + 1], dtype=np.int64)
        place = np.minimum(np.searchsorted(nodes, child), len(nodes) - 1)
        left = np.where(nodes[place] == child, count[place], 0)
        if state.items:
            path = ancestors(self.trie, np.array(state.items, np.int64))
            for node in path[(path >= child[0]) & (path <= child[-1])].tolist():
                left[node - child[0]] -= 1
        return child[left > 0]

    def step(self, state: ListState, token: int) -> ListState | None:
        """On to the next token, or the next part."""
        if state.part == "choice":
            if len(self.end) and token == self.end[0]:
                return self._along(state, "end", 0)
            return self.step(state._replace(part="between" if len(self.between) else "item"), token)
        if state.part != "item":
            return self._along(state, state.part, state.at)
        low, high = self.trie.first[state.at : state.at + 2]
        child = int(low + np.searchsorted(self.trie.token[low:high], token))
        if not self.trie.leaf[child]:
            return state._replace(at=child)
        items = (*state.items, child)
        state = state._replace(items=items, at=0)
        if len(items) == min(self.most, int(self._open[state.request][1][0])):
            return state._replace(part="end") if len(self.end) else None
        if len(items) >= self.least:
            return state._replace(part="choice")
        return state._replace(part="between" if len(self.between) else "item")

    def _along(self, state: ListState, part: str, at: int) -> ListState | None:
        """Behind a token between or behind items."""
        if at + 1 < len(self.end if part == "end" else self.between):
            return state._replace(part=part, at=at + 1)
        return None if part == "end" else state._replace(part="item", at=0)

    def tokens(self) -> Int32:
        """All that items are made of, and what is between and behind them."""
        return np.concatenate([*self.trie.levels, self.between, self.end])

    def check(self, requests: int) -> None:
        """There must be rows for each request."""
        if self._given and len(self._open) != requests:
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

"""Sets of a trie's ends as rows of bits, and how many of a set lie below a node."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from itemic.decode.plan import ancestors
from itemic.errors import ConstraintError
from itemic.sid.trie import Trie

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_WORD = 64


class Ends:
    """The ends of a trie's sequences, numbered depth-first, so that those below a node are a slice.

    Attributes:
        count: how many there are.
        first, stop: int64 ``[N]``: below each node are the ends ``first:stop``.

    Raises:
        ConstraintError: a sequence begins another one.
    """

    def __init__(self, trie: Trie) -> None:
        early = np.flatnonzero(trie.terminal & ~trie.leaf)
        if len(early):
            row = trie.items[trie.item_first[early[0]]]
            raise ConstraintError(
                f"the tokens of item row {row} begin another item's",
                "Give all items a token that closes them.",
            )
        self.trie = trie
        below = trie.leaf.astype(np.int64)
        levels = list(pairwise(trie.depth_first[1:]))
        for low, high in reversed(levels):
            np.add.at(below, trie.parent[low:high], below[low:high])
        self.first = np.zeros(len(trie), np.int64)
        for low, high in levels:
            # siblings stand side by side, and so do their ends
            before = np.cumsum(below[low:high]) - below[low:high]
            parent = trie.parent[low:high]
            self.first[low:high] = self.first[parent] + before - before[trie.first[parent] - low]
        self.stop = self.first + below
        self.count = int(below[0])

    @cached_property
    def of_rows(self) -> Int64:
        """int64 ``[R]``: the end of each item."""
        found = np.empty(len(self.trie.items), np.int64)
        node = np.repeat(np.arange(len(self.trie)), np.diff(self.trie.item_first))
        found[self.trie.items] = self.first[node]
        return found

    @cached_property
    def above(self) -> Int64:
        """int64 ``[count, D + 1]``: the node at each depth on the way to each end; -1 below it."""
        leaves = np.flatnonzero(self.trie.leaf)
        return ancestors(self.trie, leaves[np.argsort(self.first[leaves])])

    @cached_property
    def chain(self) -> Int64:
        """int64 ``[N]``: how far each node leads without a choice: to itself where it has several children or none."""
        found = np.arange(len(self.trie))
        only = np.diff(self.trie.first) == 1
        for low, high in reversed(list(pairwise(self.trie.depth_first))):
            node = np.arange(low, high)[only[low:high]]
            found[node] = found[self.trie.first[node]]
        return found


class Sets:
    """Sets of numbers from 0 to below ``size``, which answer how many of them lie between two numbers at once.

    A set is a row of bits, and the number of its members before each word of 64 of them.
    """

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        width = size // _WORD + 1  # one more than is full, so that the last limit has a word
        self._words = np.zeros((4, width), np.uint64)
        self._before = np.zeros((4, width), np.int32)

    def add(self, members: Int64) -> int:
        """A further set; its number."""
        if self.count == len(self._words):
            self._words, self._before = (
                np.concatenate([x, np.zeros_like(x)]) for x in (self._words, self._before)
            )
        flags = np.zeros(self._words.shape[1] * _WORD, np.bool_)
        flags[members] = True
        words = np.packbits(flags, bitorder="little").view("<u8")
        own = np.bitwise_count(words).astype(np.int32)
        self._words[self.count], self._before[self.count] = words, np.cumsum(own) - own
        self.count += 1
        return self.count - 1

    def below(self, sets: Int64, limit: Int64) -> Int64:
        """How many members of each set are smaller than each limit."""
        word, bit = limit // _WORD, (limit % _WORD).astype(np.uint64)
        mask = (np.uint64(1) << bit) - np.uint64(1)
        inside = np.bitwise_count(self._words[sets, word] & mask)
        return self._before[sets, word].astype(np.int64) + inside

    def between(self, sets: Int64, first: Int64, stop: Int64) -> Int64:
        """How many are from ``first`` to below ``stop``."""
        return self.below(sets, stop) - self.below(sets, first)

    def has(self, sets: Int64, member: Int64) -> Bool:
        """Whether each number is in its set."""
        found: Bool = self.between(sets, member, member + 1) > 0
        return found

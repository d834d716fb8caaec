"""Where many lists are under a grammar, in arrays, so that all are asked and go on at once.

What may come is counted below the children of a node of the trie: the items of the open set, less those that the list
has already. The sets are rows of bits over the trie's ends in depth-first order, so what lies below a node is a slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from itemic.decode.abreast import Allowed
from itemic.forest.rows import TokenRows

if TYPE_CHECKING:
    from itemic.control.lists import ListGrammar

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass
class ListStates:
    """Where some lists are.

    Attributes:
        grammar: theirs.
        request: int64 ``[P]``.
        number: int64 ``[P]``, complete items.
        at: int64 ``[P]``, tokens of the text before the next item, or of the end.
        node: int64 ``[P]``, how far the item is; 0 before its first token.
        ending: bool ``[P]``, whether the end is being written.
        open: int64 ``[P]``, the set that the item may be of.
        taken: int64 ``[P, most]``, ends of the complete items; -1 for none.
        chosen: of each the number of items of each class.
    """

    grammar: ListGrammar
    request: Int64
    number: Int64
    at: Int64
    node: Int64
    ending: Bool
    open: Int64
    taken: Int64
    chosen: list[tuple[int, ...]]

    _ARRAYS = ("request", "number", "at", "node", "ending", "open", "taken")

    @classmethod
    def begin(cls, grammar: ListGrammar, request: Int64) -> ListStates:
        """Before the first token of each."""
        count = len(request)
        terms = grammar.terms
        chosen = [() if terms is None else (0,) * len(terms[r].quotas.sizes) for r in request.tolist()]
        number, at, node = np.zeros((3, count), np.int64)
        opened = np.array(
            [grammar.open(r, own) for r, own in zip(request.tolist(), chosen, strict=True)], np.int64
        )
        taken = np.full((count, grammar.most), -1, np.int64)
        return cls(grammar, request, number, at, node, np.zeros(count, np.bool_), opened, taken, chosen)

    def __len__(self) -> int:
        return len(self.request)

    def take(self, places: Int64) -> ListStates:
        """Copies of those places."""
        arrays = {name: getattr(self, name)[places] for name in self._ARRAYS}
        return ListStates(self.grammar, **arrays, chosen=[self.chosen[place] for place in places.tolist()])

    def joined(self, other: ListStates) -> ListStates:
        """All of both."""
        arrays = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in self._ARRAYS}
        return ListStates(self.grammar, **arrays, chosen=self.chosen + other.chosen)

    def _stretch(self) -> tuple[Int64, Int64]:
        """Of the text that each is at: where it begins, and how long it is."""
        text = self.grammar.text
        row = np.where(self.ending, len(text) - 1, np.minimum(self.number, len(text) - 2))
        return text.offsets[row], text.lengths[row]

    def allowed(self, part: slice) -> Allowed:
        """Text that is written, or tokens that lead to an item of the open set that isn't there yet."""
        grammar = self.grammar
        own = np.arange(len(self))[part]
        first, length = (x[own] for x in self._stretch())
        writing = np.flatnonzero(self.at[own] < length)
        written = grammar.text.tokens[(first + self.at[own])[writing]].astype(np.int64)
        rows, tokens = [writing], [written]
        if not grammar.hard:
            ends = np.flatnonzero(self._may_end()[own])
            rows.append(ends)
            tokens.append(np.full(len(ends), grammar.text[len(grammar.text) - 1][0], np.int64))
        walking = np.flatnonzero((self.at[own] >= length) & ~self.ending[own])
        if len(walking):
            row, token = self._items(own[walking])
            rows.append(walking[row])
            tokens.append(token)
        return Allowed(np.zeros(len(own), np.bool_), np.concatenate(rows), np.concatenate(tokens))

    def _may_end(self) -> Bool:
        """Under soft: whether the model may close the list here."""
        return np.asarray((self.at == 0) & (self.node == 0) & ~self.ending & (self.number > 0))

    def _items(self, places: Int64) -> tuple[Int64, Int64]:
        """Tokens that lead on in the trie, and which of ``places`` each is for."""
        trie, ends = self.grammar.trie, self.grammar.ends
        node, opened = self.node[places], self.open[places]
        token, child, offsets = trie.children(node)
        row = np.repeat(np.arange(len(places)), np.diff(offsets))
        if not self.grammar.distinct:
            return row, token.astype(np.int64)
        left = self.grammar.sets.between(opened[row], ends.first[child], ends.stop[child])
        which, place = np.nonzero(self.taken[places] >= 0)
        taken = self.taken[places][which, place]
        above = ends.above[taken, trie.depth[node[which]] + 1]
        below = (
            (above >= 0) & (trie.parent[above] == node[which]) & self.grammar.sets.has(opened[which], taken)
        )
        at = (offsets[:-1][which] + above - trie.first[node[which]])[below]
        left -= np.bincount(at, minlength=len(left))
        legal = left > 0
        return row[legal], token[legal].astype(np.int64)

    def step(self, tokens: Int64) -> Bool:
        """One token further."""
        grammar, trie = self.grammar, self.grammar.trie
        _, length = self._stretch()
        if not grammar.hard:
            closes = self._may_end() & (tokens == grammar.text[len(grammar.text) - 1][0])
            self.ending |= closes
            _, length = self._stretch()
        writing = self.at < length
        self.at[writing] += 1
        walking = np.flatnonzero(~writing)
        child = trie.step(self.node[walking], tokens[walking]).astype(np.int64)
        self.node[walking] = child
        complete = walking[trie.leaf[child]]
        if len(complete):
            self._complete(complete)
        end = len(grammar.text[len(grammar.text) - 1])
        done: Bool = np.asarray(self.ending & (self.at >= end))
        return done

    def ahead(self, places: Int64) -> tuple[TokenRows, Bool]:
        """The text between items, and the rest of a name behind which there is no other in the trie."""
        grammar, trie, ends = self.grammar, self.grammar.trie, self.grammar.ends
        pieces: list[list[Int32]] = [[] for _ in places]
        end = len(grammar.text[len(grammar.text) - 1])
        going = np.arange(len(places))
        while len(going):
            own = places[going]
            first, length = (x[own] for x in self._stretch())
            writing = (self.at[own] < length) & (grammar.hard | ~self._may_end()[own])
            for n in np.flatnonzero(writing).tolist():
                start = first[n] + self.at[own[n]]
                pieces[going[n]].append(grammar.text.tokens[start : first[n] + length[n]])
            self.at[own[writing]] = length[writing]
            walking = ~writing & ~self.ending[own] & (self.at[own] >= length)
            walking &= grammar.hard | ~self._may_end()[own]
            node = self.node[own]
            last = np.where(walking, ends.chain[node], node)
            moved = last != node
            for n in np.flatnonzero(moved).tolist():
                below = ends.above[ends.first[node[n]]]
                pieces[going[n]].append(trie.token[below[trie.depth[node[n]] + 1 : trie.depth[last[n]] + 1]])
            self.node[own] = last
            complete = own[moved & trie.leaf[last]]
            if len(complete):
                self._complete(complete)
            going = going[(writing | moved) & ~(self.ending[own] & (self.at[own] >= end))]
        lengths = np.array([sum(map(len, some)) for some in pieces], np.int64)
        flat = np.concatenate([np.zeros(0, np.int32), *(one for some in pieces for one in some)])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return TokenRows(flat, offsets), np.asarray(self.ending[places] & (self.at[places] >= end))

    def _complete(self, places: Int64) -> None:
        """An item is there: on to the text before the next one, or to the end."""
        grammar = self.grammar
        end = grammar.ends.first[self.node[places]]
        self.taken[places, self.number[places]] = end
        self.number[places] += 1
        self.node[places] = self.at[places] = 0
        for place, own in zip(places.tolist(), end.tolist(), strict=True):
            request = int(self.request[place])
            if self.number[place] == grammar.count(request):
                self.ending[place] = True
            elif grammar.hard:
                ends, classes = grammar.classes(request)
                chosen = list(self.chosen[place])
                chosen[classes[np.searchsorted(ends, own)]] += 1
                self.chosen[place] = tuple(chosen)
                self.open[place] = grammar.open(request, chosen)

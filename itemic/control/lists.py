"""A list of items as a grammar: text between the items, and items that keep to the terms of their request.

What may come is counted below every node of the trie: the items of a request's open set, less those that the list has
already. The sets are rows of bits over the trie's ends in depth-first order, so what lies below a node is a slice, and
all samples are asked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from itemic.control.bits import Ends, Sets
from itemic.control.form import ListForm
from itemic.control.terms import Terms
from itemic.decode.abreast import Allowed
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.sid.trie import Trie

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

Mode = Literal["hard", "soft"]


@dataclass(frozen=True)
class ListTokens:
    """The tokens of a list but for its items.

    Attributes:
        before: what stands before the item at each place; as many rows as a list may have items.
        end: what stands behind the last item, such as the end of the turn.
    """

    before: TokenRows
    end: Int32

    @classmethod
    def of(cls, model: Model, form: ListForm, most: int) -> ListTokens:
        """As the model's own conversations have them.

        Raises:
            ConfigError: the tokenizer doesn't keep items and the text between them apart.
        """
        rows = [place % len(model.index) for place in range(most)]
        names = model.index.texts
        asked = [{"role": "user", "content": "?"}]
        said = {"role": "assistant", "content": form.text([names[row] for row in rows])}
        tokens, own = model.chat.encode([*asked, said])
        start = len(model.chat.prompt(asked))
        answer = np.array(tokens[start:], np.int32)[np.array(own[start:], np.bool_)].tolist()
        pieces, at = [], 0
        for row in rows:
            item = model.item_rows[row].tolist()
            place = _find(answer, item, at)
            if place < 0:
                raise ConfigError(
                    f"the tokenizer doesn't keep {names[row]!r} apart from the text around it in a list",
                    "Choose another separator.",
                )
            pieces.append(answer[at:place])
            at = place + len(item)
        return cls(TokenRows.of(pieces), np.array(answer[at:], np.int32))


def _find(tokens: list[int], item: list[int], start: int) -> int:
    for place in range(start, len(tokens) - len(item) + 1):
        if tokens[place : place + len(item)] == item:
            return place
    return -1


class ListGrammar:
    """Lists of items for many requests.

    Hard: exactly as many items as the terms say, all of their rows, none twice, shares met; whatever the model thinks.
    Soft: items of the catalogue, any of them, and as many as the model likes up to ``most``.

    Args:
        trie: of the items' token sequences, none of which begins another one.
        tokens: those of the text around them.
        terms: one for each request; None is soft.
        most: under soft, of items; as many as there are ``tokens.before`` where it isn't given.

    Raises:
        ConfigError: no tokens for so many items, or terms in which items share a name.
        ConstraintError: a sequence begins another one.
    """

    def __init__(
        self, trie: Trie, tokens: ListTokens, terms: Sequence[Terms] | None = None, *, most: int | None = None
    ) -> None:
        self.trie, self.ends, self.terms = trie, Ends(trie), terms
        longest = most or len(tokens.before) if terms is None else max((t.count for t in terms), default=1)
        if not 1 <= longest <= len(tokens.before):
            raise ConfigError(
                f"lists of {longest} items, with tokens for {len(tokens.before)}", "Make tokens for as many."
            )
        self.most = longest
        self.text = TokenRows.concat(
            [tokens.before.take(np.arange(longest)), TokenRows.of([tokens.end.tolist()])]
        )
        if terms is None and not len(tokens.end):
            raise ConfigError("soft lists that don't say where they end", "Give an end.")
        begins = {int(row[0]) for row in (self.text[k] for k in range(1, longest)) if len(row)}
        if any(not len(self.text[k]) for k in range(1, longest)):
            begins |= set(trie.token[trie.first[0] : trie.first[1]].tolist())
        if terms is None and int(tokens.end[0]) in begins:
            raise ConfigError(
                "soft lists whose end begins as what goes on", "Choose another separator, or another end."
            )
        self._sets = Sets(self.ends.count)
        self._known: dict[tuple[int, bytes], int] = {}
        self._places: dict[int, tuple[Int64, Int32]] = {}

    @property
    def hard(self) -> bool:
        """Whether terms are kept to."""
        return self.terms is not None

    @cached_property
    def most_tokens(self) -> int:
        """Tokens of the longest list."""
        return len(self.text.tokens) + self.most * int(self.trie.depth.max())

    def tokens(self) -> Int32:
        """All that lists are made of."""
        return np.concatenate([*self.trie.levels, self.text.tokens])

    def check(self, requests: int) -> None:
        """There must be terms for each request.

        Raises:
            ConfigError: there aren't.
        """
        if self.terms is not None and len(self.terms) != requests:
            raise ConfigError(
                f"terms of {len(self.terms)} requests for {requests}", "Give one for each prompt."
            )

    # ------------------------------------------------------------------------- many states, and single ones

    def states(self, requests: Int64) -> ListStates:
        """Before the first token of each."""
        return ListStates.begin(self, np.asarray(requests, np.int64))

    def start(self, request: int) -> ListStates:
        """The same of one request alone."""
        return self.states(np.array([request]))

    def allowed(self, state: ListStates) -> Int32:
        """What may follow the state of one."""
        return np.sort(state.allowed(slice(0, 1)).token).astype(np.int32)

    def step(self, state: ListStates, token: int) -> ListStates | None:
        """Where a token leads to; the state itself stays."""
        after = state.take(np.zeros(1, np.int64))
        return None if after.step(np.array([token]))[0] else after

    # ------------------------------------------------------------------------------------------ what is open

    def count(self, request: int) -> int:
        """How many items its list has; at most, under soft."""
        return self.most if self.terms is None else self.terms[request].count

    def classes(self, request: int) -> tuple[Int64, Int32]:
        """The ends of the items that may come, rising, and the class of each."""
        assert self.terms is not None
        if request not in self._places:
            terms = self.terms[request]
            ends = self.ends.of_rows[terms.rows]
            order = np.argsort(ends, kind="stable")
            ends = ends[order]
            if (ends[1:] == ends[:-1]).any():
                row = terms.rows[order[1:][ends[1:] == ends[:-1]][0]]
                raise ConfigError(
                    f"request {request} may get item row {row}, whose tokens are those of another one",
                    "Make its terms with the index's name_numbers.",
                )
            self._places[request] = ends, terms.classes[order]
        return self._places[request]

    def open(self, request: int, chosen: Sequence[int]) -> int:
        """The number of the set of ends that the next item may have, those that the list has already included."""
        if self.terms is None:
            return -1
        legal = self.terms[request].quotas.open(chosen)
        key = (request, legal.tobytes())
        if key not in self._known:
            ends, classes = self.classes(request)
            self._known[key] = self._sets.add(ends[legal[classes]])
        return self._known[key]

    @property
    def sets(self) -> Sets:
        """What may come, by number."""
        return self._sets

    # ----------------------------------------------------------------------------------------------- reading

    def read(self, written: TokenRows, requests: Int64 | None = None) -> list[Int32]:
        """The rows of the items in each list that was written under this grammar, in order; of items that share their
        tokens the one that its terms mean. A list that was cut off has those that are complete.

        Args:
            written: without the prompts.
            requests: whose they are, int64; None where there is one of each.
        """
        whose = np.arange(len(written)) if requests is None else requests
        return [self._read(written[row].tolist(), int(request)) for row, request in enumerate(whose)]

    def _read(self, tokens: list[int], request: int) -> Int32:
        found: list[int] = []
        at, limit = 0, self.count(request)
        while len(found) < limit:
            at += len(self.text[len(found)])
            node = 0
            while at < len(tokens) and not self.trie.leaf[node]:
                low, high = self.trie.first[node : node + 2]
                place = int(low + np.searchsorted(self.trie.token[low:high], tokens[at]))
                if place == high or self.trie.token[place] != tokens[at]:
                    return np.array(found, np.int32)  # it ends
                node, at = place, at + 1
            if not self.trie.leaf[node]:
                break
            own = self.trie.items[self.trie.item_first[node] : self.trie.item_first[node + 1]]
            if self.terms is not None and len(own) > 1:
                own = own[np.isin(own, self.terms[request].rows)]
            found.append(int(own[0]))
        return np.array(found, np.int32)


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
        if not self.grammar.hard:
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

"""A list of items as a grammar: text between the items, and items that keep to the terms of their request.

Where many lists are, and what may come next in all of them at once, is in :mod:`itemic.control.states`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from itemic.control.bits import Ends, Sets
from itemic.control.form import ListForm
from itemic.control.states import ListStates
from itemic.control.terms import Terms
from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.sid.trie import Trie

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


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
    Soft: items of the catalogue, any of them, and as many as the model likes up to ``most``; where it is said what has
    been ``seen``, nothing of that, and none twice.

    Args:
        trie: of the items' token sequences, none of which begins another one.
        tokens: those of the text around them.
        terms: one for each request; None is soft.
        most: under soft, of items; as many as there are ``tokens.before`` where it isn't given.
        seen: under soft, for each request the rows that must not come, such as its history; an item that shares its
            name with one of them doesn't either. None lets everything come, and again.

    Raises:
        ConfigError: no tokens for so many items, or terms in which items share a name.
        ConstraintError: a sequence begins another one.
    """

    def __init__(
        self,
        trie: Trie,
        tokens: ListTokens,
        terms: Sequence[Terms] | None = None,
        *,
        most: int | None = None,
        seen: Sequence[npt.NDArray[np.integer] | Sequence[int]] | None = None,
    ) -> None:
        self.trie, self.ends, self.terms, self.seen = trie, Ends(trie), terms, seen
        if terms is not None and seen is not None:
            raise ConfigError("terms say what may come, and so does what was seen", "Leave one of them out.")
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
        for request, rows in enumerate(seen or ()):
            if self.ends.count - len(np.unique(self.ends.of_rows[np.asarray(rows, np.int64)])) < longest:
                raise ConfigError(
                    f"lists of up to {longest} different items, of which request {request} has seen too many",
                    "Ask for shorter lists.",
                )
        self._sets = Sets(self.ends.count)
        self._known: dict[tuple[int, bytes], int] = {}
        self._places: dict[int, tuple[Int64, Int32]] = {}

    @property
    def hard(self) -> bool:
        """Whether terms are kept to."""
        return self.terms is not None

    @property
    def distinct(self) -> bool:
        """Whether no item may come twice."""
        return self.hard or self.seen is not None

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
        for what, given in (("terms", self.terms), ("what was seen", self.seen)):
            if given is not None and len(given) != requests:
                raise ConfigError(
                    f"{what} of {len(given)} requests for {requests}", "Give one for each prompt."
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
            return self._unseen(request)
        legal = self.terms[request].quotas.open(chosen)
        key = (request, legal.tobytes())
        if key not in self._known:
            ends, classes = self.classes(request)
            self._known[key] = self._sets.add(ends[legal[classes]])
        return self._known[key]

    def _unseen(self, request: int) -> int:
        """Under soft: the set of ends of what was not seen; -1 for all."""
        if self.seen is None:
            return -1
        key = (request, b"")
        if key not in self._known:
            left = np.ones(self.ends.count, np.bool_)
            left[self.ends.of_rows[np.asarray(self.seen[request], np.int64)]] = False
            self._known[key] = self._sets.add(np.flatnonzero(left))
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

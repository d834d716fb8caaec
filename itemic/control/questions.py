"""What test tasks ask of whom: wants that are drawn by the seed, and what they come to.

What is wanted comes from the history, from the catalogue, or from a list that somebody wrote after the history; never
from the item that is to be found, but under ``oracle``, which is RecLM-gen's protocol.

- *With* a label: one drawn from the catalogue. *Without* one: the label that most of a list is of (the model's own, the
  teacher's, or the history).
- A *share*: of a label of the history's items, drawn.
- *Ranking*: the item to be found stands among the others, for it must; where is drawn.

A label must leave enough items for the list. Where one doesn't, the next one is taken; where none does, the request is
skipped and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import numpy.typing as npt

from itemic.control.labels import Labels
from itemic.control.terms import Terms, TermsOf
from itemic.control.tests import ControlTest, ListTests
from itemic.control.want import PartOf, Want
from itemic.data.sequences import Requests
from itemic.errors import ConstraintError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

TRIES = 50  # labels that are tried for a request


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of one user.

    Attributes:
        request: its number among those that are tested.
        want: what is wanted.
        terms: what it comes to after the whole history.
        shown: int32, the part of the history that the prompt shows.
    """

    request: int
    want: Want
    terms: Terms
    shown: Int32


@dataclass(frozen=True, eq=False)
class Questions:
    """What a test task asks; ``skipped`` counts why requests aren't asked."""

    test: ControlTest
    asked: list[Question]
    skipped: Counter[str]


class Drawer:
    """Draws what is asked.

    Args:
        settings: how.
        requests: those that are tested.
        numbers: int64 ``[R]``, of each among all requests of the split; what is drawn for one depends on it and the
            seed.
        labels: of the catalogue.
        usable: numbers of the labels that may be said.
        names: of all items, :attr:`itemic.sid.names.ItemNames.name_numbers`, where some share one.
        candidates: of users, rows.
        seed: of what is drawn.
    """

    def __init__(
        self,
        settings: ListTests,
        requests: Requests,
        numbers: Int64,
        labels: Labels,
        usable: Int64,
        *,
        names: Int64 | None = None,
        candidates: Mapping[str, Int32] | None = None,
        seed: int = 0,
    ) -> None:
        self.settings, self.requests, self.numbers, self.labels = settings, requests, numbers, labels
        self.usable, self.names, self.seed = usable, names, seed
        self.candidates = candidates or {}
        self.terms_of = TermsOf(labels, names=names, shorter=True)
        self._may = frozenset(usable.tolist())

    def draw(
        self, test: ControlTest, topk: int, max_items: int, lists: Sequence[Int32] | None = None
    ) -> Questions:
        """What the test asks of each request.

        Args:
            test: the task.
            topk: items of a list.
            max_items: of a history that the prompt shows.
            lists: for ``without``, what somebody said to each request.
        """
        asked: list[Question] = []
        skipped: Counter[str] = Counter()
        for row, number in enumerate(self.numbers.tolist()):
            history = self.requests.history(row)
            rng = np.random.default_rng([self.seed, crc32(test.name.encode()), number])
            said = None if lists is None else lists[row]
            try:
                want, terms = self._ask(test, topk, row, history, said, rng)
            except _Nothing as reason:
                skipped[str(reason)] += 1
                continue
            asked.append(Question(row, want, terms, history[-max_items:]))
        return Questions(test, asked, skipped)

    def _ask(
        self,
        test: ControlTest,
        count: int,
        row: int,
        history: Int32,
        said: Int32 | None,
        rng: np.random.Generator,
    ) -> tuple[Want, Terms]:
        if test.kind == "plain":
            return self._as_many(Want(count=count), history)
        if test.kind == "count":
            more = int(rng.integers(count + 1, max(self.settings.most, count + 1) + 1))
            return self._as_many(Want(count=more), history)
        if test.kind == "ranking":
            return self._as_many(self._ranked(count, row, history, rng), history)
        finest = None
        if self.settings.protocol == "oracle":
            target = int(self.requests.targets[row])
            finest = int(self.labels.finest_labels[target]) if target >= 0 else -1
            if finest < 0:
                raise _Nothing("nothing is known of the target's category")
        if test.kind == "with":
            return self._first(
                self._any(finest, rng), lambda name: Want(count=count, wanted=(name,)), history
            )
        if test.kind == "without":
            some = self._frequent(said, history, finest, rng)
            return self._first(some, lambda name: Want(count=count, unwanted=(name,)), history)
        assert test.how is not None
        part = PartOf("", test.how, test.portion)
        some = self._of_history(finest, history, rng)
        if test.kind == "share":
            return self._first(
                some, lambda name: Want(count=count, shares=(replace(part, label=name),)), history
            )
        return self._both(part, count, history, finest, rng)

    def _as_many(self, want: Want, history: Int32) -> tuple[Want, Terms]:
        """The want, or one for as many as there are."""
        try:
            terms = self.terms_of(want, history)
        except ConstraintError:
            raise _Nothing("nothing is left that could come") from None
        if not terms.short:
            return want, terms
        fewer = replace(want, count=terms.count)
        return fewer, self.terms_of(fewer, history)

    def _first(
        self, numbers: Iterator[int], want_of: Callable[[str], Want], history: Int32
    ) -> tuple[Want, Terms]:
        """Of the first label that leaves enough items."""
        for _, number in zip(range(TRIES), numbers, strict=False):
            want = want_of(self.labels.names[number])
            try:
                terms = self.terms_of(want, history)
            except ConstraintError:
                continue
            if not terms.short:
                return want, terms
        raise _Nothing("no label leaves enough items")

    def _any(self, finest: int | None, rng: np.random.Generator) -> Iterator[int]:
        """The target's label under the oracle; else any in an order that is drawn."""
        if finest is not None:
            return iter([finest] if finest in self._may else [])
        return iter(rng.permutation(self.usable).tolist())

    def _frequent(
        self, said: Int32 | None, history: Int32, finest: int | None, rng: np.random.Generator
    ) -> Iterator[int]:
        """The labels of a list by how often they come; then those of the history, then any."""
        told = [] if said is None else said[said >= 0].tolist()
        found: dict[int, None] = {}
        for rows in (told, history[::-1].tolist()):
            counts = Counter(int(self.labels.finest_labels[item]) for item in rows)
            found |= dict.fromkeys(number for number, _ in counts.most_common())
        found |= dict.fromkeys(rng.permutation(self.usable).tolist())
        return (number for number in found if number in self._may and number != finest)

    def _of_history(self, finest: int | None, history: Int32, rng: np.random.Generator) -> Iterator[int]:
        """The history's labels in an order that is drawn, then any."""
        if finest is not None:
            return iter([finest] if finest in self._may else [])
        own = {int(number) for item in set(history.tolist()) for number in self.labels.numbers_of(item)}
        first = rng.permutation(sorted(own & self._may)).tolist()
        rest = rng.permutation(self.usable).tolist()
        return iter(dict.fromkeys([*map(int, first), *rest]))

    def _both(
        self, part: PartOf, count: int, history: Int32, finest: int | None, rng: np.random.Generator
    ) -> tuple[Want, Terms]:
        """A label that is wanted, and a share of another one that some of its items have and some haven't."""
        for _, outer in zip(range(TRIES), self._any(finest, rng), strict=False):
            rows = self.labels.rows_of(outer)
            have = np.bincount(self.labels.matrix[rows].indices, minlength=len(self.labels))
            splits = np.flatnonzero((have > 0) & (have < len(rows)))
            some = rng.permutation([number for number in splits.tolist() if number in self._may]).tolist()
            name = self.labels.names[outer]
            try:
                return self._first(
                    iter(map(int, some)),
                    lambda own, name=name: Want(  # type: ignore[misc]
                        count=count, wanted=(name,), shares=(replace(part, label=own),)
                    ),
                    history,
                )
            except _Nothing:
                continue
        raise _Nothing("no label leaves enough items")

    def _ranked(self, count: int, row: int, history: Int32, rng: np.random.Generator) -> Want:
        """The item to be found among others."""
        target = int(self.requests.targets[row])
        number = np.arange(self.labels.items) if self.names is None else self.names
        known = set(number[history].tolist())
        if target < 0 or int(number[target]) in known:
            raise _Nothing("there is nothing new to be found")
        own = self.candidates.get(str(self.requests.users[row]))
        if own is not None and len(own):
            others, most = own.tolist(), len(own) + 1
        else:
            others, most = rng.permutation(self.labels.items).tolist(), self.settings.candidates
        known.add(int(number[target]))
        some = [target]
        for item in others:
            if len(some) == most:
                break
            if int(number[item]) not in known:
                known.add(int(number[item]))
                some.append(int(item))
        order = tuple(some[place] for place in rng.permutation(len(some)).tolist())
        return Want(count=min(count, len(some)), candidates=order)


class _Nothing(Exception):
    """Why a request isn't asked."""

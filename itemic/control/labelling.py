"""What the sequential teacher answers to requests: the best items of a list that keeps to its terms.

The rule: place by place, the item that the teacher scores highest among those with which the list can still be
completed (its count and its shares); of equals the one in the lowest row. So an item that is asked for comes as early
as the teacher has it, and one that a share has no room for is passed over. Where there are no shares these are the
teacher's best items. It is what the list grammar makes of a model that scores as the teacher does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.control.labels import Labels
from itemic.control.terms import Terms, TermsOf
from itemic.control.want import Want
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, ConstraintError
from itemic.teacher.teacher import Teacher

Float = npt.NDArray[np.floating]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

NONE = np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False)
class Labelled:
    """The answers of some requests.

    Attributes:
        items: int32 rows, best first, of each; empty where a request was skipped.
        terms: what each keeps to; None where a request was skipped.
        skipped: why requests were skipped, and how many for each reason.
    """

    items: list[Int32]
    terms: list[Terms | None]
    skipped: Counter[str]

    def __repr__(self) -> str:
        return f"<Labelled: {len(self.items):,}, {self.short:,} short, {self.skipped.total():,} skipped>"

    @property
    def short(self) -> int:
        """How many lists have fewer items than were wanted."""
        return sum(terms.short > 0 for terms in self.terms if terms is not None)


class Labeller:
    """Answers requests in batches, in process.

    Args:
        teacher: whose scores decide.
        labels: of its catalogue.
        names: int64 ``[n]``, :attr:`itemic.sid.names.ItemNames.name_numbers`; None where all differ.
        shorter: whether a list may have fewer items where so many can't be had; else such a request is skipped.

    Raises:
        ConfigError: labels and teacher are of different numbers of items.
    """

    def __init__(
        self, teacher: Teacher, labels: Labels, *, names: Int64 | None = None, shorter: bool = False
    ) -> None:
        if labels.items != len(teacher.item_ids):
            raise ConfigError(
                f"labels of {labels.items} items with a teacher of {len(teacher.item_ids)}",
                "Make both of the same dataset.",
            )
        self.teacher, self.terms_of = teacher, TermsOf(labels, names=names, shorter=shorter)

    def __call__(
        self, requests: Requests, wants: Sequence[Want], *, first: Sequence[int] | Int32 | None = None
    ) -> Labelled:
        """The teacher's list for each request; nothing of its history comes.

        Args:
            requests: ``R`` histories; targets aren't looked at.
            wants: one for each.
            first: ``R`` rows that come first where they fit; -1 for none.

        Raises:
            ConfigError: there isn't a want for each request, or a label isn't there.
            IndexMismatchError: the requests are of another catalogue.
        """
        if len(wants) != len(requests):
            raise ConfigError(f"{len(wants)} wants for {len(requests)} requests", "Give one for each.")
        histories = [requests.history(number) for number in range(len(requests))]
        scores = (row for _, part in self.teacher.score_batches(requests) for row in part)
        return label(self.terms_of, wants, histories, scores, first)


def label(
    terms_of: TermsOf,
    wants: Sequence[Want],
    histories: Sequence[Int32],
    scores: Iterable[Float],
    first: Sequence[int] | Int32 | None = None,
) -> Labelled:
    """The same under any scores, ``[n]`` of each request."""
    items: list[Int32] = []
    found: list[Terms | None] = []
    skipped: Counter[str] = Counter()
    ahead = np.full(len(wants), -1) if first is None else np.asarray(first)
    for want, history, row, own in zip(wants, histories, scores, ahead.tolist(), strict=True):
        try:
            terms = terms_of(want, history)
        except ConstraintError as error:
            skipped[error.message] += 1
            items.append(NONE)
            found.append(None)
            continue
        items.append(pick(terms, row, own, terms_of.names))
        found.append(terms)
    return Labelled(items, found, skipped)


def pick(terms: Terms, scores: Float, first: int = -1, names: Int64 | None = None) -> Int32:
    """The list of the highest scores that keeps to the terms, by the rule above.

    Args:
        terms: what it keeps to.
        scores: ``[n]``, of all items.
        first: a row that comes first where it fits; -1 for none.
        names: of all items, int64 ``[n]``: the item of the terms that has the name of ``first`` stands for it.

    Returns:
        int32 ``[terms.count]``, rows.
    """
    rows, quotas, count = terms.rows, terms.quotas, terms.count
    place = _place_of(rows, first, names)
    own = scores[rows]
    if len(quotas.sizes) == 1:
        if place >= 0:
            own[place] = np.inf
        return rows[_highest(own, count)]
    heads = [np.flatnonzero(terms.classes == kind) for kind in range(len(quotas.sizes))]
    heads = [some[_highest(own[some], count)] for some in heads]
    queues = [some.tolist() for some in heads]
    values = [own[some].tolist() for some in heads]
    at, chosen = [0] * len(queues), [0] * len(queues)
    found: list[int] = []
    if place >= 0 and quotas.open(chosen)[kind := int(terms.classes[place])]:
        found.append(place)
        chosen[kind] += 1
    while len(found) < count:
        best, kind = -1, -1
        for number, free in enumerate(quotas.open(chosen).tolist()):
            queue = queues[number]
            while at[number] < len(queue) and found and queue[at[number]] == found[0]:
                at[number] += 1  # it stands first already
            if not free or at[number] >= len(queue):
                continue
            better = kind < 0 or values[number][at[number]] > values[kind][at[kind]]
            if better or (values[number][at[number]] == values[kind][at[kind]] and queue[at[number]] < best):
                best, kind = queue[at[number]], number
        found.append(best)
        at[kind] += 1
        chosen[kind] += 1
    return rows[found]


def _place_of(rows: Int32, first: int, names: Int64 | None) -> int:
    if first < 0:
        return -1
    same = np.flatnonzero(rows == first if names is None else names[rows] == names[first])
    return int(same[0]) if len(same) else -1


def _highest(scores: Float, count: int) -> Int64:
    """Places of the highest, best first, of equals the lower place."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        some = np.flatnonzero(scores >= least)
    else:
        some = np.arange(len(scores))
    return some[np.argsort(-scores[some], kind="stable")[:count]]

"""Tasks that want a share of the list to be of a category.

How many items of it the list has is the number that is stated, or one stricter: with ``at most 3 of 10``, 3 or 2.
Where they stand is the teacher's choice, as in RecLM-gen, or, ``grouped``, they stand together: first where they are
wanted (at least, about), last where they are limited (at most). So a place's number says what comes there, and a small
model needn't count what it has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from itemic.control.labelling import Labelled
from itemic.control.labels import Labels
from itemic.control.tasks.kinds import OfKinds
from itemic.control.tasks.task import OfHistory, Sample, WithoutHistory, usable
from itemic.control.tasks.windows import Windows, targets_of
from itemic.control.want import How, PartOf, Want
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.tasks.catalogue import Catalogue

Int32 = np.typing.NDArray[np.int32]
Int64 = np.typing.NDArray[np.int64]

# what each kind says, and which way is stricter; LC and MC count items where LP and MP tell a portion, and a want knows
# portions alone, so that these are of whole items as well
KINDS: dict[str, tuple[How, int]] = {
    "LP": ("at most", -1),
    "MP": ("at least", 1),
    "LC": ("at most", -1),
    "MC": ("at least", 1),
    "EP": ("about", 0),
}


ORDERS = ("teacher", "grouped")


@dataclass(frozen=True)
class _Rates(OfKinds):
    """What both have.

    Attributes:
        order: ``teacher``, or ``grouped`` for the items of the category to stand together.
        stricter: how often a list holds one item less than *at most* and one more than *at least* say, where a model
            that is one off still keeps to it; else it holds as many as are said. RecLM-gen's is one half.
    """

    order: str = "teacher"
    stricter: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.topk < 3:
            raise ConfigError(
                f"task {self.name}: topk is {self.topk}, of which there are no shares", "Give 3 or more."
            )
        if self.draws != 1:
            raise ConfigError(
                f"task {self.name}: draws is {self.draws}, and its lists all have topk items", "Leave it out."
            )
        if self.order not in ORDERS:
            raise ConfigError(
                f"task {self.name}: order is {self.order!r}", f"Give one of {', '.join(ORDERS)}."
            )
        if not 0 <= self.stricter <= 1:
            raise ConfigError(
                f"task {self.name}: stricter is {self.stricter}, which is no share",
                "Give a number from 0 to 1.",
            )

    def answers(
        self,
        windows: Windows,
        samples: Sequence[Sample],
        catalogue: Catalogue,
        train: Sequences,
        rng: np.random.Generator,
    ) -> Labelled:
        found = super().answers(windows, samples, catalogue, train, rng)
        if self.order == "teacher":
            return found
        lists = zip(found.items, samples, strict=True)
        return replace(found, items=[_grouped(items, own.want, self.knows.labels) for items, own in lists])


def _grouped(items: Int32, want: Want, labels: Labels) -> Int32:
    """A list with the items that its share is of together, both sides in the order that they have."""
    part = want.shares[0]
    inside = labels.mask(labels.number(part.label))[items]
    sides = items[inside], items[~inside]
    return np.concatenate(sides[::-1] if part.how == "at most" else sides)


@dataclass(frozen=True)
class CategoryRate(_Rates, WithoutHistory):
    """``topk`` items of which at most (``LP``, ``LC``) or at least (``MP``, ``MC``) a share is of a category, without a
    history: any that fit."""

    name: ClassVar[str] = "SFTCategoryRate"
    drawn: ClassVar[tuple[str, ...]] = ("LP", "MP", "LC", "MC")
    leads: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(drawn, ("",))

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        known = usable(self.knows.labels, catalogue)
        if not len(known):
            return [None] * len(windows)
        none = np.full(len(windows), -1, np.int32)
        return _rates(self, rng.choice(_large(self, known), len(windows)), none, rng)


@dataclass(frozen=True)
class PersonalCategoryRate(_Rates, OfHistory):
    """A history, and ``topk`` items of which at most (``LP``), at least (``MP``) or about (``EP``) a share is of a
    category: the teacher's best within it and without, before them the item that came next where it fits.

    The category is every second time one of the history's, else any.
    """

    name: ClassVar[str] = "SFTPersonalCategoryRate"
    drawn: ClassVar[tuple[str, ...]] = ("LP", "MP", "EP")
    leads: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(drawn, ("",))

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        labels = self.knows.labels
        known = usable(labels, catalogue)
        if not len(known):
            return [None] * len(windows)
        large = _large(self, known)
        numbers = rng.choice(large, len(windows))
        own, lots = set(large.tolist()), rng.random((2, len(windows)))
        for place in np.flatnonzero(lots[0] < 0.5).tolist():
            history = train.items[windows.start[place] : windows.stop[place]]
            some = sorted({int(n) for row in history.tolist() for n in labels.numbers_of(row)} & own)
            if some:
                numbers[place] = some[int(lots[1][place] * len(some))]
        return _rates(self, numbers, targets_of(windows, train), rng)


def _large(task: _Rates, known: Int64) -> Int64:
    """Labels that ``topk`` items have and as many haven't; all where there are none."""
    sizes = task.knows.labels.sizes[known]
    large = known[(sizes >= task.topk) & (task.knows.labels.items - sizes >= task.topk)]
    return large if len(large) else known


def _rates(
    task: _Rates, numbers: Int64, targets: np.typing.NDArray[np.int32], rng: np.random.Generator
) -> list[Sample | None]:
    """Requests for shares of each label, the kinds as often as the task says."""
    names, count = task.knows.labels.names, task.topk
    odds = None if task.kinds is None else task.odds
    kinds = rng.choice(list(task.drawn), len(numbers), p=odds).tolist()
    stated = rng.integers(1, count, len(numbers)).tolist()
    stricter = rng.integers(2, size=len(numbers))
    if task.stricter != 0.5:  # as many of these even draws are decided anew as that takes
        anew = rng.random(len(numbers)) < abs(2 * task.stricter - 1)
        stricter[anew] = task.stricter > 0.5
    found: list[Sample | None] = []
    for number, kind, told, more, target in zip(
        numbers.tolist(), kinds, stated, stricter.tolist(), targets.tolist(), strict=True
    ):
        how, way = KINDS[kind]
        label = names[number]
        there = told + way * more
        want = Want(count=count, shares=(PartOf(label, how, told / count),))
        exact = Want(count=count, shares=(PartOf(label, "about", there / count),))
        found.append(Sample(kind, want, exact, target))
    return found

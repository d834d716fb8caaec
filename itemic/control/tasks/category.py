"""Tasks that want items of a category, or none of one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from itemic.control.labelling import Labeller
from itemic.control.tasks.kinds import OfKinds
from itemic.control.tasks.task import LABEL_OF, OfHistory, Sample, WithoutHistory, names_of, usable
from itemic.control.tasks.windows import Windows, requests_of, targets_of
from itemic.control.want import Want
from itemic.data.sequences import Sequences
from itemic.tasks.catalogue import Catalogue

WITHIN, WITHOUT = "+", "-"


@dataclass(frozen=True)
class _Signed(OfKinds):
    """What both have."""

    drawn: ClassVar[tuple[str, ...]] = (WITHIN, WITHOUT)

    def signs(self, samples: int, rng: np.random.Generator) -> list[bool]:
        """Whether each sample wants items of its category."""
        within: list[bool] = (rng.random(samples) < self.odds[0]).tolist()
        return within


@dataclass(frozen=True)
class ControlRec(_Signed, WithoutHistory):
    """Some items of a category (``+``), or of none (``-``), without a history: any that fit."""

    name: ClassVar[str] = "SFTControlRec"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {WITHIN: ("",), WITHOUT: ("",)}

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        return self._lists(self.counts(len(windows), rng), len(windows), catalogue, rng)

    def _lists(
        self, counts: object, samples: int, catalogue: Catalogue, rng: np.random.Generator
    ) -> list[Sample | None]:
        labels = self.knows.labels
        known = usable(labels, catalogue)
        if not len(known):
            return [None] * samples
        own = rng.choice(known, samples).tolist()
        within = self.signs(samples, rng)
        return [
            _wanted(labels.names[number], plus, count)
            for number, plus, count in zip(own, within, counts, strict=True)  # type: ignore[call-overload]
        ]


@dataclass(frozen=True)
class ControlRecRe(ControlRec):
    """The same, every second time of one item alone; and the category of an item."""

    name: ClassVar[str] = "SFTControlRec_re"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {WITHIN: ("",), WITHOUT: ("",), LABEL_OF: ("",)}

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        counts = [
            1 if alone else count
            for alone, count in zip(
                rng.random(len(windows)) < 0.5, self.counts(len(windows), rng), strict=True
            )
        ]
        samples = self._lists(counts, len(windows), catalogue, rng)
        labels = self.knows.labels
        sayable = np.isin(labels.finest_labels, usable(labels, catalogue))
        items = np.flatnonzero(sayable)
        if not len(items):
            return samples
        asked = (rng.random(len(windows)) < 1 / 3).tolist()
        own = rng.choice(items, len(windows)).tolist()
        return [
            Sample(LABEL_OF, Want(count=1), items=(item,)) if about else sample
            for sample, about, item in zip(samples, asked, own, strict=True)
        ]


@dataclass(frozen=True)
class PersonalControlRec(_Signed, OfHistory):
    """A history, and items of a category (``+``) or of none (``-``): the teacher's best of those, before them the item
    that came next where it is one of them.

    The category of ``+`` is drawn at random, that of ``-`` is the one that most of what the teacher would say is of.
    """

    name: ClassVar[str] = "SFTPersonalControlRec"
    leads: ClassVar[dict[str, tuple[str, ...]]] = {WITHIN: ("",), WITHOUT: ("",)}

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        labels, teacher = self.knows.labels, self.knows.teacher
        assert teacher is not None  # it asks one
        known = usable(labels, catalogue)
        if not len(known):
            return [None] * len(windows)
        numbers = rng.choice(known, len(windows))
        within = self.signs(len(windows), rng)
        without = [place for place, plus in enumerate(within) if not plus]
        if without:
            labeller = Labeller(teacher, labels, names=names_of(catalogue), shorter=True)
            asked = requests_of(windows.take(without), train, teacher)
            said = labeller(asked, [Want(count=self.topk)] * len(without))
            allowed = set(known.tolist())
            for place, items in zip(without, said.items, strict=True):
                numbers[place] = most_common(labels.finest_labels[items].tolist(), allowed)
        return [
            None if number < 0 else _wanted(labels.names[number], plus, count, target)
            for number, plus, count, target in zip(
                numbers.tolist(),
                within,
                self.counts(len(windows), rng),
                targets_of(windows, train).tolist(),
                strict=True,
            )
        ]


def most_common(numbers: list[int], allowed: set[int]) -> int:
    """The most frequent of the allowed numbers, of equals the one that comes first; -1 where there is none."""
    counts = Counter(number for number in numbers if number in allowed)
    return counts.most_common(1)[0][0] if counts else -1


def _wanted(label: str, within: bool, count: int, first: int = -1) -> Sample:
    if within:
        return Sample(WITHIN, Want(count=count, wanted=(label,)), first=first)
    return Sample(WITHOUT, Want(count=count, unwanted=(label,)), first=first)

"""Tasks that want nothing but a number of items after a history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from itemic.control.tasks.task import OfHistory, Sample
from itemic.control.tasks.windows import Windows, targets_of
from itemic.control.want import Want
from itemic.data.sequences import Sequences
from itemic.errors import ConfigError
from itemic.tasks.catalogue import Catalogue


@dataclass(frozen=True)
class SeqRec(OfHistory):
    """The item that came next, then the teacher's best, 1 to ``topk`` items together."""

    name: ClassVar[str] = "SFTSeqRec"

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        counts = self.counts(len(windows), rng)
        targets = targets_of(windows, train).tolist()
        return [
            Sample("list", Want(count=count), first=target)
            for count, target in zip(counts, targets, strict=True)
        ]


@dataclass(frozen=True)
class ItemCount(OfHistory):
    """The same of ``topk + 1`` to ``most`` items: numbers that other tasks don't ask for.

    Attributes:
        most: items of the longest list.
    """

    most: int = 15

    name: ClassVar[str] = "SFTItemCount"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.most, int) or self.most <= self.topk:
            raise ConfigError(
                f"task {self.name}: most is {self.most!r} with topk {self.topk}", "Give more than topk."
            )

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        counts = self.counts(len(windows), rng, least=self.topk + 1, most=self.most)
        targets = targets_of(windows, train).tolist()
        return [
            Sample("list", Want(count=count), first=target)
            for count, target in zip(counts, targets, strict=True)
        ]


@dataclass(frozen=True)
class SeqRecPALR(OfHistory):
    """The items that really came next, 1 to ``topk`` of them; what the history shows already is left out."""

    name: ClassVar[str] = "SFTSeqRecPALR"
    asks_teacher: ClassVar[bool] = False

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        names = catalogue.index.name_numbers
        found: list[Sample | None] = []
        for user, start, stop, count in zip(
            windows.user.tolist(),
            windows.start.tolist(),
            windows.stop.tolist(),
            self.counts(len(windows), rng),
            strict=True,
        ):
            told = set(names[train.items[start:stop]].tolist())
            later: list[int] = []
            for item in train.items[stop : train.offsets[user + 1]].tolist():
                if int(names[item]) not in told:
                    told.add(int(names[item]))
                    later.append(item)
            some = tuple(later[:count])
            found.append(Sample("list", Want(count=len(some)), items=some) if some else None)
        return found


@dataclass(frozen=True)
class SeqRanking(OfHistory):
    """The best of some candidates: the item that came next among others drawn at random, and then the teacher's order.

    Attributes:
        candidates: how many there are; smaller where the catalogue hasn't so many.
    """

    candidates: int = 20

    name: ClassVar[str] = "SFTSeqRanking"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.candidates, int) or self.candidates < 2:
            raise ConfigError(
                f"task {self.name}: candidates is {self.candidates!r}", "Give a number from 2 on."
            )

    def draw(
        self, windows: Windows, catalogue: Catalogue, train: Sequences, rng: np.random.Generator
    ) -> list[Sample | None]:
        names = catalogue.index.name_numbers
        found: list[Sample | None] = []
        counts = self.counts(len(windows), rng)
        for start, stop, count in zip(windows.start.tolist(), windows.stop.tolist(), counts, strict=True):
            history, target = train.items[start:stop], int(train.items[stop])
            known = set(names[history].tolist())
            if int(names[target]) in known:
                found.append(None)  # it is nothing new
                continue
            known.add(int(names[target]))
            some = [target]
            for item in rng.permutation(len(names))[: 4 * self.candidates].tolist():
                if len(some) == self.candidates:
                    break
                if int(names[item]) not in known:
                    known.add(int(names[item]))
                    some.append(item)
            order = tuple(some[place] for place in rng.permutation(len(some)).tolist())
            want = Want(count=min(count, len(some)), candidates=order)
            found.append(Sample("list", want, first=target))
        return found

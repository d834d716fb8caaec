"""What the loop asks of its data: steps of blocks, how much they are, and where they go on."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Ahead(NamedTuple):
    """Where training stands when a step is done: the next step's epoch, and the data gone through, in epochs."""

    epoch: int
    progress: float


@dataclass(frozen=True)
class Sizes:
    """How much a step is.

    Attributes:
        weight: the sum of the weights of all blocks (:attr:`itemic.training.objective.Cost.weight`): what the step's
            loss is divided by.
        blocks: how many blocks.
        counts: what else there is of, by name: tokens, targets, rows. Every step of a source names the same ones in the
            same order, on every rank, also where there is none of it.
    """

    weight: float = 0.0
    blocks: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Sizes) -> Sizes:
        names = {**self.counts, **other.counts}
        counts = {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in names}
        return Sizes(self.weight + other.weight, self.blocks + other.blocks, counts)

    @classmethod
    def sum(cls, sizes: Iterable[Sizes]) -> Sizes:
        """The sizes of all ranks together."""
        return sum(sizes, cls())


@dataclass(frozen=True)
class Step:
    """One optimizer step's data.

    Attributes:
        blocks: those of this rank, of the objective's own type; a rank may have none.
        sizes: of these blocks.
        state: plain JSON: where this rank's steps go on after this one.
        after: the same for people, and for the loop, which ends by it.
    """

    blocks: tuple[Any, ...]
    sizes: Sizes
    state: dict[str, Any]
    after: Ahead


class StepSource(Protocol):
    """Where a training gets its steps.

    A step is asked for when the one before it is done. A source that makes its steps then, and not ahead of time, may
    compute with the weights of that moment.
    """

    def total_steps(self) -> int:
        """Steps of the whole training, about; the same on every rank."""

    def steps(
        self, state: dict[str, Any] | None = None, rank: int = 0, size: int = 1
    ) -> Generator[Step, None, None]:
        """The steps after the one whose ``state`` is given, or all; of each the blocks of this rank. All ranks together
        have the same blocks in a step, however many they are."""

    def merged(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The state of all ranks, of those that each of them has."""

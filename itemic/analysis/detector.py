"""What a detector is: a pure function that says which requests show a pattern, with its definition and source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from itemic.analysis.evidence import Bools, Evidence
from itemic.settings import Amount, Count, PartOfOne, Positive, Share, settings

Need = Literal["labels", "codes", "text", "model"]


@settings(frozen=True)
class Thresholds:
    """Where a pattern begins. Each detector's definition names what it reads.

    Attributes:
        cold: an item that training saw at most so often is cold.
        tail: the rarest items that make up this share of training's interactions are the long tail.
        head: the most frequent items that make up this share of training's interactions are the head.
        short: a history of at most so many items is short.
        recent: how many of the last items count as recent.
        mostly: the share of a list from which on it is mostly so.
        hardly: the share of a list up to which it hardly is so.
        repeated: the share of a list from which on it mostly repeats the history.
        crowded: a prefix is crowded where it has this many times the items of the median item's prefix.
        window: how far apart two items may stand in training to count as a transition.
        words: an item whose title and description have fewer words lacks text.
    """

    cold: Amount = 1
    tail: Share = 0.2
    head: Share = 0.5
    short: Count = 5
    recent: Count = 1
    mostly: Annotated[PartOfOne, Field(gt=0)] = 0.8
    hardly: PartOfOne = 0.1
    repeated: Annotated[PartOfOne, Field(gt=0)] = 0.3
    crowded: Annotated[Positive, Field(ge=1)] = 2.0
    window: Count = 3
    words: Count = 1


@dataclass(frozen=True)
class Found:
    """What a detector found.

    Attributes:
        flags: bool ``[R]``, the requests that show the pattern.
        values: numbers ``[R]`` by name, which the detector's sentence of a case shows.
        able: bool ``[R]``, the requests that could show it at all (shares are of these); None for all.
    """

    flags: Bools
    values: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    able: Bools | None = None


@dataclass(frozen=True)
class Detector:
    """One pattern.

    Attributes:
        name: in files and on the command line, such as ``long_tail``.
        title: for people: "Target in the long tail".
        definition: when a request shows it, with the thresholds' names in braces.
        says: a sentence on one case, with the names of ``Found.values`` in braces.
        source: who described it; empty where it is ours.
        about: whether it is a property of the ``request`` (known before any list is made), of the ``answer``, or a
            ``kind`` of bad case that no good one can be.
        needs: what must be at hand; without it the detector is left out, and the report says so.
        find: the function.
    """

    name: str
    title: str
    definition: str
    says: str
    about: Literal["request", "answer", "kind"]
    find: Callable[[Evidence, Thresholds], Found]
    source: str = ""
    needs: tuple[Need, ...] = ()

    def defined(self, thresholds: Thresholds) -> str:
        """The definition with its numbers."""
        values = {name: _plain(getattr(thresholds, name)) for name in thresholds.__dataclass_fields__}
        return self.definition.format(**values)


def none_of(evidence: Evidence) -> Bools:
    return np.zeros(len(evidence), bool)


def _plain(value: float) -> str:
    return f"{value:g}"

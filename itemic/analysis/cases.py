"""Single cases for people: which were looked at, and what there is to say of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Item:
    """What a person is shown of an item. ``count``: how often training saw it."""

    id: str
    title: str
    category: str
    sid: str
    count: int


@dataclass(frozen=True)
class Case:
    """One request. Items are numbers within :attr:`Cases.items`.

    Attributes:
        request: its number within the split.
        user: who asks.
        history: oldest first, the latest ``Cases.shown`` ones.
        length: of the whole history.
        target: what came next.
        listed: what was recommended, best first, up to k.
        scores: of these.
        rank: the target's place; 0 where it isn't in the list.
        bad: whether it is not among the first k.
        level: the first level of the semantic ID that no listed item gets right; 0 where all are right, or without an
            index.
        causes: detectors whose pattern it shows, and the numbers that their sentences show.
    """

    request: int
    user: str
    history: list[int]
    length: int
    target: int
    listed: list[int]
    scores: list[float]
    rank: int
    bad: bool
    level: int
    causes: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Cases:
    """Cases with the items that they name.

    Attributes:
        items: all items that stand in a case.
        cases: in the order of their requests.
        sentences: by detector, what is said of a case, with names of numbers in braces.
        stated: which cases these are: all of them, or what sample.
        shown: items of a history at most.
    """

    items: list[Item]
    cases: list[Case]
    sentences: dict[str, str]
    stated: str
    shown: int

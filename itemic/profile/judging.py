"""What the profiles of a test are worth beside what they find: who is steered to what, and the judged numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.profile.attributes import CATEGORY, Attributes
from itemic.profile.judge import consistency, faithfulness, leakage, reading, steerability
from itemic.profile.sessions import Sessions
from itemic.tasks.facts import ItemFacts

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
_WORD = re.compile(r"\w")
NOBODY = -1  # no category is asked for


def worded(texts: Sequence[str]) -> Bool:
    """Which texts have a letter or digit, bool ``[n]``: others can't be looked for, or with."""
    return np.array([_WORD.search(text) is not None for text in texts], np.bool_)


@dataclass(frozen=True, eq=False)
class Told:
    """What a writer wrote of ``S`` sessions, ``n`` profiles of each.

    Attributes:
        texts: ``n`` lists of ``S`` texts; the first is what sessions are answered by.
        ended: bool ``[n, S]``; the others were cut off by their length.
        tokens: int64 ``[n, S]``, how long they are.
        prompts: ``S`` texts, what was read.
    """

    texts: list[list[str]]
    ended: Bool
    tokens: Int64
    prompts: Sequence[str]

    @property
    def empty(self) -> Bool:
        """bool ``[n, S]``: without a letter or digit."""
        return np.array([~worded(own) for own in self.texts], np.bool_)

    @property
    def usable(self) -> Bool:
        """bool ``[n, S]``: those that ended and say something."""
        return np.asarray(self.ended & ~self.empty)


def wishes(
    profiles: Sequence[str],
    usable: Bool,
    sessions: Sessions,
    attributes: Attributes,
    findable: Bool,
    items: int,
    seed: int,
) -> Int64:
    """The category that each profile is steered to, int64 ``[S]``; -1 where there is none or the profile is no good.

    It is drawn among the categories that the profile doesn't name and that ``items`` items have which can be found. Of
    two writers' profiles of a session the same category comes first, so that both are mostly asked for the same.

    Args:
        profiles: ``[S]`` texts.
        usable: bool ``[S]``.
        sessions: of the profiles; their items can't be found.
        attributes: of the catalogue.
        findable: bool ``[n]``.
        items: how many.
        seed: of the draw.
    """
    kinds = np.array(attributes.kinds, np.str_) == CATEGORY
    rows = np.repeat(np.arange(len(attributes.items)), attributes.items.lengths)
    counts = np.bincount(attributes.items.tokens[findable[rows]], minlength=len(attributes))
    categories = np.flatnonzero(kinds & (counts >= items))
    found = np.full(len(profiles), NOBODY, np.int64)
    for session in np.flatnonzero(usable).tolist():
        named = set().union(*attributes.find(profiles[session]))
        had = np.unique(sessions.inputs(session))
        own = [attributes.items[int(row)] for row in had if findable[row]]
        less = np.bincount(np.concatenate([np.zeros(0, np.int32), *own]), minlength=len(attributes))
        for at in np.random.default_rng([seed, session]).permutation(len(categories)).tolist():
            number = int(categories[at])
            if number not in named and counts[number] - less[number] >= items:
                found[session] = number
                break
    return found


def edits(profiles: Sequence[str], wanted: Int64, attributes: Attributes, wish: str) -> list[str]:
    """The profiles with a sentence in front that asks for a category; an encoder cuts texts at their end. Empty where
    nothing is asked for."""
    return [
        "" if number == NOBODY else f"{wish.replace('{}', attributes.names[number])}\n{profile}"
        for profile, number in zip(profiles, wanted.tolist(), strict=True)
    ]


def judged(
    told: Told,
    sessions: Sessions,
    facts: ItemFacts,
    attributes: Attributes,
    lists: Mapping[str, Int32],
    wanted: Int64,
    places: int,
) -> dict[str, Float64]:
    """All that is measured of a writer's profiles, float64 ``[S]`` each; NaN where it can't be.

    Profiles that didn't end or say nothing count for ``ended``, ``empty`` and ``tokens`` alone.

    Args:
        told: the profiles.
        sessions: that they were written of.
        facts: of the catalogue.
        attributes: of the catalogue.
        lists: int32 ``[S, K]``: what the first profiles found (``first``), the ``edited`` and, where there are such,
            the ``second`` ones.
        wanted: as :func:`wishes` has them.
        places: how many places of a list count.
    """
    texts, fine, count = told.texts[0], told.usable[0], len(sessions)
    histories = [sessions.inputs(session) for session in range(count)]
    faith = faithfulness(texts, histories, attributes)
    titles = [facts.titles[row] for row in sessions.targets.tolist()]
    read = [reading(text) for text in texts]
    found = {
        "attribute precision": faith.precision,
        "attribute recall": faith.recall,
        "leakage": leakage(texts, titles, told.prompts),
        **_steered(lists, wanted, attributes, sessions.targets, places),
        "words": np.array([own.words for own in read], np.float64),
        "sentences": np.array([own.sentences for own in read], np.float64),
        "reading ease": np.array([own.ease for own in read], np.float64),
    }
    if "second" in lists:
        both = fine & told.usable[1]
        alike = consistency(lists["first"], lists["second"], places)
        for name, values in zip((f"overlap@{places}", "rank-biased overlap"), alike, strict=True):
            found[name] = np.where(both, values, np.nan)
    found = {name: np.where(fine, values, np.nan) for name, values in found.items()}
    return found | {
        "ended": told.ended[0].astype(np.float64),
        "empty": told.empty[0].astype(np.float64),
        "tokens": told.tokens[0].astype(np.float64),
    }


def _steered(
    lists: Mapping[str, Int32], wanted: Int64, attributes: Attributes, targets: Int32, places: int
) -> dict[str, Float64]:
    some = np.flatnonzero(wanted != NOBODY)
    steer = steerability(
        lists["first"][some], lists["edited"][some], wanted[some], attributes, targets[some], places
    )
    found = {}
    for name, values in (("moved", steer.moved), ("closed", steer.closed), ("recall lost", steer.lost)):
        found[name] = np.full(len(wanted), np.nan)
        found[name][some] = values
    return found

"""Single cases for people: which are shown, and what there is to say of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from itemic.analysis.detector import Found
from itemic.analysis.detectors import DETECTORS
from itemic.analysis.detectors.sids import first_wrong
from itemic.analysis.evidence import Evidence, Int64

MOST = 25_000
SHOWN = 20  # items of a history
GOOD = 0.2  # of a sample: the share of good cases, to compare with
UNLABELLED = ""


@dataclass(frozen=True)
class Item:
    """What a person is shown of an item.

    Attributes:
        id, title: the title is the id where there is none.
        category: its labels; empty without any.
        sid: its semantic ID as text, or its other name; empty without an index.
        codes: of the semantic ID, level by level; empty without an index.
        count: how often training saw it.
    """

    id: str
    title: str
    category: str
    sid: str
    codes: list[int]
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

    def __repr__(self) -> str:
        return f"<Cases: {self.stated}, {len(self.items):,} items>"


def choose_cases(
    evidence: Evidence, found: Mapping[str, Found], most: int = MOST, *, shown: int = SHOWN, seed: int = 0
) -> Cases:
    """Cases to look at: all of them, or a random sample of bad and good ones.

    Args:
        evidence: whose requests.
        found: what the detectors found.
        most: cases at most; of a sample four fifths are bad ones, as far as there are so many.
        shown: items of a history at most.
        seed: of the sample.
    """
    chosen, stated = _sample(evidence, most, seed)
    return cases_of(evidence, found, chosen, stated, shown)


def cases_of(
    evidence: Evidence, found: Mapping[str, Found], chosen: Int64, stated: str = "", shown: int = SHOWN
) -> Cases:
    """The cases of some requests, int64 ``[m]``, rising."""
    requests = evidence.requests
    level = np.zeros(len(evidence), np.int64)
    if evidence.codes is not None:
        level = evidence.once("first wrong", lambda: first_wrong(evidence))
    flagged = {name: np.isin(chosen, np.flatnonzero(one.flags)) for name, one in found.items()}
    causes: list[dict[str, dict[str, Any]]] = [{} for _ in chosen]
    for name, shows in flagged.items():
        values = {key: column[chosen[shows]].tolist() for key, column in found[name].values.items()}
        for at, place in enumerate(np.flatnonzero(shows).tolist()):
            causes[place][name] = {key: _short(column[at]) for key, column in values.items()}
    histories = [requests.history(int(row))[-shown:] for row in chosen]
    used = np.unique(
        np.concatenate([requests.targets[chosen], evidence.top[chosen].reshape(-1), *histories, [-1]])
    )[1:]
    number = np.zeros(len(evidence.dataset.item_ids), np.int64)
    number[used] = np.arange(len(used))
    cases = []
    for at, row in enumerate(chosen.tolist()):
        real = evidence.top[row] >= 0
        cases.append(
            Case(
                int(evidence.numbers[row]),
                str(requests.users[row]),
                number[histories[at]].tolist(),
                int(evidence.lengths[row]),
                int(number[requests.targets[row]]),
                number[evidence.top[row][real]].tolist(),
                [round(score, 3) for score in evidence.scores[row, : evidence.k][real].tolist()],
                int(evidence.ranks[row]),
                bool(evidence.bad[row]),
                int(level[row]),
                causes[at],
            )
        )
    sentences = {name: DETECTORS[name].says for name in found}
    return Cases(_items(evidence, used), cases, sentences, stated, shown)


def _sample(evidence: Evidence, most: int, seed: int) -> tuple[Int64, str]:
    total = len(evidence)
    if total <= most:
        return np.arange(total), f"all {total:,} cases"
    bad, good = np.flatnonzero(evidence.bad), np.flatnonzero(~evidence.bad)
    goods = min(len(good), max(round(most * GOOD), most - len(bad)))
    rng = np.random.default_rng(seed)
    parts = [
        rng.choice(good, goods, replace=False),
        rng.choice(bad, min(len(bad), most - goods), replace=False),
    ]
    chosen = np.sort(np.concatenate(parts))
    return (
        chosen,
        f"a random sample of {len(parts[1]):,} of {len(bad):,} bad and {goods:,} of {len(good):,} good cases",
    )


def _items(evidence: Evidence, used: Int64) -> list[Item]:
    dataset = evidence.dataset
    titles, ids = dataset.titles.to_list(), dataset.item_ids
    return [
        Item(
            ids[row],
            titles[row],
            label_of(evidence, row),
            "" if evidence.sids is None else evidence.sids[row],
            [] if evidence.codes is None else evidence.codes[row].tolist(),
            int(evidence.counts[row]),
        )
        for row in used.tolist()
    ]


def label_of(evidence: Evidence, row: int) -> str:
    """An item's labels."""
    labels = evidence.labels
    if labels is None:
        return UNLABELLED
    first, last = labels.indptr[row : row + 2]
    return ", ".join(evidence.label_names[int(at)] for at in labels.indices[first:last])


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value

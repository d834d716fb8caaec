"""Some requests of a run, with what the model answered, as a reader wants to see them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from itemic import schema as c
from itemic.errors import ItemicError
from itemic.pipeline.work import TRAINED
from itemic.recipe import Recipe

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset
    from itemic.data.sequences import Requests
    from itemic.evaluate.ranking import RankingArrays

SAMPLES, SHOWN, ANSWERS = 6, 5, 5
FROM = 3  # parts of a ranking that are read for them


@dataclass(frozen=True)
class Answered:
    """An item of an answer."""

    title: str
    score: float
    hit: bool


@dataclass(frozen=True)
class Sample:
    """A request and its answer.

    Attributes:
        user: who asked.
        earlier: items of the history before those shown.
        history: titles, oldest first.
        target: the title of what came next; empty where it is unknown.
        rank: the target's place in the whole list, 0 where the list lacks it.
        answers: the first items of the list.
    """

    user: str
    earlier: int
    history: list[str]
    target: str
    rank: int
    answers: list[Answered]


def samples_part(root: Path, recipe: Recipe) -> list[Sample]:
    """Requests drawn at random, always the same ones; none where the ranking is not there."""
    from itemic.data.dataset import Dataset
    from itemic.evaluate.ranking import Ranking

    try:
        ranking = Ranking.load(root / "evaluate" / TRAINED)
        dataset = Dataset.load(root / "data")
    except ItemicError:
        return []
    rng = np.random.default_rng(recipe.seed)
    requests = dataset.split(recipe.evaluate.split)
    parts = rng.permutation(ranking.head.parts)[:FROM]
    found = []
    for part in sorted(parts.tolist()):
        arrays = ranking.part(part)
        some = rng.permutation(len(arrays.requests))[: -(-SAMPLES // len(parts))]
        found += [_sample(dataset, requests, arrays, int(row)) for row in np.sort(some)]
    return found[:SAMPLES]


def _sample(dataset: Dataset, requests: Requests, arrays: RankingArrays, row: int) -> Sample:
    request, target = int(arrays.requests[row]), int(arrays.targets[row])
    history = requests.history(request)
    items = arrays.items[row]
    places = np.flatnonzero(items == target) if target >= 0 else np.zeros(0, np.int64)
    best = [
        (int(item), float(score)) for item, score in zip(items, arrays.scores[row], strict=True) if item >= 0
    ]
    return Sample(
        user=str(requests.users[request]),
        earlier=max(len(history) - SHOWN, 0),
        history=[_title(dataset, int(item)) for item in history[-SHOWN:]],
        target=_title(dataset, target) if target >= 0 else "",
        rank=int(places[0]) + 1 if len(places) else 0,
        answers=[Answered(_title(dataset, item), score, item == target) for item, score in best[:ANSWERS]],
    )


def _title(dataset: Dataset, row: int) -> str:
    """An item's title; its id where it has none."""
    title: str | None = dataset.items[c.TITLE][row]
    return title or f"item {dataset.item_ids[row]}"

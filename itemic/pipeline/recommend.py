"""One question to a finished run: what would this user, or somebody with this history, want next?"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.artifact import Manifest
from itemic.errors import ArtifactError, ConfigError, DataError
from itemic.pipeline.run import RECIPE
from itemic.pipeline.step import Job
from itemic.pipeline.steps import last_stage, task_of
from itemic.recipe import read_resolved

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from itemic.data.dataset import Dataset
    from itemic.screen import Table

SHOWN = 15  # items of a history on the screen


@dataclass(frozen=True)
class Item:
    """An item as a reader wants to see it."""

    item_id: str
    title: str


@dataclass(frozen=True)
class Ranked(Item):
    """A recommended item: its place from 1 on, its log-probability, its semantic ID."""

    rank: int
    score: float
    sid: str


@dataclass(frozen=True)
class Answer:
    """What was asked and what came out.

    Attributes:
        user: None where a history was given.
        history: what the model was shown, oldest first.
        items: best first.
    """

    user: str | None
    history: list[Item]
    items: list[Ranked]

    def __repr__(self) -> str:
        who = "a history" if self.user is None else f"user {self.user!r}"
        return f"<Answer for {who}: {', '.join(item.item_id for item in self.items)}>"

    def __str__(self) -> str:
        from itemic.screen import rendered

        return rendered(*self.tables())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def tables(self) -> list[Table]:
        """The history and the ranking for the console."""
        from itemic.screen import Table

        who = f"user {self.user}" if self.user is not None else "this history"
        hidden = len(self.history) - SHOWN
        past = Table("item", "title", title=f"History of {who}, oldest first", title_justify="left")
        if hidden > 0:
            past.add_row("…", f"{hidden} earlier items")
        for item in self.history[-SHOWN:]:
            past.add_row(item.item_id, item.title)
        ranked = Table(title=f"Recommended for {who}", title_justify="left")
        for name in ("", "item", "title", "score", "semantic ID"):
            ranked.add_column(name, justify="right" if name in ("", "score") else "left")
        for place in self.items:
            ranked.add_row(str(place.rank), place.item_id, place.title, f"{place.score:.3f}", place.sid)
        return [past, ranked]


def recommend_one(
    folder: str | Path,
    *,
    user: str | None = None,
    items: Sequence[str] | None = None,
    k: int = 10,
    beams: int | None = None,
    exclude_history: bool | None = None,
) -> Answer:
    """Ask the last model of a run.

    A user is asked about with everything the dataset knows of them, cut to the split's history; task, beams
    and normalisation are the recipe's.

    Args:
        folder: of the run.
        user: an id of the dataset.
        items: item ids, oldest first, instead of a user.
        k: how many items to recommend.
        beams: width of the search, at least ``k``; None for the recipe's.
        exclude_history: leave out items of the history; None for what the recipe says.

    Raises:
        ConfigError: neither or both of ``user`` and ``items``.
        ArtifactError: the run has no trained model yet.
        DataError: an unknown user or item.
    """
    if (user is None) == (items is None):
        raise ConfigError("recommend needs a user or a history", "Give one of --user and --item-history.")
    job = open_run(folder)
    from itemic.data.dataset import Requests
    from itemic.evaluate.recommend import ModelRanker
    from itemic.pipeline.work import as_task, load_dataset, load_model

    dataset, part = load_dataset(job), job.recipe.evaluate
    rows = _rows_of_user(dataset, user) if user is not None else _rows_of_items(dataset, items or [])
    if dataset.rule.history is not None:
        rows = rows[-dataset.rule.history :]
    model = load_model(job, last_stage(job.recipe))
    model.index.check_dataset(dataset)
    ranker = ModelRanker(
        model,
        task=as_task(task_of(job.recipe, part.task)),
        beams=max(k, beams or part.beams),
        normalize=part.normalize,
        thinking=part.thinking,
        dataset=dataset,
    )
    asked = Requests(*_alone(rows))
    known = part.exclude_history if exclude_history is None else exclude_history
    best, scores = ranker.rank(asked, k, known)
    titles = dataset.titles
    ids, sids = dataset.item_ids, model.index.texts
    found = [(int(row), float(score)) for row, score in zip(best[0], scores[0], strict=True) if row >= 0]
    return Answer(
        user,
        [Item(ids[row], titles[row]) for row in rows.tolist()],
        [Ranked(ids[row], titles[row], i, score, sids[row]) for i, (row, score) in enumerate(found, 1)],
    )


def open_run(folder: str | Path) -> Job:
    """A run's folder, for reading what it made.

    Raises:
        ArtifactError: it is no run, has no dataset, or its last stage isn't trained.
    """
    root = Path(folder)
    if not (root / RECIPE).is_file():
        raise ArtifactError(f"{root} is not the folder of a run", "Make one with `itemic run RECIPE`.")
    recipe = read_resolved(root / RECIPE)
    if recipe.data is None:
        raise ArtifactError(
            f"{root} was trained without data: it knows no users and no catalogue",
            "Ask a run whose recipe has data.",
        )
    step = last_stage(recipe)
    if not (root / step).is_dir():
        raise ArtifactError(f"{root} has no trained model yet: {step} is missing", "Finish the run first.")
    return Job(recipe, root, root, Manifest("question", {}, {}))


def _alone(rows: npt.NDArray[np.int32]) -> tuple[Any, Any, Any, Any]:
    import numpy as np

    return np.array([""], object), np.array([0, len(rows)]), rows, np.array([-1], np.int32)


def _rows_of_user(dataset: Dataset, user: str) -> npt.NDArray[np.int32]:
    sequences = dataset.sequences
    places = (sequences.users == user).nonzero()[0]
    if not len(places):
        raise DataError(
            f"{dataset.name} has no user {user!r}", _near(user, [str(name) for name in sequences.users])
        )
    return sequences[int(places[0])]


def _rows_of_items(dataset: Dataset, items: Sequence[str]) -> npt.NDArray[np.int32]:
    import numpy as np

    place = {item: row for row, item in enumerate(dataset.item_ids)}
    for item in items:
        if item not in place:
            raise DataError(f"{dataset.name} has no item {item!r}", _near(item, dataset.item_ids))
    return np.array([place[item] for item in items], np.int32)


def _near(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known[:100_000], 3, 0.5) or known[:3]
    return f"Ids look like {', '.join(map(repr, near))}."

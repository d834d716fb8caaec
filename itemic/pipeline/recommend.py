"""One question to a finished run, or to a model: what would this user, or somebody with this history, want next?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic import schema as c
from itemic.artifact import Manifest
from itemic.errors import ArtifactError, ConfigError
from itemic.pipeline.answer import Answer, Idea, Item, Ranked
from itemic.pipeline.known import item_rows, user_rows
from itemic.pipeline.run import RECIPE
from itemic.pipeline.step import Job
from itemic.pipeline.steps import last_stage, task_of
from itemic.recipe import read_resolved

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from itemic.data.dataset import Dataset
    from itemic.data.sequences import Requests
    from itemic.evaluate.recommend import ModelRanker
    from itemic.evaluate.settings import ThinkingSettings
    from itemic.model import Model
    from itemic.sid.names import ItemNames
    from itemic.tasks.profile import ProfileNext, WrittenNext


def recommend_one(
    folder: str | Path,
    *,
    user: str | None = None,
    items: Sequence[str] | None = None,
    profile: str | None = None,
    k: int = 10,
    beams: int | None = None,
    exclude_history: bool | None = None,
    dataset: str | Path | None = None,
    think: int | None = None,
) -> Answer:
    """Ask the last model of a run, or a model's own folder.

    A user is asked about with everything the dataset knows of them, cut to the split's history. A run is asked as
    its recipe evaluates (task, beams, normalisation), a model's folder as its training recorded. Of whom a ``profile``
    is given, the model is asked by its task ``profile``: by the words alone, or by words and items.

    Args:
        folder: of the run, or of a model.
        user: an id of the dataset.
        items: item ids, oldest first, instead of a user.
        profile: what the person is like, in words, beside a user or items or without any. It is read as plain words;
            the end of one that is longer than the model reads is left out, and told.
        k: how many items to recommend.
        beams: width of the search, at least ``k``; None for the recipe's, or 50.
        exclude_history: leave out items of the history; None for what the recipe says, or not to.
        dataset: of a model's folder: who its users are; without one it is asked with ``items``.
        think: let the model think first: how many thoughts, drawn as the recipe's ``evaluate.thoughts`` says, or as
            usual; 0 for as many as that says; None for none.

    Raises:
        ConfigError: neither or both of ``user`` and ``items``, the model can't be asked to think, or never learned to
            go by words, or there are none in the profile.
        ArtifactError: the folder is neither, or the run has no trained model yet.
        DataError: an unknown user or item.
        IndexMismatchError: the dataset is of another catalogue than the model.
    """
    if (user is not None and items is not None) or (user is None and items is None and profile is None):
        raise ConfigError(
            "recommend needs a user, a history or a profile",
            "Give one of --user and --history, or --profile, alone or beside one of them.",
        )
    asked = of_model(Path(folder), dataset) if is_model(folder) else of_run(folder)
    if user is not None and asked.users is None:
        raise ConfigError(
            f"{folder} is a model, which knows no users",
            "Give --history, or --dataset with whoever they are.",
        )
    from itemic.data.sequences import Requests
    from itemic.evaluate.recommend import ModelRanker

    index = asked.model.index
    rows = rows_of(asked, user, items or [])
    request = Requests(*alone(rows, user), index.catalogue)
    told = _told(asked, profile, request, think)
    ranker = ModelRanker(
        asked.model,
        task=asked.task if told is None else told.task,
        beams=max(k, beams or asked.beams),
        normalize=asked.normalize,
        thinking=asked.thinking,
        dataset=asked.texts,
    )
    known = asked.exclude_history if exclude_history is None else exclude_history
    said = (
        _ask(ranker, request, k, known) if think is None else _think(ranker, asked, request, k, known, think)
    )
    ids, sids, titles = index.item_ids, index.texts, asked.titles
    notes = [] if said.found else ["Nothing was left to recommend: this history has all items."]
    if told is not None and told.note:
        notes.append(told.note)
    if said.shortened:
        notes.append("The history is longer than the model can read; its oldest items were left out.")
    if cut := sum(idea.cut for idea in said.thoughts or []):
        notes.append(f"{cut} of these thoughts didn't end in time and were closed.")
    return Answer(
        user,
        [Item(ids[row], titles[row]) for row in rows.tolist()],
        [
            Ranked(ids[row], titles[row], i, score, sids[row], thought)
            for i, (row, score, thought) in enumerate(said.found, 1)
        ],
        notes,
        said.thoughts,
        None if told is None else told.text,
    )


@dataclass(frozen=True)
class _Told:
    """The task that asks by a profile, the profile as it is read, and what a reader has to know of it."""

    task: WrittenNext
    text: str
    note: str = ""


def _told(asked: Asked, profile: str | None, request: Requests, think: int | None) -> _Told | None:
    if profile is None:
        return None
    from itemic.tasks.asking import Asker
    from itemic.tasks.fitting import fit_profiles
    from itemic.tasks.profile import BOTH, WORDS, Written, check_profile

    model, who = asked.model, str(request.users[0])
    text = check_profile(profile, model.index)
    kind = BOTH if len(request.items) else WORDS
    task = profile_task(model).knowing(Written({who: text}), kind)
    reserve = 0 if think is None else _thought_room(asked, think)
    asker = Asker(model, task, "think" if reserve else asked.thinking, asked.texts, reserve)
    task, cut = fit_profiles(asker, task, request)
    found = task.written.texts[who]
    if not found:
        raise ConfigError(
            "this model reads too little for any word of a profile",
            "Train one with more positions (model.overrides.max_position_embeddings).",
        )
    if not cut:
        return _Told(task, found)
    return _Told(
        task,
        found,
        f"The profile is longer than the model can read: of its {len(text.split()):,} words "
        f"the first {len(found.split()):,} were read.",
    )


def profile_task(model: Model) -> ProfileNext:
    """The task ``profile`` that taught a model to go from words to items.

    Raises:
        ConfigError: none did.
    """
    from itemic.tasks import make_task
    from itemic.tasks.profile import ProfileNext

    if model.profile is None:
        raise ConfigError(
            "this model never learned to go from words to items: its tasks had no `profile`",
            "Add `- {task: profile}` to the recipe's tasks, and train.",
        )
    options = dict(model.profile)
    task = make_task(options.pop("task"), **options)
    assert isinstance(task, ProfileNext)
    return task


def _thought_room(asked: Asked, think: int) -> int:
    """Tokens that thoughts may take between prompt and answer."""
    from itemic.model.think import thought_tokens

    return thought_tokens(asked.model).count + asked.thinks(think).max_tokens


@dataclass(frozen=True)
class _Said:
    """Rows of items, best first, with scores and numbers of thoughts; whether the history was shortened; and the
    thoughts."""

    found: Sequence[tuple[int, float, int | None]]
    shortened: bool
    thoughts: list[Idea] | None = None


def _ask(ranker: ModelRanker, request: Requests, k: int, exclude_history: bool) -> _Said:
    best, scores = ranker.rank(request, k, exclude_history)
    found = [
        (int(row), float(score), None) for row, score in zip(best[0], scores[0], strict=True) if row >= 0
    ]
    return _Said(found, bool(ranker.shortened(request)[0]))


def _think(
    ranker: ModelRanker, asked: Asked, request: Requests, k: int, exclude_history: bool, count: int
) -> _Said:
    """The same behind thoughts, which are numbered by the best item that goes back to each."""
    from itemic.evaluate.thinking import ThinkingRanker

    thinker = ThinkingRanker(ranker, asked.thinks(count), seed=asked.seed)
    said = thinker.consider(request, k, exclude_history)
    there = said.items[0] >= 0
    texts = [said.thoughts[0][number] for number in said.behind[0][there].tolist()]
    number = {thought: place for place, thought in enumerate(dict.fromkeys(texts), 1)}  # equal ones are one
    found = [
        (int(row), float(score), number[thought])
        for row, score, thought in zip(said.items[0][there], said.scores[0][there], texts, strict=True)
    ]
    ideas = [Idea(place, thought.text, thought.tokens, thought.cut) for thought, place in number.items()]
    return _Said(found, bool(thinker.shortened(request)[0]), ideas)


@dataclass(frozen=True)
class Asked:
    """Who is asked, and how. ``users`` is the dataset that knows them, ``texts`` what prompts show of items."""

    model: Model
    users: Dataset | None
    texts: Dataset | None
    task: dict[str, Any] | None
    beams: int = 50
    normalize: str = "vocab"
    thinking: str | None = None
    exclude_history: bool = False
    history: int | None = None
    thoughts: ThinkingSettings | None = None
    seed: int = 0

    def thinks(self, count: int) -> ThinkingSettings:
        """How thoughts are drawn, so many of them; 0 for as many as usual."""
        from itemic.evaluate.settings import ThinkingSettings

        told = self.thoughts or ThinkingSettings()
        return replace(told, count=count or told.count)

    @property
    def titles(self) -> list[str]:
        """What to call each item: its title, or its id where it has none."""
        if self.users is not None:
            return self.users.titles.to_list()
        ids = self.model.index.item_ids
        return [
            title or item for title, item in zip(self.model.index.known_titles() or ids, ids, strict=True)
        ]


def ranker_of(asked: Asked) -> ModelRanker:
    """The model as the recipe evaluates it, with as many beams as a filter may need items."""
    from itemic.control.writing import REACH
    from itemic.evaluate.recommend import ModelRanker

    return ModelRanker(
        asked.model,
        task=asked.task,
        beams=min(len(asked.model.index), max(REACH, asked.beams)),
        normalize=asked.normalize,
        thinking=asked.thinking,
        dataset=asked.texts,
    )


def rows_of(asked: Asked, user: str | None, items: Sequence[str]) -> npt.NDArray[np.int32]:
    """The history's item rows, the latest as many as requests of the split show."""
    if asked.users is not None and user is not None:
        rows = user_rows(asked.users, user)
    else:
        rows = item_rows(asked.model.index.item_ids, items)
    return rows if asked.history is None else rows[-asked.history :]


def is_model(folder: str | Path) -> bool:
    """Whether a folder is a model's, and no run's."""
    return (Path(folder) / "config.json").is_file() and not (Path(folder) / RECIPE).is_file()


def of_run(folder: str | Path) -> Asked:
    from itemic.pipeline.work import load_dataset, load_model

    job = open_run(folder)
    dataset, part = load_dataset(job), job.recipe.evaluate
    model = load_model(job, last_stage(job.recipe))
    model.index.check_dataset(dataset)
    return Asked(
        model,
        dataset,
        dataset,
        task_of(job.recipe, part.task),
        part.beams,
        part.normalize,
        part.thinking,
        part.exclude_history,
        dataset.rule.history,
        part.thoughts,
        job.recipe.seed,
    )


def of_model(folder: Path, dataset: str | Path | None) -> Asked:
    from itemic.data import Dataset
    from itemic.model import Model
    from itemic.training.ranks import joined

    with joined() as ranks:
        model = Model.load(folder, device=ranks.device)
    if not len(model.index):
        raise ArtifactError(
            f"{folder} knows codes and no items",
            "Give it items by `itemic model expand` with an index that has some.",
        )
    users = None if dataset is None else Dataset.load(dataset)
    if users is not None:
        model.index.check_dataset(users)
    return Asked(model, users, users or _texts_of(model.index), None)


def _texts_of(index: ItemNames) -> Dataset | None:
    """What an index knows of its items, as a catalogue; None where it knows no titles."""
    import polars as pl

    from itemic.data import Dataset

    titles = index.known_titles()
    if titles is None:
        return None
    items = pl.DataFrame({c.ITEM_ID: index.item_ids, c.TITLE: titles}).with_columns(
        pl.lit("").alias(c.DESCRIPTION),
        pl.lit("").alias(c.BRAND),
        pl.lit([], pl.List(pl.String)).alias(c.CATEGORIES),
    )
    return Dataset(
        items, pl.DataFrame(schema=dict.fromkeys(c.INTERACTION_COLUMNS, pl.String)), "the model's own items"
    )


def open_run(folder: str | Path) -> Job:
    """A run's folder, for reading what it made.

    Raises:
        ArtifactError: it is no run, has no dataset, or its last stage isn't trained.
    """
    root = Path(folder)
    if not (root / RECIPE).is_file():
        raise ArtifactError(
            f"{root} is neither the folder of a run nor a model's", "Make one with `itemic run RECIPE`."
        )
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


def alone(rows: npt.NDArray[np.int32], user: str | None) -> tuple[Any, Any, Any, Any]:
    import numpy as np

    return np.array([user or ""], object), np.array([0, len(rows)]), rows, np.array([-1], np.int32)

"""What words are worth to a finished run, or to a model: opens it, asks, and writes the table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.errors import ConfigError
from itemic.pipeline.recommend import Asked, is_model, of_model, of_run, open_run, profile_task
from itemic.pipeline.steps import task_entries, task_of
from itemic.progress import log

if TYPE_CHECKING:
    from itemic.evaluate.worth import Worth
    from itemic.recipe import Recipe

FOLDER = "words"
CUTS = (5, 10, 20)


def evaluate_run_words(
    folder: str | Path,
    *,
    shown: Sequence[int] = (0, 1, 2, 5),
    profiles: str | Path | None = None,
    task: str | None = None,
    split: str | None = None,
    users: int | None = None,
    k: Sequence[int] | None = None,
    dataset: str | Path | None = None,
    seed: int | None = None,
    output: str | Path | None = None,
) -> Worth:
    """Ask the last model of a run, or a model's folder, by a few items, by profiles, and by both.

    Args:
        folder: of the run, or of a model.
        shown: how many of the latest items are shown, one after the other.
        profiles: a file of written ones, see :func:`itemic.tasks.profiles_file.read_profiles`; None for templated ones
            of each user's training interactions.
        task: whose prompt asks by items alone; None for the one that the run evaluates, or, where that is ``profile``
            itself, its first other task that recommends.
        split: ``valid`` or ``test``; None for what the recipe evaluates, or test.
        users: at most so many requests, drawn by the seed; None for all.
        k: cuts of the metrics; None for the recipe's, or 5, 10 and 20.
        dataset: of a model's folder.
        seed: of the bootstrap and the drawing; None for the recipe's, or 0.
        output: where ``SPLIT.json``, ``SPLIT.md`` and the rankings go; None for ``words`` in the run's
            folder.

    Raises:
        ConfigError: the model never learned to go by words, or what is asked for can't work.
        ArtifactError, DataError, IndexMismatchError: as for :func:`itemic.pipeline.recommend.recommend_one`, and
            ``output`` holds rankings of something else.
    """
    recipe: Recipe | None = None
    if is_model(folder):
        if dataset is None or output is None:
            lacks = "knows no users" if dataset is None else "has no place for tables"
            raise ConfigError(
                f"{folder} is a model, which {lacks}", "Give --dataset and --output, or its run."
            )
        asked = of_model(Path(folder), dataset)
    else:
        asked, recipe = of_run(folder), open_run(folder).recipe
    from itemic.evaluate.words import AskedBy, evaluate_words, requests_about
    from itemic.tasks.profiles_file import profiles_before, read_profiles

    data = asked.users
    assert data is not None  # a run has them, and so has a model with a dataset
    profile = profile_task(asked.model)
    items = items_task(asked, recipe, task)
    part = None if recipe is None else recipe.evaluate
    seed = asked.seed if seed is None else seed
    split = split or ("test" if part is None else part.split)
    cuts = list(k or (CUTS if part is None else part.k))
    written, notes = (None, ["Profiles are templated ones of each user's training interactions."])
    if profiles is not None:
        written, notes = profiles_before(read_profiles(profiles), data)
    requests, said = requests_about(data, split, written, users, seed)
    target = Path(output) if output is not None else Path(folder) / FOLDER
    found = evaluate_words(
        AskedBy(
            asked.model,
            profile,
            items,
            max(asked.beams, *cuts),
            asked.normalize,
            asked.thinking,
            asked.exclude_history,
        ),
        data,
        requests,
        shown=shown,
        written=written,
        k=cuts,
        notes=[*said, *notes],
        title=f"What words are worth, {Path(folder).resolve().name}, {split}",
        seed=seed,
        output=target / split,
    )
    found.save(target, split)
    log.info("%s holds the table and the rankings", target)
    return found


def items_task(asked: Asked, recipe: Recipe | None, name: str | None) -> Any:
    """The task that asks by items alone.

    Raises:
        ConfigError: nobody says which, or it doesn't recommend, or goes by words itself.
    """
    from itemic.tasks import TASKS
    from itemic.tasks import task_of as made
    from itemic.tasks.asking import task_to_ask

    others = [key for key, task in TASKS.items() if task.recommends and key != "profile"]
    if name is not None and name not in others:
        raise ConfigError(f"task {name!r} doesn't ask by items alone", f"Use one of {', '.join(others)}.")
    if name is not None:
        return made({"task": name} if recipe is None else task_of(recipe, name))
    own = task_to_ask(asked.model, asked.task)
    if own.name != "profile":
        return own
    taught = [] if recipe is None else [each["task"] for each in task_entries(recipe)]
    found = next((key for key in taught if key in others), None)
    if recipe is None or found is None:
        raise ConfigError(
            "the model is asked by the task profile, and nobody says how it is asked by items alone",
            f"Give --task, one of {', '.join(others)} that the model was trained with.",
        )
    return made(task_of(recipe, found))

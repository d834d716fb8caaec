"""Test tasks of control, asked of a run's model, of another model, or of one that somebody serves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic import schema as c
from itemic.control.form import ListForm
from itemic.control.tests import TRAINED, ControlTest, ListTests
from itemic.errors import ConfigError
from itemic.pipeline.recommend import Asked, is_model, of_model, of_run, open_run, ranker_of
from itemic.pipeline.run import RECIPE
from itemic.pipeline.step import Job
from itemic.pipeline.steps import last_stage, task_of
from itemic.pipeline.work import PRICE, RESULTS
from itemic.progress import log
from itemic.recipe.control import CONTROL_OPTIONS, OfHistory
from itemic.recipe.tasks import options_of

if TYPE_CHECKING:
    from itemic.control.evaluation import Asking
    from itemic.control.results import Results
    from itemic.control.writing import Answerer, Spoken
    from itemic.data.dataset import Dataset
    from itemic.endpoint import Endpoint
    from itemic.recipe import Recipe
    from itemic.sid.names import ItemNames
    from itemic.teacher.teacher import Teacher

FOLDER, ANSWERS = "control", "answers.jsonl"


@dataclass(frozen=True)
class Where:
    """Where a served model is asked, and how: as chats, or as ``plain`` texts under the run's own template."""

    endpoint: Endpoint
    plain: bool = False


def evaluate_control(
    folder: str | Path | None,
    settings: ListTests,
    *,
    dataset: str | Path | None = None,
    where: Where | None = None,
    output: str | Path | None = None,
    split: str | None = None,
    seed: int | None = None,
) -> list[Results]:
    """Ask the test tasks, and write tables and answers beside the run.

    Requests are worded, and lists written, as the run's tasks of control taught them.

    Args:
        folder: of the run, whose last model is asked, or of a model; None with ``where``.
        settings: which tests, and how.
        dataset: of a model's folder or a served model: the run that it belongs to, or a dataset.
        where: a server to ask.
        output: where results and answers go; None for ``control`` in the run's folder.
        split: whose requests; None for what the recipe evaluates, or test.
        seed: of what is drawn; None for the recipe's, or 0.

    Returns:
        the results, and behind them, where it is asked for, the price.

    Raises:
        ConfigError: what is missing, or can't work.
        ArtifactError, DataError, EndpointError: as for its parts.
    """
    home = Path(dataset if dataset is not None else folder or ".")
    own = _own(folder, dataset, where)
    target = Path(output) if output is not None else _home(home, folder, dataset) / FOLDER
    answerer = _answerer(own, where, settings, target)
    asking = _asking(own, answerer, settings, split, seed)
    name = _file_name(folder, where, settings, asking.split)
    found = [asking.evaluate()]
    found[0].save(target, name)
    if settings.price:
        found.append(asking.price())
        found[1].save(target, f"{name}-{PRICE}")
    log.info("%s holds tables and answers", target)
    return found


def asking_of_run(folder: str | Path, settings: ListTests, output: Path) -> Asking:
    """A run's last model, ready to be asked; its answers go to ``output``."""
    own = _own(folder, None, None)
    return _asking(own, _answerer(own, None, settings, output), settings, None, None)


@dataclass(frozen=True)
class _Own:
    """What is known of who is asked: a recipe where there is a run, the model where it is at hand; and whether it is
    that model which answers, whose ranking can be filtered."""

    dataset: Dataset
    names: ItemNames
    recipe: Recipe | None
    asked: Asked | None
    title: str
    teacher: Callable[[], Teacher | None]
    ranks: bool = True


def _own(folder: str | Path | None, dataset: str | Path | None, where: Where | None) -> _Own:
    from itemic.data import Dataset
    from itemic.sid.titles import TitleNames

    if (folder is None) == (where is None):
        raise ConfigError("test tasks are asked of a run or of a server", "Give one of RUN and --endpoint.")
    if folder is not None and dataset is None:
        if is_model(folder):
            raise ConfigError(
                f"{folder} is a model, which knows no users", "Give --dataset with its run or its dataset."
            )
        asked, job = of_run(folder), open_run(folder)
        assert asked.users is not None  # a run has them
        return _Own(asked.users, asked.model.index, job.recipe, asked, _titled(folder), _teacher(job))
    if dataset is None:
        raise ConfigError("a server knows no users", "Give --dataset with a run or a dataset.")
    if not (Path(dataset) / RECIPE).is_file():
        if folder is None:
            data = Dataset.load(dataset)
            return _Own(data, TitleNames.of(data, max_tokens=None), None, None, _served(where), lambda: None)
        asked = of_model(Path(folder), dataset)
        assert asked.users is not None
        return _Own(asked.users, asked.model.index, None, asked, _titled(folder), lambda: None)
    job = open_run(dataset)
    asked = of_run(dataset)
    title = _served(where) if folder is None else _titled(folder)
    if folder is not None:
        asked = replace(asked, model=of_model(Path(folder), Path(dataset) / "data").model)
    assert asked.users is not None
    return _Own(asked.users, asked.model.index, job.recipe, asked, title, _teacher(job), ranks=where is None)


def _titled(folder: str | Path) -> str:
    return f"Lists under control, {Path(folder).resolve().name}"


def _served(where: Where | None) -> str:
    assert where is not None
    return f"Lists under control, {where.endpoint.model} at {where.endpoint.url}"


def _teacher(job: Job) -> Callable[[], Teacher | None]:
    from itemic.pipeline.rankings import load_teacher

    return lambda: None if job.recipe.teacher is None else load_teacher(job)


def _home(home: Path, folder: str | Path | None, dataset: str | Path | None) -> Path:
    if (home / RECIPE).is_file():
        return home
    if dataset is None and folder is not None:
        return Path(folder)
    raise ConfigError("there is no run's folder to write results to", "Give --output FOLDER.")


def _file_name(folder: str | Path | None, where: Where | None, settings: ListTests, split: str) -> str:
    if where is not None:
        name = re.sub(r"[^\w.-]+", "_", where.endpoint.model).strip("._") or "served"
    else:
        assert folder is not None
        name = f"{Path(folder).resolve().name}-{settings.mode}" if is_model(folder) else settings.mode
    return name if split == "test" else f"{name}-{split}"  # else one split's figures would replace another's


def _answerer(own: _Own, where: Where | None, settings: ListTests, target: Path) -> Answerer:
    from itemic.control.writing import Served

    if where is None:
        assert own.asked is not None
        return _written(own.asked, own.recipe, settings, target / ANSWERS)
    model = own.asked.model if own.asked is not None and where.plain else None
    if where.plain and model is None:
        raise ConfigError("plain texts need a model's template", "Give --dataset with the model's run.")
    return Served(where.endpoint, own.names, target / f"served-{ANSWERS}", model=model)


def _written(asked: Asked, recipe: Recipe | None, settings: ListTests, file: Path) -> Answerer:
    from itemic.control.writing import Written

    return Written(asked.model, file, most=_longest(recipe, settings), thinking=asked.thinking)


def _longest(recipe: Recipe | None, settings: ListTests) -> int:
    """Items of the longest list that any test wants."""
    lengths = [settings.topk or spoken_options(recipe, test)[0]["topk"] for test in settings.tests]
    counts = [settings.most] if any(test.kind == "count" for test in settings.tests) else []
    return max(*lengths, *(n + 1 for n in lengths if counts), *counts, 10)


def _asking(
    own: _Own, answerer: Answerer, settings: ListTests, split: str | None, seed: int | None
) -> Asking:
    from itemic.control.evaluation import Asking

    recipe = own.recipe
    usual = ("test", 0) if recipe is None else (recipe.evaluate.split, recipe.seed)
    asked = own.asked if own.ranks else None
    ranker = None if asked is None else cache(lambda: ranker_of(asked))
    return Asking(
        own.dataset,
        answerer,
        lambda test: _spoken(recipe, test, own.names),
        settings,
        split=split or usual[0],
        seed=usual[1] if seed is None else seed,
        teacher=own.teacher() if settings.unwanted == "teacher" else None,
        ranked=None if ranker is None else lambda requests: ranker().rank(requests, ranker().beams)[0],
        among=None if ranker is None else lambda requests, k, rows: ranker().rank_among(requests, k, rows),
        title=own.title,
    )


# --------------------------------------------------------------------------------------------- the wording


def spoken_options(recipe: Recipe | None, test: ControlTest) -> tuple[dict[str, Any], str | None]:
    """The options of the task that taught what a test asks, and its name: the first of the nearest tasks that the
    recipe has, else the first with a history; without any the usual ones, and no name."""
    usual = options_of("SFTSeqRec", CONTROL_OPTIONS)
    tasks = [] if recipe is None else recipe.tasks
    for name in TRAINED[test.kind]:
        for task in tasks:
            if task.task == name:
                return usual | _system(recipe) | task.arguments, name
    for task in tasks:
        if issubclass(CONTROL_OPTIONS.get(task.task, dict), OfHistory):
            return usual | _system(recipe) | task.arguments, None
    return usual | _system(recipe), None


def _system(recipe: Recipe | None) -> dict[str, Any]:
    return {"system": c.SYSTEM if recipe is None else recipe.system}


def _spoken(recipe: Recipe | None, test: ControlTest, names: ItemNames) -> Spoken:
    from itemic.control.writing import Spoken
    from itemic.tasks.task import spoken_of

    options, name = spoken_options(recipe, test)
    system = options["system"]
    return Spoken(
        ListForm(options["numbered"], options["separator"]),
        spoken_of(system, names) if system == c.SYSTEM else system,
        options["max_items"],
        options["topk"],
        tuple(options["columns"]),
        name,
    )


# --------------------------------------------------------------------------------------------- a step


def make_lists(settings: ListTests, job: Job) -> None:
    """The step ``lists``: the recipe's test tasks asked of its last model."""
    from itemic.pipeline.work import load_dataset, load_model

    recipe = job.recipe
    part = recipe.evaluate
    dataset, model = load_dataset(job), load_model(job, last_stage(recipe))
    model.index.check_dataset(dataset)
    asked = Asked(
        model,
        dataset,
        dataset,
        task_of(recipe, part.task),
        part.beams,
        part.normalize,
        part.thinking,
    )
    own = _Own(dataset, model.index, recipe, asked, f"Lists under control, {recipe.name}", _teacher(job))
    answerer = _written(asked, recipe, settings, job.output / ANSWERS)
    asking = _asking(own, answerer, settings, None, None)
    asking.evaluate().save(job.output, RESULTS)
    if settings.price:
        asking.price().save(job.output, PRICE)

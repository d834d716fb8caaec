"""The steps of a recipe, in order: data → teacher → index → conversations → model → train.… → evaluate → lists →
writer → writer.taught → embedder → turns → profiles → report.

A recipe without data has no data, evaluate and report, one without a teacher no such step; one without tasks has no
conversations but others' files. Lists are tested where the evaluation asks for it. One without a model of items has
nothing from index to lists, one without profiles nothing from writer to profiles.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from itemic.pipeline import work
from itemic.pipeline.profile_steps import last_profile_steps, profile_steps
from itemic.pipeline.rankings import rank
from itemic.pipeline.step import Step
from itemic.recipe import Recipe
from itemic.recipe.control import ASK_TEACHER, CONTROL_OPTIONS, OF_THEIR_OWN, control_columns
from itemic.recipe.inputs import conversation_inputs, data_inputs
from itemic.recipe.schema import DataPart
from itemic.recipe.tasks import PLAIN, options_of
from itemic.rl.settings import RL_TASKS, RLStage
from itemic.schema import SYSTEM
from itemic.settings import settings_json
from itemic.teacher.settings import TeacherSettings

TORCH = ("torch", "transformers")
OF_TITLES = ("names", "column", "max_tokens")  # keys of the index that semantic IDs don't depend on
UNSEEN = ("batch_size", "trackers", "samples", "verbose")  # of an evaluation: no ranking depends on them


def steps_of(recipe: Recipe) -> list[Step]:
    """All steps of a run."""
    data = [] if recipe.data is None else [_data(recipe.data)]
    teacher = [] if recipe.teacher is None else [_teacher(recipe, recipe.teacher)]
    report = [] if recipe.data is None else [_report(recipe)]
    return [*data, *teacher, *_item_steps(recipe), *profile_steps(recipe), *report]


def _item_steps(recipe: Recipe) -> list[Step]:
    """From the index to the evaluation of the model that names items, where the recipe has one."""
    if recipe.model is None:
        return []
    built = [_conversations(recipe)] if recipe.tasks else []
    stages = _stages(recipe)
    after = [] if recipe.data is None else [_evaluate(recipe, stages[-1].name), *_lists(recipe)]
    return [_index(recipe), *built, _model(recipe), *stages, *after]


def last_stage(recipe: Recipe) -> str:
    """The step whose folder holds the finished model of items.

    Raises:
        ConfigError: the recipe has none.
    """
    recipe.item_model  # noqa: B018
    return _stages(recipe)[-1].name


def task_of(recipe: Recipe, name: str) -> dict[str, Any]:
    """A task with the options that it is trained with; of several entries the first one counts. One that only others'
    conversations teach has its defaults."""
    trained = (arguments for arguments in task_entries(recipe) if arguments["task"] == name)
    arguments = next(trained, _with_system(recipe, {"task": name}))
    return {key: value for key, value in arguments.items() if key == "task" or key in options_of(name)}


def task_entries(recipe: Recipe) -> list[dict[str, Any]]:
    """The mixture of a recipe's tasks, as :func:`itemic.tasks.build_conversations` takes it."""
    return [_with_system(recipe, {"task": task.task, **task.arguments}) for task in recipe.tasks]


def _with_system(recipe: Recipe, entry: dict[str, Any]) -> dict[str, Any]:
    """The recipe's first line, where the task has turns and none of its own."""
    if entry["task"] in (*PLAIN, *OF_THEIR_OWN) or "system" in entry or recipe.system == SYSTEM:
        return entry
    return entry | {"system": recipe.system}


def _dump(part: Any, *without: str) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude=set(without))  # type: ignore[no-any-return]


def _needs(recipe: Recipe, *steps: str) -> tuple[str, ...]:
    """Of the steps that are to be read those that the recipe has."""
    absent = {
        "data": recipe.data is None,
        "teacher": recipe.teacher is None,
        "conversations": not recipe.tasks,
    }
    return tuple(step for step in steps if not absent.get(step))


def _data(data: DataPart) -> Step:
    config = _dump(data, "path")
    files = data_inputs(data)
    return Step("data", config, (), work.make_data, files, packages=("polars", "numpy"))


def _teacher(recipe: Recipe, settings: TeacherSettings) -> Step:
    if settings.validation.exclude_history is None:
        asked = replace(settings.validation, exclude_history=recipe.evaluate.exclude_history)
        settings = replace(settings, validation=asked)
    job = partial(work.make_teacher, settings)
    return Step(
        "teacher",
        settings.decisive(),
        ("data",),
        job,
        resumes=True,
        together=True,
        packages=("torch", "scikit-learn"),
    )


def _index(recipe: Recipe) -> Step:
    index = recipe.index
    if index.names == "title":
        return _titles(recipe)
    files = {"import": index.published} if index.published else {}
    packages = ("numpy", "scikit-learn", "torch")
    needs = _needs(recipe, "data")
    config = _dump(index, "published", *OF_TITLES)
    return Step("index", config, needs, work.make_index, files, packages=packages)


def _titles(recipe: Recipe) -> Step:
    """The index of items that go by their titles: the model's tokenizer cuts them."""
    index, model = recipe.index, recipe.item_model
    config: dict[str, Any] = {key: getattr(index, key) for key in OF_TITLES}
    files: dict[str, str] = {}
    if index.max_tokens is not None and model.base is not None:
        config |= {"revision": model.revision} | _base(model.base, files)
    elif index.max_tokens is not None:
        config |= {"vocab_size": model.vocab_size, "system": recipe.system}
        if words := _further_words(recipe):
            config["words"] = words
    return Step("index", config, ("data",), work.make_titles, files, packages=TORCH)


def _base(base: str, files: dict[str, str]) -> dict[str, str]:
    """A base model as what a step reads, in ``files``, or by its name on the hub."""
    if Path(base).expanduser().is_dir():
        files["base"] = base
        return {}
    return {"base": base}


def _conversations(recipe: Recipe) -> Step:
    entries = task_entries(recipe)
    times = any(stage.asks_times for stage in recipe.stages)
    held_out = max((stage.asks.held_out or 0.0 for stage in recipe.rl), default=0.0)
    asked = {"times": times, "held_out": held_out}
    config = {"tasks": entries} | {key: value for key, value in asked.items() if value}
    job = partial(work.make_conversations, entries, times, held_out)
    asks_teacher = any(entry["task"] in ASK_TEACHER for entry in entries)
    needs = ("data", *(["teacher"] if asks_teacher else []), "index")
    files = {f"dialogues {entry['path']}": entry["path"] for entry in entries if entry.get("path")}
    packages = ("polars", *(["torch"] if asks_teacher else []))
    return Step("conversations", config, needs, job, files, packages=packages)


def _model(recipe: Recipe) -> Step:
    model = recipe.item_model
    files: dict[str, str] = {}
    config = _dump(model, "base") | ({} if model.base is None else _base(model.base, files))
    if model.base is None and (words := _further_words(recipe)):
        config["words"] = words  # its tokenizer knows them
    if model.init == "vectors":
        config["vectors"] = [recipe.index.encoder, recipe.index.encoder_options]
    needs = _needs(recipe, "data", "index")
    return Step("model", config, needs, work.make_model, files, packages=TORCH)


def _further_words(recipe: Recipe) -> dict[str, Any]:
    """The kinds of tasks beside the usual ones whose words the tokenizer of a new model is to know, and what the labels
    are made of that they speak of."""
    columns = control_columns(recipe.tasks)
    return {"control": columns} if columns else {}


def _stages(recipe: Recipe) -> list[Step]:
    steps: list[Step] = []
    given = [] if recipe.conversations is None else recipe.conversations.files
    files = {f"conversations {path}": conversation_inputs(path) for path in given}
    task = None if recipe.data is None else task_of(recipe, recipe.evaluate.task)
    for stage in recipe.trainings:
        stage = _validated(stage, task)
        before = steps[-1].name if steps else "model"
        learns_answers = isinstance(stage, RLStage)
        if isinstance(stage, RLStage):
            stage = _asking(recipe, stage)
            needs = _needs(recipe, "data", *(["teacher"] if stage.asks_teacher else []), before)
            job = partial(work.train_rl_stage, stage, before, task)
        else:
            needs = _needs(recipe, "data", "conversations", before)
            job = partial(work.train_stage, stage, before, task)
        steps.append(
            Step(
                f"train.{stage.name}",
                stage.decisive() | {"asked": task},
                needs,
                job,
                {} if learns_answers else files,
                resumes=True,
                together=True,
                packages=TORCH,
            )
        )
    return steps


def rl_stages(recipe: Recipe) -> list[tuple[RLStage, str]]:
    """The stages of reinforcement learning as they are run, and the step that each begins with."""
    names = ["model", *(f"train.{stage.name}" for stage in recipe.trainings)]
    first = len(recipe.stages)
    return [(_asking(recipe, stage), names[first + number]) for number, stage in enumerate(recipe.rl)]


def _validated(stage: Any, task: Any) -> Any:
    """A stage that validates with the prompts that the evaluation asks, where it doesn't say itself."""
    if stage.validation.task is not None:
        return stage
    return replace(stage, validation=replace(stage.validation, task=task))


def _asking(recipe: Recipe, stage: RLStage) -> RLStage:
    """A stage of reinforcement learning with what the evaluation does where it doesn't say itself."""
    rollout, asks = stage.rollout, stage.asks
    if rollout.exclude_history is None:
        excludes = recipe.evaluate.exclude_history and rollout.normalize != "legal"
        rollout = replace(rollout, exclude_history=excludes)
    if rollout.lists is not None:
        lists = tuple(_list_task(recipe, given) for given in asks.tasks)
        return replace(stage, rollout=rollout, asks=replace(asks, tasks=lists))
    given = asks.tasks or (recipe.evaluate.task,)
    tasks = tuple(
        task_of(recipe, name) if isinstance(name, str) else task_of(recipe, name["task"]) | name
        for name in given
    )
    return replace(stage, rollout=rollout, asks=replace(asks, tasks=tasks))


def _list_task(recipe: Recipe, given: str | dict[str, Any]) -> dict[str, Any]:
    """A task that asks for lists, with the options of the one that taught them."""
    own = {"task": given} if isinstance(given, str) else given
    base, _ = RL_TASKS.get(own["task"], (own["task"], None))
    taught = next(
        (arguments for arguments in task_entries(recipe) if arguments["task"] == base),
        _with_system(recipe, {"task": base}),
    )
    known = options_of(base, CONTROL_OPTIONS)
    return {key: value for key, value in taught.items() if key in known} | own


def _evaluate(recipe: Recipe, model: str) -> Step:
    config = _dump(recipe.evaluate, "k", "published", "control", *UNSEEN) | {
        "longest": max(recipe.evaluate.k)
    }
    config["task"] = task_of(recipe, recipe.evaluate.task)
    job = partial(rank, model, config["task"])
    needs = _needs(recipe, "data", "teacher", model)
    return Step("evaluate", config, needs, job, resumes=True, packages=TORCH)


def _report(recipe: Recipe) -> Step:
    config = {"k": recipe.evaluate.k, "published": [_dump(paper) for paper in recipe.evaluate.published]}
    asked = [] if recipe.model is None else ["evaluate", *(step.name for step in _lists(recipe))]
    told = [] if recipe.profile is None else last_profile_steps(recipe.profile)
    needs = ("data", *asked, *told)
    return Step("report", config, needs, work.report, packages=("numpy",))


def _lists(recipe: Recipe) -> list[Step]:
    """The test tasks of control, where they are asked for."""
    settings, part = recipe.evaluate.control, recipe.evaluate
    if settings is None:
        return []
    from itemic.pipeline.lists import make_lists, spoken_options

    config = settings_json(settings) | {key: getattr(part, key) for key in ("split", "thinking")}
    config["words"] = [spoken_options(recipe, test)[0] for test in settings.tests]
    if settings.price:  # the model's ranking is asked too
        config |= {key: getattr(part, key) for key in ("beams", "normalize")}
        config["task"] = task_of(recipe, part.task)
    needs = _needs(
        recipe, "data", *(["teacher"] if settings.unwanted == "teacher" else []), last_stage(recipe)
    )
    return [Step("lists", config, needs, partial(make_lists, settings), resumes=True, packages=TORCH)]

"""The steps of a recipe, in order: data → index → conversations → model → train.… → evaluate → report.

A recipe without data has no data, evaluate and report; one without tasks has no conversations but others' files.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from itemic.pipeline import work
from itemic.pipeline.step import Step
from itemic.recipe import Recipe
from itemic.recipe.inputs import conversation_inputs, data_inputs
from itemic.recipe.schema import DataPart
from itemic.recipe.tasks import options_of
from itemic.train.stage import SILENT, Stage

TORCH = ("torch", "transformers")


def steps_of(recipe: Recipe) -> list[Step]:
    """All steps of a run."""
    data = [] if recipe.data is None else [_data(recipe.data)]
    built = [_conversations(recipe)] if recipe.tasks else []
    stages = _stages(recipe)
    after = [] if recipe.data is None else [_evaluate(recipe, stages[-1].name), _report(recipe)]
    return [*data, _index(recipe), *built, _model(recipe), *stages, *after]


def last_stage(recipe: Recipe) -> str:
    """The step whose folder holds the finished model."""
    return _stages(recipe)[-1].name


def task_of(recipe: Recipe, name: str) -> dict[str, Any]:
    """A task with the options that it is trained with; of several entries the first one counts. One that only others'
    conversations teach has its defaults."""
    arguments = next((task.arguments for task in recipe.tasks if task.task == name), {})
    options = {key: value for key, value in arguments.items() if key in options_of(name)}
    return {"task": name, **options}


def _dump(part: Any, *without: str) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude=set(without))  # type: ignore[no-any-return]


def _needs(recipe: Recipe, *steps: str) -> tuple[str, ...]:
    """Of the steps that are to be read those that the recipe has."""
    absent = {"data": recipe.data is None, "conversations": not recipe.tasks}
    return tuple(step for step in steps if not absent.get(step))


def _data(data: DataPart) -> Step:
    config = _dump(data, "path") | {"split": data.split.model_dump(mode="json", exclude_unset=True)}
    files = data_inputs(data)
    return Step("data", config, (), work.make_data, files, packages=("polars", "numpy"))


def _index(recipe: Recipe) -> Step:
    index = recipe.index
    files = {"import": index.published} if index.published else {}
    packages = ("numpy", "scikit-learn", "torch")
    needs = _needs(recipe, "data")
    return Step("index", _dump(index, "published"), needs, work.make_index, files, packages=packages)


def _conversations(recipe: Recipe) -> Step:
    config = {"tasks": [_dump(task) for task in recipe.tasks]}
    return Step("conversations", config, ("data", "index"), work.make_conversations, packages=("polars",))


def _model(recipe: Recipe) -> Step:
    model = recipe.model
    config, files = _dump(model, "base"), {}
    if model.base is not None:
        if Path(model.base).expanduser().is_dir():
            files["base"] = model.base
        else:
            config["base"] = model.base
    if model.init == "vectors":
        config["vectors"] = [recipe.index.encoder, recipe.index.encoder_options]
    needs = _needs(recipe, "data", "index")
    return Step("model", config, needs, work.make_model, files, packages=TORCH)


def _stages(recipe: Recipe) -> list[Step]:
    steps: list[Step] = []
    given = [] if recipe.conversations is None else recipe.conversations.files
    files = {f"conversations {path}": conversation_inputs(path) for path in given}
    asked = {} if recipe.data is None else {"validate_task": task_of(recipe, recipe.evaluate.task)}
    for value in recipe.stages:
        stage = Stage.of(asked | value)
        before = steps[-1].name if steps else "model"
        config = {key: each for key, each in stage.to_json().items() if key not in SILENT}
        steps.append(
            Step(
                f"train.{stage.name}",
                config,
                _needs(recipe, "data", "conversations", before),
                partial(work.train_stage, stage, before),
                files,
                resumes=True,
                together=True,
                packages=TORCH,
            )
        )
    return steps


def _evaluate(recipe: Recipe, model: str) -> Step:
    config = _dump(recipe.evaluate, "k", "published", "batch_size") | {"longest": max(recipe.evaluate.k)}
    config["task"] = task_of(recipe, recipe.evaluate.task)
    job = partial(work.rank, model, config["task"])
    return Step("evaluate", config, ("data", model), job, resumes=True, packages=TORCH)


def _report(recipe: Recipe) -> Step:
    config = {"k": recipe.evaluate.k, "published": [_dump(paper) for paper in recipe.evaluate.published]}
    return Step("report", config, ("data", "evaluate"), work.report, packages=("numpy",))

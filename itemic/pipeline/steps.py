"""The steps of a recipe, in order: data → index → conversations → model → train.… → evaluate → report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from itemic.pipeline import work
from itemic.pipeline.step import Step
from itemic.recipe import Recipe
from itemic.recipe.tasks import options_of
from itemic.train.stage import SILENT, Stage

TORCH = ("torch", "transformers")


def steps_of(recipe: Recipe) -> list[Step]:
    """All steps of a run."""
    before = [_data(recipe), _index(recipe), _conversations(recipe), _model(recipe)]
    stages = _stages(recipe)
    return [*before, *stages, _evaluate(recipe, stages[-1].name), _report(recipe)]


def last_stage(recipe: Recipe) -> str:
    """The step whose folder holds the finished model."""
    return _stages(recipe)[-1].name


def task_of(recipe: Recipe, name: str) -> dict[str, Any]:
    """A task with the options that it is trained with; of several entries the first one counts."""
    arguments = next(task.arguments for task in recipe.tasks if task.task == name)
    options = {key: value for key, value in arguments.items() if key in options_of(name)}
    return {"task": name, **options}


def _dump(part: Any, *without: str) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude=set(without))  # type: ignore[no-any-return]


def _data(recipe: Recipe) -> Step:
    data = recipe.data
    config = _dump(data, "path")
    files = {}
    if data.path is not None:
        files["path"] = data.path
    return Step("data", config, (), work.make_data, files, packages=("polars", "numpy"))


def _index(recipe: Recipe) -> Step:
    index = recipe.index
    files = {"import": index.published} if index.published else {}
    packages = ("numpy", "scikit-learn", "torch")
    return Step("index", _dump(index, "published"), ("data",), work.make_index, files, packages=packages)


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
    return Step("model", config, ("data", "index"), work.make_model, files, packages=TORCH)


def _stages(recipe: Recipe) -> list[Step]:
    steps: list[Step] = []
    for value in recipe.stages:
        stage = Stage.of({"validate_task": task_of(recipe, recipe.evaluate.task)} | value)
        before = steps[-1].name if steps else "model"
        config = {key: each for key, each in stage.to_json().items() if key not in SILENT}
        steps.append(
            Step(
                f"train.{stage.name}",
                config,
                ("data", "conversations", before),
                partial(work.train_stage, stage, before),
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

"""Parts of a recipe that must fit each other and the world: names, files, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from itemic.model.presets import PRESETS
from itemic.recipe import schema as names
from itemic.recipe.control import ASK_TEACHER, CONTROL_OPTIONS
from itemic.recipe.profile import profile_faults
from itemic.recipe.schema import DataPart, EvaluatePart, IndexPart, ModelPart, TaskPart
from itemic.recipe.tasks import OF_CODES, PLAIN, TASK_OPTIONS
from itemic.rl.settings import LIST_REWARD_NAMES, REWARD_NAMES, RL_TASKS, RLStage
from itemic.settings import MISSING_KEY, KeyPath, meant
from itemic.trackers import TRACKERS
from itemic.training.language.stage import Stage

OF_TITLES = ("column", "max_tokens")  # keys of index
_STAGE_NAME = re.compile(r"[A-Za-z0-9][\w\-]*")


def fit_faults(sections: dict[str, Any], given: set[str]) -> Iterator[tuple[KeyPath, str]]:
    """Faults of sections that are sound one by one.

    Args:
        sections: by name, those that could be read.
        given: the names that the recipe's text has.
    """
    for name, check in _CHECKS.items():
        if sections.get(name) is not None:
            yield from check(sections[name])
    yield from _blend_faults(sections.get("evaluate"), sections.get("teacher") is not None)
    yield from _rl_faults(sections, given)
    yield from _control_faults(sections)
    yield from profile_faults(sections.get("profile"), given)
    if not {"model", "stages"} & given and "profile" in given:
        yield from _faults_without_model(sections, given)
        return
    for name in ("model", "stages"):
        if name not in given:
            yield (name,), MISSING_KEY
    if getattr(sections.get("index"), "names", None) == "title":
        yield from _faults_of_titles(sections, given)
    if not {"tasks", "conversations"} & given:
        yield ("tasks",), "is missing: give tasks (which need data), conversations, or both"
    elif "data" not in given:
        yield from _faults_without_data(sections, given)
    elif {"evaluate", "tasks"} <= set(sections):
        asked, built = sections["evaluate"].task, list(dict.fromkeys(task.task for task in sections["tasks"]))
        elsewhere = not built or "conversations" in given  # it may be taught by the files
        if not elsewhere and asked not in built and set(built) <= {*TASK_OPTIONS, *CONTROL_OPTIONS}:
            yield (
                ("evaluate", "task"),
                f"{asked!r} is not among the tasks that are trained: {', '.join(built)}",
            )


def _control_faults(sections: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Tasks and tests that ask a teacher, where there is none."""
    tests = getattr(sections.get("evaluate"), "control", None)
    if tests is not None and tests.unwanted == "teacher" and sections.get("teacher") is None:
        yield (
            ("evaluate", "control", "unwanted"),
            "is the teacher's, and the recipe has none; add teacher: true",
        )
    for i, task in enumerate(sections.get("tasks") or []):
        if task.task in ASK_TEACHER and sections.get("teacher") is None:
            yield (
                ("tasks", i, "task"),
                f"{task.task!r} asks the sequential teacher, and the recipe has none; add teacher: true",
            )


def _blend_faults(part: EvaluatePart | None, teacher: bool) -> Iterator[tuple[KeyPath, str]]:
    """Rankers of a blend that there aren't."""
    if part is None or part.blend is None:
        return
    key = "rankers" if part.blend.rankers is not None else "weights"
    for name in part.blend.named(teacher):
        if name == "teacher" and not teacher:
            yield (
                ("evaluate", "blend", key),
                "names the teacher, and the recipe has none; add a section teacher",
            )
        elif name not in ("model", "teacher", *names.BASELINES):
            known = ("model", "teacher", *names.BASELINES)
            yield ("evaluate", "blend", key), f"unknown ranker {name!r}" + meant(name, known)


def _faults_of_titles(sections: dict[str, Any], given: set[str]) -> Iterator[tuple[KeyPath, str]]:
    """What needs semantic IDs, in a recipe whose items go by their titles."""
    if "data" not in given:
        yield ("index", "names"), "'title' needs data, whose items have titles"
    for i, task in enumerate(sections.get("tasks") or []):
        if task.task in OF_CODES:
            yield (
                ("tasks", i, "task"),
                f"{task.task!r} is about semantic IDs, and items go by their titles here",
            )
        elif task.arguments.get("history_text", "sid") != "sid":
            yield ("tasks", i, "history_text"), "items go by their titles: 'sid' shows those; leave it out"
    evaluate, model = sections.get("evaluate"), sections.get("model")
    if evaluate is not None and evaluate.task in OF_CODES:
        yield (
            ("evaluate", "task"),
            f"{evaluate.task!r} is about semantic IDs, and items go by their titles here",
        )
    if model is not None and model.init in ("text", "vectors"):
        yield ("model", "init"), f"{model.init!r} starts the rows of new tokens, and titles need none"
    for i, stage in enumerate(sections.get("stages") or []):
        if stage.train.what == "embeddings":
            yield ("stages", i, "train"), "'embeddings' teaches new tokens alone, and titles need none"


def _faults_without_model(sections: dict[str, Any], given: set[str]) -> Iterator[tuple[KeyPath, str]]:
    """What a recipe can't ask for that describes users in words and no more."""
    problem = "is about a model that names items, and the recipe has none; add model and stages"
    for name in sorted({"index", "tasks", "conversations", "rl"} & given):
        yield (name,), problem
    part = sections.get("evaluate")
    if part is not None:
        for key in _given(part, (key for key in _keys(part) if key not in ("split", "published"))):
            yield ("evaluate", key), problem


def _faults_without_data(sections: dict[str, Any], given: set[str]) -> Iterator[tuple[KeyPath, str]]:
    """What a recipe can't ask for that has conversation files alone."""
    for name in ("teacher", "tasks", "evaluate"):
        if name in given:
            yield (name,), "needs data, and the recipe has none"
    index = sections.get("index")
    if index is not None and index.names != "title":
        if index.published is None and index.levels is None:
            yield ("index",), "without data it needs import (items and codes) or levels (the codes alone)"
        vain = ("encoder", "encoder_options", "quantizer", "quantizer_options", "duplicates", "unknown")
        for key in _given(index, vain if index.published is None else vain[-2:]):
            yield ("index", key), "has no meaning without data"
        if index.published is None:
            for key in _given(index, ("collisions",)):
                yield ("index", key), "has no meaning without items"
    model = sections.get("model")
    if model is not None and model.init in ("text", "vectors"):
        yield ("model", "init"), f"{model.init!r} needs data, whose items have texts; use another one"
    for i, stage in enumerate(sections.get("stages", [])):
        for key in ("every", "samples", "task"):
            if getattr(stage.validation, key):
                yield ("stages", i, "validation", key), "needs data, whose users are asked about"


def _one_of(path: KeyPath, value: str | None, known: Iterable[str]) -> Iterator[tuple[KeyPath, str]]:
    if value is not None and value not in known:
        yield path, f"unknown {path[-1]} {value!r}" + meant(value, known)


def _keys(part: BaseModel) -> list[str]:
    return [field.alias or name for name, field in type(part).model_fields.items()]


def _given(part: BaseModel, keys: Iterable[str]) -> list[str]:
    aliases = {name: field.alias or name for name, field in type(part).model_fields.items()}
    given = {aliases[name] for name in part.model_fields_set}
    return [key for key in keys if key in given]


def _data_faults(data: DataPart) -> Iterator[tuple[KeyPath, str]]:
    yield from _one_of(("data", "format"), data.format, names.FORMATS)
    for key in data.options:
        if key in (*type(data).model_fields, "seed"):
            where = "beside options, in data itself" if key != "seed" else "at the top of the recipe"
            yield ("data", "options", key), f"is no option of a format: it stands {where}"
    if data.simulate is None and (data.format is None or data.path is None):
        yield ("data",), "needs a format and a path, or simulate"
    if data.simulate is not None:
        vain = ("format", "path", "options", "on_bad_row", "missing_text")
        for key in _given(data, (*vain, "limit_users", "limit_items", "limit_rows")):
            yield ("data", key), "has no meaning beside simulate"


def _index_faults(index: IndexPart) -> Iterator[tuple[KeyPath, str]]:
    yield from _one_of(("index", "names"), index.names, names.NAMES)
    if index.names == "title":
        of_titles = {"names", *OF_TITLES}
        for key in _given(index, (name for name in _keys(index) if name not in of_titles)):
            yield ("index", key), "is about semantic IDs, and items go by their titles here (names: title)"
        return
    for key in _given(index, OF_TITLES):
        yield ("index", key), "is about titles; it needs names: title"
    yield from _one_of(("index", "encoder"), index.encoder, names.ENCODERS)
    yield from _one_of(("index", "quantizer"), index.quantizer, names.QUANTIZERS)
    yield from _one_of(("index", "collisions"), index.collisions, names.COLLISIONS)
    yield from _one_of(("index", "format"), index.format, names.TOKEN_FORMATS)
    if index.levels is not None and not 2 <= len(index.levels) <= 8:
        yield ("index", "levels"), f"give the sizes of 2 to 8 levels, not of {len(index.levels)}"
    if index.published is None:
        for key in _given(index, ("unknown",)):
            yield ("index", key), "has no meaning without import"
        return
    for key in _given(index, ("encoder", "encoder_options", "quantizer", "quantizer_options")):
        yield ("index", key), "has no meaning beside import"
    if index.collisions == "reassign":
        yield (
            ("index", "collisions"),
            "'reassign' needs item vectors, which published codes don't have; use keep or rank",
        )


def _model_faults(model: ModelPart) -> Iterator[tuple[KeyPath, str]]:
    yield from _one_of(("model", "preset"), model.preset, PRESETS)
    if (model.preset is None) == (model.base is None):
        yield ("model",), "needs one of preset (random weights) and base (a model to expand)"
        return
    strangers = ("vocab_size", "max_length", "overrides") if model.base else ("pad_to", "tie", "revision")
    for key in _given(model, strangers):
        yield ("model", key), f"has no meaning beside {'base' if model.base else 'preset'}"
    known = names.EXPAND_INITS if model.base else names.NEW_INITS
    yield from _one_of(("model", "init"), model.init, known)


def _task_faults(tasks: list[TaskPart]) -> Iterator[tuple[KeyPath, str]]:
    for i, task in enumerate(tasks):
        yield from _one_of(("tasks", i, "task"), task.task, [*TASK_OPTIONS, *CONTROL_OPTIONS])


def _evaluate_faults(part: EvaluatePart) -> Iterator[tuple[KeyPath, str]]:
    if part.beams < max(part.k):
        yield ("evaluate", "beams"), f"{part.beams} beams can't rank k = {max(part.k)} items"
    if part.thoughts is not None and part.task in PLAIN:
        yield (
            ("evaluate", "thoughts"),
            f"task {part.task!r} asks in plain texts, which have no turns and so no thoughts; ask another, such as C",
        )
    for i, name in enumerate(part.baselines):
        yield from (
            (("evaluate", "baselines", i), text) for _, text in _one_of(("baseline",), name, names.BASELINES)
        )
    for i, name in enumerate(part.trackers or []):
        yield from ((("evaluate", "trackers", i), text) for _, text in _one_of(("tracker",), name, TRACKERS))
    for i, paper in enumerate(part.published):
        for key in paper.metrics:
            if not re.fullmatch(r"(hr|recall|ndcg|mrr)@[1-9]\d*", key.lower()):
                yield (
                    ("evaluate", "published", i, "metrics", key),
                    "is no metric; write hr@10, recall@10, ndcg@10, mrr@10",
                )


def _stage_faults(
    stages: Sequence[Stage | RLStage], section: str = "stages", seen: Iterable[str] = ()
) -> Iterator[tuple[KeyPath, str]]:
    names = set(seen)
    for i, stage in enumerate(stages):
        if stage.name in names:
            yield (section, i, "name"), f"{stage.name!r} is the name of an earlier stage; give each its own"
        elif not _STAGE_NAME.fullmatch(stage.name):
            yield (section, i, "name"), f"{stage.name!r} can't name a folder; use letters, digits, - and _"
        names.add(stage.name)
        asked = stage.validation.task
        asked = asked.get("task") if isinstance(asked, dict) else asked
        yield from _one_of((section, i, "validation", "task"), asked, TASK_OPTIONS)


def _rl_faults(sections: dict[str, Any], given: set[str]) -> Iterator[tuple[KeyPath, str]]:
    """What stages of reinforcement learning ask for that others have to bring."""
    stages: list[RLStage] = sections.get("rl") or []
    if stages and "data" not in given:
        yield ("rl",), "needs data, whose users are asked about"
    yield from _stage_faults(stages, "rl", (stage.name for stage in sections.get("stages") or []))
    titles = sections.get("index") is not None and sections["index"].names == "title"
    for i, stage in enumerate(stages):
        for place, task in enumerate(stage.asks.tasks):
            name = task.get("task") if isinstance(task, dict) else task
            known = TASK_OPTIONS if stage.rollout.lists is None else {**RL_TASKS, **CONTROL_OPTIONS}
            yield from _one_of(("rl", i, "asks", "tasks", place), name, known)
        if stage.rollout.lists is not None:
            if not stage.asks.tasks:
                yield ("rl", i, "asks", "tasks"), "names no task; lists are asked for by tasks of control"
            if sections.get("teacher") is None:
                yield (
                    ("rl", i, "rollout", "lists"),
                    "ask the sequential teacher, and the recipe has none; add teacher: true",
                )
        for name in stage.rewards:
            path = ("rl", i, "rewards", name)
            known_rewards = REWARD_NAMES if stage.rollout.lists is None else LIST_REWARD_NAMES
            if ":" not in name and name not in known_rewards:
                yield path, f"unknown reward {name!r}" + meant(name, known_rewards)
            if name in ("teacher", "blend") and stage.asks_teacher and sections.get("teacher") is None:
                yield path, "asks the sequential teacher, and the recipe has none; add teacher: true"
            if name == "prefix" and titles:
                yield path, "is about semantic IDs, and items go by their titles here"
        if "teacher" in stage.rollout.suggest and sections.get("teacher") is None:
            asked = "asks the sequential teacher, and the recipe has none; add teacher: true"
            yield ("rl", i, "rollout", "suggest", "teacher"), asked
        if stage.train.what == "embeddings" and titles:
            yield ("rl", i, "train"), "'embeddings' teaches new tokens alone, and titles need none"


_CHECKS: dict[str, Callable[[Any], Iterator[tuple[KeyPath, str]]]] = {
    "data": _data_faults,
    "index": _index_faults,
    "model": _model_faults,
    "tasks": _task_faults,
    "stages": _stage_faults,
    "evaluate": _evaluate_faults,
}

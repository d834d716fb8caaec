"""Sections whose keys are the settings of a room: checked against the room's own dataclass, or its mirror."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from itemic.errors import ConfigError
from itemic.recipe.source import KeyPath
from itemic.recipe.tasks import TASK_OPTIONS
from itemic.recipe.words import meant


def settings_faults(value: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Faults of stages, filters and the simulator, whose keys are those of the rooms' own dataclasses."""
    from itemic.training.language.stage import Stage

    stages = value.get("stages")
    for i, stage in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(stage, dict):
            yield from table_faults(Stage, stage, ("stages", i))
    tasks = value.get("tasks")
    for i, task in enumerate(tasks if isinstance(tasks, list) else []):
        if isinstance(task, dict) and task.get("task") in TASK_OPTIONS:
            yield from _option_faults(task, ("tasks", i))
    data = value.get("data")
    section = data if isinstance(data, dict) else {}
    if isinstance(filters := section.get("filters"), dict):
        from itemic.data.settings import FilterRule

        yield from table_faults(FilterRule, filters, ("data", "filters"))
    if isinstance(simulate := section.get("simulate"), dict):
        from itemic.data.settings import SimulatorConfig

        yield from table_faults(SimulatorConfig, simulate, ("data", "simulate"))


def _option_faults(task: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    options = TASK_OPTIONS[task["task"]]
    try:
        options.model_validate(task)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            key = str(found["loc"][0])
            if found["type"] == "extra_forbidden":
                yield (*path, key), "unknown option" + meant(key, options.model_fields)
            else:
                yield (*path, key), f"is {task[key]!r}: {found['msg'][0].lower()}{found['msg'][1:]}"


def table_faults(table: type[Any], value: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Why a frozen dataclass can't be made of these values: keys, types, then its own complaints."""
    hints = {key: hint for key, hint in get_type_hints(table).items() if key in table.__dataclass_fields__}
    clean, faulty = {}, False
    for key, given in value.items():
        if key not in hints:
            faulty = True
            yield (*path, key), "unknown key" + meant(key, hints)
            continue
        try:
            clean[key] = TypeAdapter(hints[key]).validate_python(given)
        except ValidationError as error:
            faulty = True
            messages = dict.fromkeys(found["msg"] for found in error.errors(include_url=False))
            yield (*path, key), f"is {given!r}: {' or '.join(m[0].lower() + m[1:] for m in messages)}"
    try:
        table(**clean)
    except ConfigError as error:
        for problem in _pieces(error.message, list(hints)):
            words = re.findall(r"\w+", problem)
            key = next((word for word in words if word in hints), "") or next(
                (key for key, given in clean.items() if repr(given) in problem), ""
            )
            # a fault that other faults may have brought about is not worth telling twice
            if not faulty or key in clean:
                yield (*path, key) if key in value else path, problem.removeprefix(f"{key} ")


def _pieces(message: str, keys: list[str]) -> list[str]:
    """A room's message taken apart: a piece begins where a `; ` is followed by one of the keys."""
    body = re.sub(r"^(stage '[^']*'|no such marketplace): ", "", message)
    starts = "|".join(map(re.escape, keys))
    return re.split(rf"; (?=(?:{starts})\b)", body)

"""All tasks by name. A new one is a class and one row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from itemic.errors import ConfigError
from itemic.schema import SYSTEM
from itemic.tasks.next_title import NextTitle
from itemic.tasks.profile import ProfileNext
from itemic.tasks.rationale import Rationale
from itemic.tasks.semantic import Semantics
from itemic.tasks.sequence import ItemSequence
from itemic.tasks.sequential import Sequential
from itemic.tasks.sid_to_text import SidToText
from itemic.tasks.task import Task
from itemic.tasks.text_to_sid import TextToSid
from itemic.tasks.transitions import Transitions

Kind = TypeVar("Kind", bound=Task)

TASKS: dict[str, Task] = {
    "A": SidToText(),
    "B": TextToSid(),
    "C": Sequential(),
    "D": Semantics(),
    "E": Transitions(),
    "F": NextTitle(),
    "profile": ProfileNext(),
    "rationale": Rationale(),
    "sequence": ItemSequence(),
}


def make_task(name: str, **options: Any) -> Task:
    """The task of that name with other options than its usual ones.

    Raises:
        ConfigError: there is no such task or option, or the option's value can't work.
    """
    return task_from(TASKS, name, options)


def task_from(table: Mapping[str, Kind], name: str, options: Mapping[str, Any]) -> Kind:
    """The same of any table of tasks."""
    if name not in table:
        raise ConfigError(f"unknown task {name!r}", f"Use one of {', '.join(table)}.")
    known = [field.name for field in fields(table[name])]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError(f"task {name} has no option {', '.join(unknown)}", f"It has {', '.join(known)}.")
    try:
        return replace(table[name], **options)
    except TypeError as error:
        raise ConfigError(f"task {name}: {error}", "Correct the type of the option.") from error


def task_options(task: Task) -> dict[str, Any]:
    """A task as plain JSON, ``{"task": "C", …}`` with all its options; :func:`make_task` makes the same again."""
    options = {field.name: getattr(task, field.name) for field in fields(task)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return {"task": task.name, **plain}


def task_of(value: str | Mapping[str, Any] | Task) -> Task:
    """A task from its name, from ``{"task": "C", …}``, or as it is.

    Raises:
        ConfigError: none of them, or one that :func:`make_task` refuses.
    """
    if isinstance(value, Task):
        return value
    options = {"task": value} if isinstance(value, str) else value
    if not isinstance(options, Mapping) or not isinstance(options.get("task"), str):
        raise ConfigError(f"{value!r} is no task", 'Write the name of a task, or e.g. {"task": "C"}.')
    own = dict(options)
    return task_from(TASKS, own.pop("task"), own)


def prompt_words(system: str | None = SYSTEM, times: int = 20) -> list[str]:
    """All wording of all tasks, ``times`` over: text for a tokenizer that is trained on the catalogue, so that it
    doesn't spell the constant part of every prompt in single letters.

    Tasks and kinds that came later (F, profile, E's "together") stay out of it: with their words, every model from
    scratch would have other tokens than before. The words of rationale are those of C.
    """
    known = [task for name, task in TASKS.items() if name not in ("F", "profile", "rationale")]
    leads = [
        lead
        for task in known
        for kind, wordings in task.leads.items()
        if kind not in getattr(task, "beside", ())
        for lead in wordings
    ]
    return [*([] if system is None else [system]), *leads] * times

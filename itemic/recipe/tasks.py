"""The options of each task as a recipe spells them: the fields of the classes in ``itemic.tasks`` (a test
compares)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from itemic.schema import SYSTEM
from itemic.settings import Amount, Count, KeyPath, Positive, Switch, Text, faults_of, wrong

Kind = TypeVar("Kind")


def _once(kinds: list[Kind]) -> list[Kind]:
    if len(set(kinds)) < len(kinds):
        raise wrong("names one twice", kinds)
    return kinds


Kinds = (
    Annotated[list[Kind], Field(min_length=1), AfterValidator(_once)] | None
)  # of conversation, None for all


class TaskOptions(BaseModel):
    """What every task takes: where its rows go in the mixture, and how many of its wordings are used.

    Attributes:
        task: which one.
        source: the name that its conversations carry, by which stages weigh them; the task's own unless given.
        limit: the most conversations; None for all.
        weight: its share of the conversations of all tasks with a weight; None keeps all of them.
        seed: of its random choices; None for the recipe's.
    """

    model_config = ConfigDict(extra="forbid")

    task: Text
    source: Annotated[Text, Field(pattern=r"^[^/.][^/]*$")] | None = None
    limit: Count | None = None
    weight: Positive | None = None
    seed: Amount | None = None
    templates: Count | None = None
    system: Text | None = SYSTEM


class SidToText(TaskOptions):
    """Task A."""

    kinds: Kinds[Literal["title", "description", "category", "context"]] = None


class TextToSid(TaskOptions):
    """Task B."""

    kinds: Kinds[
        Literal["title", "title part", "title and category", "description", "category", "context"]
    ] = None


class Windowed(TaskOptions):
    """Tasks that show a history."""

    max_items: Count | None = 50


UserText = Switch | Annotated[list[Text], Field(min_length=1), AfterValidator(_once)]  # all columns, or some


class Sequential(Windowed):
    """Task C."""

    templates: Count | None = 1
    user_text: UserText = False
    windows: Annotated[list[Count | Literal["all"]], Field(min_length=1)] = [2, 3, 5, "all"]
    window: Literal["sliding", "blocks"] = "sliding"
    history_text: Literal["sid", "sid+title", "title"] = "sid"
    split_points: Literal["every", "last"] = "every"
    thoughts: Literal["none", "categories"] = "none"


class NextTitle(Windowed):
    """Task F."""

    templates: Count | None = 1
    user_text: UserText = False
    window: Literal["sliding", "blocks"] = "sliding"
    split_points: Literal["every", "last"] = "every"


class Profile(Windowed):
    """Task profile."""

    templates: Count | None = 1
    kinds: Kinds[Literal["profile", "profile and history"]] = None
    window: Literal["sliding", "blocks"] = "sliding"
    split_points: Literal["every", "last"] = "every"


class Rationale(Windowed):
    """Task rationale."""

    templates: Count | None = 1
    user_text: UserText = False
    window: Literal["sliding", "blocks"] = "sliding"
    history_text: Literal["sid", "sid+title", "title"] = "sid"
    split_points: Literal["every", "last"] = "every"
    latest: Count = 5
    says: Annotated[
        list[Literal["category", "brand", "word", "follows", "next"]],
        Field(min_length=1),
        AfterValidator(_once),
    ] = ["category", "brand", "word", "follows", "next"]


class ItemSequence(Windowed):
    """Task sequence."""

    overlap: Amount = 0
    cuts: Amount = 0
    beginnings: Amount = 0


class Semantic(TaskOptions):
    """Task D."""

    examples: Count = 5


class Transitions(TaskOptions):
    """Task E."""

    kinds: Kinds[Literal["next", "before", "next of category", "together"]] = None
    per_item: Count = 30


TASK_OPTIONS: dict[str, type[TaskOptions]] = {
    "A": SidToText,
    "B": TextToSid,
    "C": Sequential,
    "D": Semantic,
    "E": Transitions,
    "F": NextTitle,
    "profile": Profile,
    "rationale": Rationale,
    "sequence": ItemSequence,
}


OF_CODES = ("B", "D", "F")  # tasks that make no sense where items go by titles
PLAIN = ("sequence",)  # tasks whose conversations are plain texts, without a system turn


def options_of(name: str, known: Mapping[str, type[TaskOptions]] = TASK_OPTIONS) -> dict[str, Any]:
    """The options of a task alone, with their defaults."""
    mixture = {"task", "source", "limit", "weight", "seed"}
    return {key: field.default for key, field in known[name].model_fields.items() if key not in mixture}


def option_faults(tasks: Any, known: Mapping[str, type[TaskOptions]]) -> Iterator[tuple[KeyPath, str]]:
    """Faults of the options of a recipe's tasks, by the options of those that are known."""
    for i, task in enumerate(tasks if isinstance(tasks, list) else []):
        name = task.get("task") if isinstance(task, dict) else None
        if isinstance(name, str) and name in known:
            try:
                known[name].model_validate(task)
            except ValidationError as error:
                for path, problem in faults_of(known[name], error):
                    yield ("tasks", i, *path), problem

"""Changes of a recipe: which key, to what, and why; applied to plain values, and checked as any recipe is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from itemic.recipe import Recipe, RecipeError, check_recipe, dump_recipe
from itemic.recipe.schema import TaskPart
from itemic.recipe.source import Fault, show
from itemic.settings import KeyPath, settings_json

APPEND = "+"  # the last key of a path into a list: a new entry at its end
Values = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One key of a recipe and what it should be.

    Attributes:
        path: the key; ``+`` as its last part adds an entry to a list.
        value: what it becomes.
        before: what it is now, defaults included; None where there is nothing.
        reason: one sentence.
        bundle: changes of the same bundle are made together or not at all; empty for one that stands alone.
    """

    path: KeyPath
    value: Any
    before: Any
    reason: str
    bundle: str = ""

    @property
    def key(self) -> str:
        """As a person writes it: ``stages.0.epochs``."""
        return show(self.path)

    @property
    def words(self) -> str:
        """``"stages.0.epochs: 8 → 12"``."""
        if self.path[-1] == APPEND:
            return f"{show(self.path[:-1])}: add {flow(self.value)}"
        return f"{self.key}: {'nothing' if self.before is None else flow(self.before)} → {flow(self.value)}"

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "value": self.value, "before": self.before, "reason": self.reason}


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text.removesuffix("\n").removesuffix("\n...")


def plain(recipe: Recipe) -> Values:
    """What a recipe says, as mappings, lists and values."""
    return yaml.safe_load(dump_recipe(recipe))  # type: ignore[no-any-return]


def value_at(recipe: Recipe, path: Sequence[str | int]) -> Any:
    """The value of a key, its default where the recipe doesn't say it; None where there is no such thing."""
    here: Any = recipe
    for key in path:
        if here is None or key == APPEND:
            return None
        if isinstance(here, TaskPart) and key != "task":
            here = here.arguments.get(str(key))
        elif isinstance(here, list | tuple):
            here = here[key] if isinstance(key, int) and key < len(here) else None
        elif isinstance(here, dict):
            here = here.get(key)
        else:
            fields = getattr(type(here), "model_fields", {})
            named = next((name for name, field in fields.items() if field.alias == key), key)
            here = getattr(here, str(named), None)
    return settings_json(here) if not hasattr(here, "model_dump") else here.model_dump(mode="json")


def patched(values: Values, changes: Iterable[Change]) -> Values:
    """A copy of a recipe's values with the changes made."""
    found = deepcopy(values)
    for change in changes:
        _assign(found, change.path, deepcopy(change.value))
    return found


def _assign(root: Any, path: KeyPath, value: Any) -> None:
    here = root
    for key, after in pairwise(path):
        if isinstance(here, dict):
            if here.get(key) is None:
                here[key] = [] if after == APPEND else {}
            here = here[key]
        else:
            here = here[int(key)]
    if path[-1] == APPEND:
        here.append(value)
    elif isinstance(here, dict):
        here[path[-1]] = value
    else:
        here[int(path[-1])] = value


def to_text(values: Values) -> str:
    """A recipe's values as YAML."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def faults_in(values: Values) -> list[Fault]:
    """All that is wrong with a recipe of these values."""
    return try_values(values)[1]


def try_values(values: Values) -> tuple[Recipe | None, list[Fault]]:
    """The recipe of these values, or all that is wrong with it."""
    with TemporaryDirectory(prefix="itemic-recipe-") as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(to_text(values), encoding="utf-8")
        try:
            return check_recipe(file)[0], []
        except RecipeError as error:
            return None, error.faults


def possible(values: Values, changes: Sequence[Change]) -> tuple[list[Change], list[str]]:
    """Those changes that leave a recipe as sound as it is, and why the others can't be made.

    Args:
        values: of the recipe as it is. What is wrong with it already, such as data that have moved, is no fault of a
            change.
        changes: to be made together.
    """
    known = {(fault.path, fault.problem) for fault in faults_in(values)}
    kept, told = list(changes), []
    while kept:
        found = patched(values, kept)
        new = [fault for fault in faults_in(found) if (fault.path, fault.problem) not in known]
        if not new:
            break
        guilty = _guilty(values, kept, new[0].path)
        told.append(f"{guilty.key}: {show(new[0].path)}: {new[0].problem}")
        kept = [
            each for each in kept if each is not guilty and not (each.bundle and each.bundle == guilty.bundle)
        ]
    return kept, told


def _guilty(values: Values, changes: Sequence[Change], path: KeyPath) -> Change:
    """The change that a fault is about: the one that shares most of its path, the last of several."""

    def shared(change: Change) -> int:
        own = change.path
        if own[-1] == APPEND:
            ahead = [each for each in changes[: changes.index(change)] if each.path == own]
            own = (*own[:-1], _length(values, own[:-1]) + len(ahead))
        return next(
            (depth for depth, (a, b) in enumerate(zip(own, path, strict=False)) if a != b),
            min(len(own), len(path)),
        )

    return max(reversed(changes), key=shared)


def _length(values: Any, path: KeyPath) -> int:
    for key in path:
        values = values.get(key, []) if isinstance(values, dict) else values[int(key)]
    return len(values or [])

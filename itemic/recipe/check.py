"""All faults of a recipe at once: unknown keys, wrong values, and parts that don't fit each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from itemic.errors import ConfigError
from itemic.recipe.control import CONTROL_OPTIONS
from itemic.recipe.fit import fit_faults
from itemic.recipe.inputs import missing_inputs, on_the_hub
from itemic.recipe.schema import Recipe
from itemic.recipe.source import Fault, Source, read_source
from itemic.recipe.tasks import TASK_OPTIONS, option_faults
from itemic.settings import KeyPath, faults_of


class RecipeError(ConfigError):
    """A recipe with faults; all of them are in ``faults``, in the order of their lines."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{file} has {count}:\n{lines}", "Mend them and run `itemic check` again.")
        self.faults = faults

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message.partition(" has ")[0], self.faults))


def load_recipe(file: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        file: YAML, or the name of a recipe that comes with the package, such as ``quickstart``.
        overrides: ``a.b=c`` texts; values are YAML, a number in the path is a place in a list.

    Raises:
        RecipeError: naming every fault with its line, its key and, what was meant.
    """
    recipe, waiting = check_recipe(file, overrides)
    if waiting:
        raise RecipeError(str(file), waiting)
    return recipe


def check_recipe(file: str | Path, overrides: Iterable[str] = ()) -> tuple[Recipe, list[Fault]]:
    """As :func:`load_recipe`, but files may be missing where nobody has said yet where they are.

    Returns:
        the recipe, and what it waits for: files at the default of a variable (``${NAME:-default}``) that isn't set.
        A missing file that is named outright is a fault like any other.

    Raises:
        RecipeError: as :func:`load_recipe`, with what it waits for among the faults.
    """
    source = read_source(file, overrides)
    if source.faults:
        raise RecipeError(source.file, source.faults)
    recipe, sections = _parse(source)
    for path, problem in option_faults(source.value.get("tasks"), TASK_OPTIONS | CONTROL_OPTIONS):
        source.fault(path, problem)
    told = {fault.path for fault in source.faults}
    for path, problem in fit_faults(sections, set(source.value)):
        if not any(known[: len(path)] == path for known in told):  # else it may be but the echo of that fault
            source.fault(path, problem)
    waiting = []
    for path, problem in missing_inputs(sections):
        named = (path, path[:-1])  # a list of one may be written as its only value
        variable = next((name for at, name in source.unset.items() if at in named), None)
        if variable is None:
            if not on_the_hub(_base(sections, path)):
                source.fault(path, problem)
        else:
            waiting.append(Fault(source.place(path), path, f"{problem}; set {variable} to where it is"))
    if source.faults or recipe is None:
        raise RecipeError(source.file, sorted(dict.fromkeys([*source.faults, *waiting]), key=_line))
    return recipe, waiting


def _base(sections: dict[str, Any], path: KeyPath) -> str:
    """The model that a path names; empty where it names something else."""
    found: dict[KeyPath, Callable[[], Any]] = {
        ("model", "base"): lambda: sections["model"].base,
        ("profile", "writer", "base"): lambda: sections["profile"].writer.base,
    }
    return str(found[path]()) if path in found else ""


def _line(fault: Fault) -> tuple[bool, int]:
    line = fault.place.rpartition(":")[2]
    return (not line.isdigit(), int(line) if line.isdigit() else 0)


def _parse(source: Source) -> tuple[Recipe | None, dict[str, Any]]:
    """The recipe where all its keys are right, and in any case the sections that can be looked at."""
    try:
        recipe = Recipe.model_validate(source.value)
        return recipe, {name: getattr(recipe, name) for name in Recipe.model_fields}
    except ValidationError as error:
        found = list(faults_of(Recipe, error))
    rest = deepcopy(source.value)
    for path, problem in found:
        source.fault(path, problem)
        _prune(rest, path)
    sections = {}
    for name, field in Recipe.model_fields.items():
        with suppress(ValidationError):
            adapter: TypeAdapter[Any] = TypeAdapter(field.annotation or Any)
            sections[name] = adapter.validate_python(rest.get(name, field.default))
    return None, sections


def _prune(value: Any, path: KeyPath) -> None:
    """Take a faulty key out of its mapping."""
    here: Any = value
    for key in path[:-1]:
        known = here if isinstance(here, dict) else dict(enumerate(here)) if isinstance(here, list) else {}
        here = known.get(key)
    if isinstance(here, dict):
        here.pop(path[-1], None)

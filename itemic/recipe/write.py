"""A recipe back as text: what a run folder keeps of the recipe that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from itemic.errors import ArtifactError
from itemic.recipe.part import Part
from itemic.recipe.schema import Recipe, TaskPart
from itemic.recipe.source import show
from itemic.settings import faults_of, settings_json


def dump_recipe(recipe: Recipe) -> str:
    """YAML that :func:`load_recipe` reads back as the same recipe, overrides and variables resolved."""
    return yaml.safe_dump(_given(recipe), sort_keys=False, allow_unicode=True, width=100)


def _given(value: Any) -> Any:
    """What a recipe says, without what is usual."""
    if isinstance(value, TaskPart):
        return {"task": value.task, **value.arguments}
    if isinstance(value, Part):
        names = {name: field.alias or name for name, field in type(value).model_fields.items()}
        return {
            key: _given(getattr(value, name)) for name, key in names.items() if name in value.model_fields_set
        }
    if isinstance(value, list):
        return [_given(each) for each in value]
    return settings_json(value, usual=False)


def read_resolved(file: str | Path) -> Recipe:
    """The recipe that a run folder keeps; whether the files it names are still there is not asked.

    Raises:
        ArtifactError: it can't be read.
    """
    try:
        return Recipe.model_validate(yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    except ValidationError as error:
        told = "; ".join(f"{show(path)}: {problem}" for path, problem in faults_of(Recipe, error))
        raise ArtifactError(f"{file} is not a run's recipe: {told}", "Start the run again.") from error
    except (OSError, yaml.YAMLError) as error:
        raise ArtifactError(f"{file} is not a run's recipe: {error}", "Start the run again.") from error

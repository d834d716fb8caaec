"""A recipe back as text: what a run folder keeps of the recipe that made it."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from itemic.errors import ArtifactError
from itemic.recipe.schema import Recipe


def dump_recipe(recipe: Recipe) -> str:
    """YAML that :func:`load_recipe` reads back as the same recipe, overrides and variables resolved."""
    value = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def read_resolved(file: str | Path) -> Recipe:
    """The recipe that a run folder keeps; whether the files it names are still there is not asked.

    Raises:
        ArtifactError: it can't be read.
    """
    try:
        return Recipe.model_validate(yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ArtifactError(f"{file} is not a run's recipe: {error}", "Start the run again.") from error

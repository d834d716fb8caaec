"""A recipe back as text: what a run folder keeps of the recipe that made it."""

from __future__ import annotations

import yaml

from itemic.recipe.schema import Recipe


def dump_recipe(recipe: Recipe) -> str:
    """YAML that :func:`load_recipe` reads back as the same recipe, overrides and variables resolved."""
    value = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)

"""The recipe: one YAML file that says a whole run."""

from __future__ import annotations

from itemic.recipe.check import RecipeError, check_recipe, load_recipe
from itemic.recipe.schema import Recipe
from itemic.recipe.write import dump_recipe, read_resolved

__all__ = ["Recipe", "RecipeError", "check_recipe", "dump_recipe", "load_recipe", "read_resolved"]

"""One stage of training from a file of its own and overrides, checked as a stage of a recipe is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from itemic.recipe.check import RecipeError
from itemic.recipe.source import read_source
from itemic.settings import faults_of
from itemic.training.language.stage import Stage

NOTHING = os.devnull  # the file of a stage that is all overrides


def read_stage(file: str | Path | None, overrides: Iterable[str] = ()) -> Stage:
    """A stage from a YAML file of its keys, from ``key=value`` texts, or from both.

    Raises:
        RecipeError: naming every fault with its line or override.
    """
    source = read_source(NOTHING if file is None else file, overrides)
    if not source.faults:
        try:
            return TypeAdapter(Stage).validate_python(source.value)
        except ValidationError as error:
            for path, problem in faults_of(Stage, error):
                source.fault(path, problem)
    raise RecipeError("the stage" if file is None else str(file), source.faults)

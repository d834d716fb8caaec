"""One stage of training from a file of its own and overrides, checked as a stage of a recipe is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from itemic.recipe.check import RecipeError
from itemic.recipe.source import read_source
from itemic.recipe.tables import table_faults
from itemic.training.language.stage import Stage

NOTHING = os.devnull  # the file of a stage that is all overrides


def read_stage(file: str | Path | None, overrides: Iterable[str] = ()) -> Stage:
    """A stage from a YAML file of its keys, from ``key=value`` texts, or from both.

    Raises:
        RecipeError: naming every fault with its line or override.
    """
    source = read_source(NOTHING if file is None else file, overrides)
    if not source.faults:
        for path, problem in table_faults(Stage, source.value, ()):
            source.fault(path, problem)
    if source.faults:
        raise RecipeError("the stage" if file is None else str(file), source.faults)
    return Stage.of(source.value)

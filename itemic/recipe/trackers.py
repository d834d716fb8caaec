"""Which trackers a run writes to."""

from __future__ import annotations

from collections.abc import Iterable

from itemic.recipe.schema import Recipe


def evaluation_trackers(recipe: Recipe) -> list[str]:
    """The trackers of an evaluation: its own, or those of the last stage."""
    own = recipe.evaluate.trackers
    return list(recipe.trainings[-1].logs.trackers) if own is None else own


def trackers_of(recipe: Recipe, steps: Iterable[str] | None = None) -> list[str]:
    """The trackers that a run's steps write to; None for all steps."""
    named = [(f"train.{stage.name}", list(stage.logs.trackers)) for stage in recipe.trainings]
    if recipe.teacher is not None:
        named.append(("teacher", list(recipe.teacher.logs.trackers)))
    if recipe.data is not None:
        named += [(step, evaluation_trackers(recipe)) for step in ("evaluate", "report")]
    chosen = {step for step, _ in named} if steps is None else set(steps)
    return list(dict.fromkeys(name for step, names in named if step in chosen for name in names))

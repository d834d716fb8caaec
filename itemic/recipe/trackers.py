"""Which trackers a run writes to."""

from __future__ import annotations

from collections.abc import Iterable

from itemic.profile.settings import EmbedderStage
from itemic.profile.turn_settings import WriterStage
from itemic.recipe.profile import ProfilePart
from itemic.recipe.schema import Recipe
from itemic.training.language.stage import Stage


def evaluation_trackers(recipe: Recipe) -> list[str]:
    """The trackers of an evaluation: its own, or those of the last stage."""
    own = recipe.evaluate.trackers
    if own is not None:
        return own
    return list(recipe.trainings[-1].logs.trackers) if recipe.trainings else []


def trackers_of(recipe: Recipe, steps: Iterable[str] | None = None) -> list[str]:
    """The trackers that a run's steps write to; None for all steps."""
    named = [(f"train.{stage.name}", list(stage.logs.trackers)) for stage in recipe.trainings]
    if recipe.teacher is not None:
        named.append(("teacher", list(recipe.teacher.logs.trackers)))
    if recipe.profile is not None:
        named += _of_profiles(recipe.profile)
    if recipe.data is not None and recipe.model is not None:
        named += [(step, evaluation_trackers(recipe)) for step in ("evaluate", "report")]
    chosen = {step for step, _ in named} if steps is None else set(steps)
    return list(dict.fromkeys(name for step, names in named if step in chosen for name in names))


def _of_profiles(part: ProfilePart) -> list[tuple[str, list[str]]]:
    stages: list[tuple[str, Stage | EmbedderStage | WriterStage | None]] = [
        ("writer.taught", part.writer.taught)
    ]
    if part.turns is not None:
        stages += [("turns", part.turns.embedder), ("turns", part.turns.writer)]
    return [(step, list(stage.logs.trackers)) for step, stage in stages if stage is not None]

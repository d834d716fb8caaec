"""What a search of hyperparameters goes through: keys of a recipe with their ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from itemic.advise.look import Look
from itemic.advise.patch import Change, plain, possible, value_at
from itemic.errors import ConfigError
from itemic.recipe import Recipe
from itemic.recipe.source import show
from itemic.settings import KeyPath

DIGITS = 3  # of a number that was drawn, in the recipe


@dataclass(frozen=True)
class Space:
    """A key and its range.

    Attributes:
        path: the key.
        low, high: the ends, which belong to it.
        log: whether ratios matter rather than differences.
        whole: whether only whole numbers are meant.
    """

    path: KeyPath
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def key(self) -> str:
        return show(self.path)

    @property
    def words(self) -> str:
        return f"{self.key} {self.low:g} to {self.high:g}{' by ratio' if self.log else ''}"

    def value(self, drawn: float) -> int | float:
        """What a recipe has of a number that was drawn."""
        return round(drawn) if self.whole else float(f"{drawn:.{DIGITS}g}")


def usual_spaces(recipe: Recipe) -> list[Space]:
    """Learning rate, weight decay, dropout and length of the stage that teaches the model, around what they are."""
    i = Look(None, recipe).stage
    stage, at = recipe.stages[i], ("stages", i)
    rate, decay, dropout = stage.learning_rate, stage.optimizer.weight_decay, stage.objective.dropout
    key = "steps" if stage.steps is not None else "epochs"
    length = getattr(stage, key) or 1
    decays = (
        Space((*at, "optimizer", "weight_decay"), min(decay, 0.01), max(decay * 3, 0.3), log=True)
        if decay > 0
        else Space((*at, "optimizer", "weight_decay"), 0.0, 0.3)
    )
    return [
        Space((*at, "learning_rate"), max(rate / 3, stage.schedule.min_lr), rate * 3, log=True),
        decays,
        Space((*at, "objective", "dropout"), 0.0, max(dropout, 0.3)),
        Space((*at, key), max(length // 2, 1), max(length * 2, 2), whole=True),
    ]


def read_space(text: str, recipe: Recipe) -> Space:
    """A space as a person writes it: ``KEY=low:high`` or ``KEY=low:high:log``; whole numbers where both ends are.

    Raises:
        ConfigError: it can't be read, or the recipe takes no such values there.
    """
    key, equals, ends = text.partition("=")
    parts = ends.split(":")
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))
    remedy = "Write --space KEY=low:high or KEY=low:high:log, such as stages.0.learning_rate=1e-4:1e-2:log."
    if not equals or "" in path or len(parts) not in (2, 3) or parts[2:] not in ([], ["log"]):
        raise ConfigError(f"--space {text} is no range", remedy)
    try:
        low, high = (float(part) for part in parts[:2])
    except ValueError as error:
        raise ConfigError(f"--space {text}: its ends are no numbers", remedy) from error
    log = len(parts) == 3
    if not low < high or (log and low <= 0):
        raise ConfigError(f"--space {text}: {low:g} is not below {high:g}, or not above 0 under log", remedy)
    space = Space(path, low, high, log, all(part.strip().lstrip("-").isdigit() for part in parts[:2]))
    for end in (low, high):
        _, told = possible(plain(recipe), [Change(path, space.value(end), None, "")])
        if told:
            raise ConfigError(f"--space {text} at {end:g}: {told[0]}", "Give a range that the recipe takes.")
    return space


def spaces_of(recipe: Recipe, given: Sequence[str]) -> list[Space]:
    """The spaces that a person gives, or the usual ones."""
    return [read_space(text, recipe) for text in given] or usual_spaces(recipe)


def as_it_is(recipe: Recipe, spaces: Sequence[Space]) -> dict[str, Any] | None:
    """The recipe's own values of these keys; None where one lies outside of its range or isn't a number."""
    found: dict[str, Any] = {}
    for space in spaces:
        value = value_at(recipe, space.path)
        if not isinstance(value, int | float) or not space.low <= value <= space.high:
            return None
        found[space.key] = int(value) if space.whole else float(value)
    return found

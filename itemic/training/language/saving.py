"""The model at the end of a training, and on the way to it, also where no rank has it whole."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor
from transformers import PreTrainedModel

from itemic.errors import ArtifactError
from itemic.model.streamed import Value
from itemic.training.language.learning import Learning
from itemic.training.language.objective import LanguageObjective
from itemic.training.objective import Objective
from itemic.training.parallel import Strategy
from itemic.training.ranks import Ranks


class Saved(Protocol):
    """What has a language model and writes it with all that belongs to it, as :class:`itemic.model.Model` does."""

    lm: PreTrainedModel

    def save(self, folder: str | Path) -> None: ...
    def save_streamed(self, folder: str | Path | None, value: Value) -> None: ...


S = TypeVar("S", bound=Saved)


def with_weights_of(model: S, objective: Objective) -> S:
    """The model with the weights of what is validated."""
    assert isinstance(objective, LanguageObjective)
    found = copy.copy(model)
    found.lm = objective.lm
    return found


def save(model: Saved, folder: Path, strategy: Strategy, learns: Learning, ranks: Ranks) -> None:
    """Rank 0 writes the model; where nobody has it whole, all gather its weights one by one."""

    def value(name: str) -> Tensor:
        found = strategy.gather(_in_objective(strategy.module, name))
        return learns.ends[name](found) if ranks.main and name in learns.ends else found

    try:
        if strategy.apart:
            model.save_streamed(folder if ranks.main else None, value)
        elif ranks.main:
            model.save(folder)
    except OSError as error:
        raise ArtifactError(
            f"can't write the model to {folder}: {error}",
            "Free some space and start the same command again: it goes on from the last checkpoint.",
        ) from error


def _in_objective(objective: Objective, name: str) -> str:
    """A weight's or buffer's name where adapters may stand around its module."""
    owner, _, last = f"lm.{name}".rpartition(".")
    inner = f"{owner}.base_layer"
    return f"{inner}.{last}" if inner in dict(objective.named_modules()) else f"{owner}.{last}"

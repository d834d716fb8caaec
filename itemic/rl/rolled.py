"""What a rollout is: who answers, the answers and their worth, the groups to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.decode.paths import Paths
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.rl.asks import Asked
from itemic.rl.groups import Groups
from itemic.rl.objective import GroupObjective
from itemic.rl.rewards import Answered

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Meet = Callable[[Callable[[], Any]], Any]


@dataclass(frozen=True)
class Policy:
    """Who answers.

    Attributes:
        model: with the weights of the moment.
        objective: of the same weights.
        meet: does what computes with them, where several ranks have to do it at the same time.
    """

    model: Model
    objective: GroupObjective
    meet: Meet = lambda work: work()


@dataclass(frozen=True)
class Answers:
    """What was answered to ``R`` prompts, ``K`` items each at most.

    Attributes:
        paths: the answers; ``items`` are those that a reward sees.
        answered: the same for rewards.
        total: float64 ``[R, K]``, what each is worth; NaN where there is none.
        apart: each reward by itself.
        advantages: float64 ``[R, K]``.
        added: bool ``[R]``, whether the target was put in.
        suggested: int64 ``[R]``, how many answers others suggested.
    """

    paths: Paths
    answered: Answered
    total: Float64
    apart: Mapping[str, Float64]
    advantages: Float64
    added: Bool
    suggested: Int64


@dataclass(frozen=True)
class Thought:
    """Thoughts of ``R`` prompts, ``N`` each, those of one prompt one after the other.

    Attributes:
        tokens: ``R · N`` rows, the end included where there is one.
        log_probs: float32 ``[T]``.
        ended: bool ``[R · N]``; the others were cut off.
        worth: float64 ``[R, N]``.
    """

    tokens: TokenRows
    log_probs: Float32
    ended: Bool
    worth: Float64


@dataclass(frozen=True)
class Rolled:
    """A rollout.

    Attributes:
        groups: to learn from.
        asked: what was asked.
        answers: to each prompt, or behind each thought.
        thought: the thoughts; None without any.
        alive: bool ``[G]``, which groups have a signal.
        numbers: what is told of it, sums and weights by name.
    """

    groups: Groups
    asked: Asked
    answers: Answers
    thought: Thought | None
    alive: Bool
    numbers: dict[str, tuple[float, float]]

"""The reference: the weights that a policy is kept near to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from itemic.errors import IndexMismatchError
from itemic.model import Model
from itemic.rl.groups import Float32, Groups
from itemic.rl.objective import GroupObjective
from itemic.rl.scoring import Legal

Meet = Callable[[Callable[[], Any]], Any]


def at_once(work: Callable[[], Any]) -> Any:
    """Compute where nobody has to be waited for."""
    return work()


class Reference(Protocol):
    """Whose log-probabilities answers are compared with.

    Attributes:
        since: the step whose weights these are.
    """

    since: int

    def follow(self, step: int) -> None:
        """Take over the weights of the moment, where it is time; ``step`` counts from 0."""

    def score(self, groups: Groups, max_tokens: int, meet: Meet = at_once) -> Float32:
        """The log-probability of each token of some groups, float32 ``[T]``; 0 where it is no choice.

        Args:
            groups: what was answered.
            max_tokens: of a block, about.
            meet: computes, where ranks have to do so at the same time.
        """


class OtherModel:
    """A model of its own, which never moves.

    Args:
        folder: of a model.
        policy: the model that is kept near to it.
        legal: over what probabilities are normalised.
        device: where it computes.

    Raises:
        IndexMismatchError: it was made for other items, or its names of them are other tokens.
    """

    def __init__(self, folder: str | Path, policy: Model, legal: Legal, device: torch.device) -> None:
        self.folder, self.since = Path(folder), 0
        model = Model.load(folder, device=device, dtype=torch.float32)
        if model.index.digest != policy.index.digest:
            raise IndexMismatchError(
                f"objective.reference: {folder} was made for the index {model.index.digest[:12]}, and the model that "
                f"learns for {policy.index.digest[:12]}",
                "Give a model that was trained with the same index.",
            )
        mine, own = policy.item_rows, model.item_rows
        same = np.array_equal(mine.tokens, own.tokens) and np.array_equal(mine.offsets, own.offsets)
        if not same or len(policy.tokenizer) != len(model.tokenizer):
            raise IndexMismatchError(
                f"objective.reference: {folder} has another vocabulary than the model that learns",
                "Give a model that began as the same model, such as an earlier stage's.",
            )
        model.lm.requires_grad_(False)
        self.objective = GroupObjective(model.lm, legal)

    def follow(self, step: int) -> None:
        """It stays."""

    def score(self, groups: Groups, max_tokens: int, meet: Meet = at_once) -> Float32:
        """As :meth:`Reference.score`; every rank has all of it."""
        return self.objective.score_all(groups, max_tokens)


class OwnWeights:
    """A copy of the weights that learn, put in the policy's place for as long as the reference is asked.

    Of a model that learns by adapters that is the adapters alone: as the stage found them, they add nothing.

    Args:
        objective: the policy's; its weights are those to begin with.
        sync_every: steps between taking over the weights of the moment; None never does.
    """

    def __init__(self, objective: GroupObjective, sync_every: int | None = None) -> None:
        self.objective, self.sync_every = objective, sync_every
        self.named = objective.policy_weights()
        self.kept: dict[str, Tensor] = {name: weight.detach().clone() for name, weight in self.named.items()}
        if sync_every is not None:
            objective.moving = self.kept
        self.since = 0  # the step whose weights these are

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """As :meth:`Reference.follow`."""
        if self.sync_every is not None and step // self.sync_every > self.since // self.sync_every:
            for name, weight in self.named.items():
                self.kept[name].copy_(weight)
            self.since = step

    def score(self, groups: Groups, max_tokens: int, meet: Meet = at_once) -> Float32:
        """As :meth:`Reference.score`."""
        self._swap()
        try:
            found: Float32 = meet(lambda: self.objective.score_all(groups, max_tokens))
        finally:
            self._swap()
        return found

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.named.items():
            now = weight.detach().clone()
            weight.copy_(self.kept[name])
            self.kept[name].copy_(now)

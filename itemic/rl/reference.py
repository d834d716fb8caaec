"""The reference: the weights that a policy is kept near to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from itemic.rl.groups import Float32, Groups
from itemic.rl.objective import GroupObjective


class Reference:
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
        """Take over the weights of the moment, where it is time; ``step`` counts from 0."""
        if self.sync_every is not None and step // self.sync_every > self.since // self.sync_every:
            for name, weight in self.named.items():
                self.kept[name].copy_(weight)
            self.since = step

    def score(
        self, groups: Groups, max_tokens: int, meet: Callable[[Callable[[], Any]], Any] = lambda work: work()
    ) -> Float32:
        """The log-probability of each token of some groups, float32 ``[T]``; 0 where it is no choice.

        Args:
            groups: what was answered.
            max_tokens: of a block, about.
            meet: computes, where ranks have to do so at the same time.
        """
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

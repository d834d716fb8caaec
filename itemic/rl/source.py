"""The steps of a stage that is asked for items, or for lists: who answers, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itemic.rl.asks import Asked, Book
from itemic.rl.lists.asks import ListAsked, ListBook
from itemic.rl.lists.rollout import ListRoller, RolledLists
from itemic.rl.lists.worth import ListRewards
from itemic.rl.preview import lines_of
from itemic.rl.reference import Reference
from itemic.rl.rewards import Rewards
from itemic.rl.rolled import Policy, Rolled
from itemic.rl.rollout import Roller
from itemic.rl.scoring import Legal
from itemic.rl.settings import RLStage
from itemic.rl.steps import Int64, RolloutSteps, hash_of
from itemic.training.ranks import ALONE, Ranks


class GroupSteps(RolloutSteps):
    """The steps of a stage that is asked for items, or for lists.

    Args:
        book: what is asked: for items, or for lists.
        stage: how.
        rewards: what answers are worth; of lists theirs.
        legal: over what probabilities are normalised.
        seed: of what is drawn.
        ranks: who takes part.
        examples: a file that groups are written to now and then, to be read; None for none.
    """

    book: Book | ListBook
    stage: RLStage
    policy: Policy

    def __init__(
        self,
        book: Book | ListBook,
        stage: RLStage,
        rewards: Rewards | ListRewards,
        legal: Legal,
        seed: int = 0,
        ranks: Ranks = ALONE,
        examples: Path | None = None,
    ) -> None:
        super().__init__(book, stage, seed, ranks)
        self.rewards, self.legal, self.examples = rewards, legal, examples

    def begin(self, policy: Policy, reference: Reference | None = None) -> None:
        """Say who answers, before the first step is asked for.

        Args:
            policy: who.
            reference: whose log-probabilities answers are compared with; None for nobody's.
        """
        self.policy, self.reference = policy, reference
        self.roller = roller_of(policy, self.stage, self.rewards, self.legal, self.book, self.ranks)

    def _restore(self, state: dict[str, Any]) -> None:
        if isinstance(self.rewards, Rewards):
            self.rewards.restore(state.get("rewards"))

    def _remembered(self) -> dict[str, Any]:
        found = self.rewards.state() if isinstance(self.rewards, Rewards) else None
        return {"rewards": found} if found else {}

    def _roll(self, asked: Asked | ListAsked, place: Int64, number: int, epoch: int) -> Rolled | RolledLists:
        seeds = [hash_of(self.seed, epoch, int(each)) for each in place[asked.rows]]
        rolled = roll(self.roller, asked, seeds)
        if isinstance(rolled, Rolled):
            rolled = self._scored(rolled)
        self._tell(rolled, number)
        return rolled

    def _scored(self, rolled: Rolled) -> Rolled:
        if self.stage.rollout.add_target or self.stage.rollout.suggest:
            return _with_scores(rolled, self.policy, self.stage.data.block_tokens)
        return rolled

    def _tell(self, rolled: Rolled | RolledLists, number: int) -> None:
        """Write some of it down, to be read."""
        every = self.stage.examples
        if self.examples is not None and every and number % every == 0 and self.ranks.main:
            with self.examples.open("a", encoding="utf-8") as file:
                for line in lines_of(rolled, self.roller.model, number):
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def roller_of(
    policy: Policy,
    stage: RLStage,
    rewards: Rewards | ListRewards,
    legal: Legal,
    book: Book | ListBook,
    ranks: Ranks = ALONE,
) -> Roller | ListRoller:
    """Who makes a stage's rollouts, of items or of lists."""
    if isinstance(book, ListBook):
        assert isinstance(rewards, ListRewards)
        return ListRoller(policy, stage.rollout, stage.objective, rewards, book, ranks)
    assert isinstance(rewards, Rewards)
    return Roller(policy, stage.rollout, stage.objective, rewards, legal, ranks)


def roll(roller: Roller | ListRoller, asked: Asked | ListAsked, seeds: Sequence[int]) -> Rolled | RolledLists:
    """Its answers to what its book asked."""
    if isinstance(asked, ListAsked):
        assert isinstance(roller, ListRoller)
        return roller.roll(asked, seeds)
    assert isinstance(roller, Roller)
    return roller.roll(asked, seeds)


def _with_scores(rolled: Rolled, policy: Policy, max_tokens: int) -> Rolled:
    """The rollout with log-probabilities of the answers that were put in."""
    from dataclasses import replace

    groups = rolled.groups
    scores = policy.meet(lambda: policy.objective.score_all(groups, max_tokens))
    known = np.where(np.isnan(groups.log_probs), scores, groups.log_probs).astype(np.float32)
    return replace(rolled, groups=replace(groups, log_probs=known))

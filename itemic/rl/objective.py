"""What groups of answers cost, as an objective of the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from itemic.forest.context import forest_attention
from itemic.forest.rows import TokenRows
from itemic.rl.groups import ANYTHING, GroupBlock, Groups, blocks_of
from itemic.rl.losses import ANSWERS, LOSSES, TOKENS, Answers, Settings, divergence, shares_apart
from itemic.rl.scoring import Legal, choice_log_probs
from itemic.rl.settings import GroupSettings
from itemic.training.language.learning import Learning
from itemic.training.language.objective import LanguageObjective
from itemic.training.objective import Cost
from itemic.training.optimizer import Named
from itemic.training.settings import EngineSettings
from itemic.training.steps import Sizes

LOSS_NAMES = ("kl", "clipped", "ratio")  # what a block tells beside its cost


class GroupObjective(LanguageObjective):
    """The cost of groups of answers, scored with their prompt once.

    Args:
        lm: the policy.
        legal: over what its probabilities are normalised.
        learns: which of its weights learn; None for all.
        settings: which objective, and what belongs to it.
        engine: how it computes; precision is the loop's.
        max_tokens: of an answer, for Dr. GRPO.
        told: names of numbers that blocks bring along, see :attr:`GroupBlock.numbers`.
    """

    totals = ("tokens", "row_tokens", "answers", "groups")

    def __init__(
        self,
        lm: PreTrainedModel,
        legal: Legal,
        learns: Learning | None = None,
        *,
        settings: GroupSettings | None = None,
        engine: EngineSettings | None = None,
        max_tokens: int = 1,
        told: tuple[str, ...] = (),
    ) -> None:
        chosen = settings or GroupSettings()
        super().__init__(lm, learns, dropout=chosen.dropout, engine=engine)
        self.legal, self.settings = legal, chosen
        self.loss = LOSSES[chosen.name]
        low, high = chosen.bounds
        own = chosen.rebel
        self._told = Settings(low, high, max_tokens, chosen.sharpness, chosen.preference, own.eta, own.pairs)
        self.names = (*LOSS_NAMES, *told)
        self.moving: dict[str, Tensor] | None = None  # a reference's weights

    def forward(self, block: GroupBlock) -> Cost:
        """The cost of a block, inside :meth:`stepping`."""
        scored = self.scores(block)
        if not len(block.groups):
            return Cost(scored.sum(), block.silent, dict(block.numbers))
        answers = self._answers(block, scored)
        cost = self.loss.function(answers, self._told)
        weight = float(len(cost.each))
        total = cost.each.sum()
        numbers = dict(block.numbers)
        if answers.reference is not None:
            apart = self._mean_distance(answers)
            if self.settings.kl and self.settings.name == "expected":
                total = total + self.settings.kl * shares_apart(answers, self._told).sum()
            elif self.settings.kl and self.loss.over != TOKENS:
                total = total + self.settings.kl * apart.sum() * (weight / len(apart))
            elif self.settings.kl:
                total = total + self.settings.kl * self._distance(answers).sum()
            numbers["kl"] = float(apart.detach().sum()), float(len(apart))
        numbers["clipped"] = float(cost.clipped.float().sum()), weight
        gone = (answers.log_probs.detach() - answers.old).abs()
        numbers["ratio"] = float(gone.sum()), float(len(gone))
        return Cost(total, weight + block.silent, numbers)

    def scores(self, block: GroupBlock) -> Tensor:
        """The log-probability of each choice of a block, inside :meth:`stepping`."""
        return choice_log_probs(
            self.lm, block, self.legal, new_rows=self._rows(), chunk=self.engine.minibatch_size
        )

    @torch.no_grad()
    def score(self, groups: Groups) -> np.ndarray:
        """The log-probability of each token of some groups under the weights of this moment, float32 ``[T]``; 0 where
        it is no choice. No dropout, and the model's own numbers."""
        before = self.lm.training
        self.lm.train(False)
        try:
            with forest_attention(self.lm), torch.autocast(self.device.type, enabled=False):
                found = self.scores(GroupBlock.of(groups))
        finally:
            self.lm.train(before)
        scores = np.zeros(len(groups.choice), np.float32)
        scores[groups.choice] = found.float().cpu().numpy()
        return scores

    def score_all(self, groups: Groups, max_tokens: int) -> np.ndarray:
        """The same, in blocks of about so many tokens."""
        parts = [self.score(part) for part in blocks_of(groups, max_tokens)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _answers(self, block: GroupBlock, scored: Tensor) -> Answers:
        groups, device = block.groups, scored.device

        def at(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)

        choice = groups.choice
        return Answers(
            scored,
            at(groups.log_probs[choice]),
            at(block.answer, torch.int64),
            at(groups.group, torch.int64),
            at(groups.advantages),
            at(groups.rewards),
            None if groups.reference is None else at(groups.reference[choice]),
            at(groups.numbers["advantages"][choice]) if "advantages" in groups.numbers else None,
        )

    def _distance(self, answers: Answers) -> Tensor:
        assert answers.reference is not None
        return divergence(answers.log_probs, answers.reference, self.settings.estimator)

    def _mean_distance(self, answers: Answers) -> Tensor:
        """``[N]``: of an answer the mean over its tokens."""
        return answers.sums(self._distance(answers)) / answers.lengths

    def policy_weights(self) -> Named:
        """Of the weights that learn those that decide what is answered; a reference is a copy of them."""
        return self.learning()

    def completed(
        self,
        groups: Groups,
        max_tokens: int,
        meet: Callable[[Callable[[], Any]], Any],
        gather: Callable[[Any], list[Any]],
    ) -> tuple[Groups, Mapping[str, tuple[float, float]]]:
        """A rollout with what the objective has to know of it before it is learned from, and numbers to be told."""
        return groups, {}

    def kept(self) -> dict[str, Tensor]:
        """The weights of a reference that moves; one that stays is what the training found."""
        return {} if self.moving is None else self.moving

    def nothing(self) -> GroupBlock:
        numbers, whole, flags = np.zeros(1, np.float32), np.zeros(1, np.int64), np.zeros(1, bool)
        rows = TokenRows.of([[0]])
        one = Groups(rows, rows, whole, whole, whole + ANYTHING, flags, numbers, numbers, numbers)
        return replace(GroupBlock.of(one), groups=one.take(whole[:0]))

    def rates(self, sizes: Sizes, seconds: float) -> dict[str, float]:
        """Tokens and answers a second; what the rows would have been one by one."""
        counts = sizes.counts
        return {
            "tokens_per_second": round(counts.get("tokens", 0) / seconds),
            "row_tokens_per_second": round(counts.get("row_tokens", 0) / seconds),
            "answers_per_second": round(counts.get("answers", 0) / seconds),
        }


def weight_of(groups: Groups, settings: GroupSettings) -> float:
    """What a block of groups weighs under an objective: its answers, its choices, or its groups."""
    over = LOSSES[settings.name].over
    if over == ANSWERS:
        return float(len(groups.answers))
    return float(groups.choice.sum()) if over == TOKENS else float(len(groups))

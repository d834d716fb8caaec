"""PPO over lists: rewards on tokens, advantages by a critic, and what policy, critic and entropy cost.

A *state* is what stands before a choice, and time goes on from choice to choice: what the grammar writes by itself
takes none. The distance to the reference is taken off the rewards, choice by choice (Ziegler et al. 2019, section 2.2);
advantages are generalized ones (Schulman et al. 2016, equation 16).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from itemic.forest.context import forest_attention
from itemic.rl.critic import as_critic
from itemic.rl.groups import GroupBlock, Groups, blocks_of
from itemic.rl.objective import LOSS_NAMES, GroupObjective
from itemic.rl.scoring import Legal, Scored, choice_hidden, scored_choices
from itemic.rl.settings import GroupSettings, PPOSettings
from itemic.training.language.learning import Learning
from itemic.training.objective import Cost
from itemic.training.optimizer import Named
from itemic.training.settings import EngineSettings

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Gather = Callable[[Any], list[Any]]

VALUE_NAMES = ("value_loss", "choice_entropy", "value", "explained", "policy_kl")
HEAD = "value_head"
TINY = 1e-8


def discounted(
    rewards: Float64, values: Float64, there: Bool, gamma: float, smoothing: float
) -> tuple[Float64, Float64]:
    """Generalized advantages and returns, both float64 ``[N, T]``; 0 where nothing is.

    ``δ_t = r_t + γ V_{t+1} - V_t``, ``A_t = δ_t + γ λ A_{t+1}``, and ``A_t + V_t`` is the return; behind the last step
    there is nothing.

    Args:
        rewards: ``[N, T]``.
        values: ``[N, T]``, of the state before each step.
        there: bool ``[N, T]``, the steps of each row, from its first place on.
        gamma: γ.
        smoothing: λ.

    Example:
        Rewards 0, 1, values .5, .5, γ = .9, λ = 1: advantages ``[.9 - .5, 1 - .5] = [.4, .5]``, returns ``[.9, 1]``.
    """
    advantages = np.zeros(rewards.shape)
    ahead, after = np.zeros(len(rewards)), np.zeros(len(rewards))
    for step in range(rewards.shape[1] - 1, -1, -1):
        here = there[:, step]
        delta = rewards[:, step] + gamma * after - values[:, step]
        ahead = np.where(here, delta + gamma * smoothing * ahead, 0.0)
        after = np.where(here, values[:, step], 0.0)
        advantages[:, step] = ahead
    return advantages, np.where(there, advantages + values, 0.0)


def whitened(values: Float64, *, shift: bool, gather: Gather = lambda value: [value]) -> Float64:
    """Values of deviation 1 over all ranks: of mean 0 under ``shift``, else of the mean that they had. Equal ones stay
    as they are, but for their mean.

    Example:
        ``[1, 3]`` is ``[-1, 1]``, and without a shift ``[1, 3]``, whose deviation is 1 already.
    """
    own = np.array([len(values), values.sum(), np.square(values).sum()], np.float64)
    count, total, squares = np.sum(gather(own), axis=0)
    mean = total / max(count, 1.0)
    spread = np.sqrt(max(squares / max(count, 1.0) - mean**2, 0.0))
    found = (values - mean) / (spread if spread > 1e-6 else 1.0)
    return np.asarray(found if shift else found + mean)


def with_advantages(
    groups: Groups, values: Float32, settings: PPOSettings, gather: Gather = lambda value: [value]
) -> Groups:
    """Groups whose choices have ``values``, ``advantages`` and ``returns``.

    Args:
        groups: with ``rewards`` of each token among their numbers, and a reference where the distance to it counts.
        values: float32 ``[T]``, of each choice at the time of the rollout.
        settings: γ, λ, what is whitened.
        gather: of all ranks: what is whitened is whitened together.
    """
    choice = groups.choice
    given = groups.numbers["rewards"][choice].astype(np.float64)
    if settings.kl:
        assert groups.reference is not None
        given = given - settings.kl * (groups.log_probs - groups.reference)[choice].astype(np.float64)
    if settings.whiten in ("rewards", "both"):
        given = whitened(given, shift=False, gather=gather)
    lengths = np.array(
        [int(part.sum()) for part in np.split(choice, groups.answers.offsets[1:-1])] if len(choice) else [],
        np.int64,
    )
    there = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    rewards, before = np.zeros(there.shape), np.zeros(there.shape)
    rewards[there], before[there] = given, values[choice]
    advantages, returns = discounted(rewards, before, there, settings.gamma, settings.smoothing)
    gains = advantages[there]
    if settings.whiten in ("advantages", "both"):
        gains = whitened(gains, shift=True, gather=gather)

    def whole(some: Float64) -> Float32:
        found = np.zeros(len(choice), np.float32)
        found[choice] = some
        return found

    return groups.with_numbers(
        values=whole(before[there]), advantages=whole(gains), returns=whole(returns[there])
    )


def value_costs(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error of each value, or of the value kept within ``clip`` of the old one, whichever is larger.

    Example:
        Value 1, old 0, return 2, clip .2: ``½ · max(1, 1.8²) = 1.62``.
    """
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (near - returns).square())


class PPOObjective(GroupObjective):
    """What lists cost under PPO: the policy's clipped surrogate, the critic's clipped error, less the entropy.

    Where the policy learns by adapters, the critic has adapters of its own on the same matrices, and reads embeddings
    without teaching them. Otherwise its head reads the policy's hidden states, without teaching these either: with so
    few answers a step, a critic that pulls at the policy's layers costs it more than it gains.

    Args:
        lm, legal, learns, settings, engine, max_tokens, told: as for
            :class:`itemic.rl.objective.GroupObjective`; ``learns`` without the critic's.
        head: the value head.
        adapters: the critic's, see :func:`itemic.rl.critic.critic_adapters`; None where it has none.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        legal: Legal,
        learns: Learning | None = None,
        *,
        head: nn.Module,
        adapters: Named | None = None,
        settings: GroupSettings | None = None,
        engine: EngineSettings | None = None,
        max_tokens: int = 1,
        told: tuple[str, ...] = (),
    ) -> None:
        own = learns or Learning.all_of(lm)
        self._of_critic = frozenset(adapters or {})
        if adapters:
            own = replace(own, named={**own.named, **adapters}, decay=own.decay | set(adapters))
        super().__init__(lm, legal, own, settings=settings, engine=engine, max_tokens=max_tokens, told=told)
        self.value_head = head
        self.names = (*LOSS_NAMES, *VALUE_NAMES, *told)

    def learning(self) -> Named:
        head = {f"{HEAD}.{name}": weight for name, weight in self.value_head.named_parameters()}
        return super().learning() | head

    def policy_weights(self) -> Named:
        own = self.critic_weights()
        return {name: weight for name, weight in self.learning().items() if name not in own}

    def critic_weights(self) -> Named:
        """The critic's weights, by name."""
        return {
            name: weight
            for name, weight in self.learning().items()
            if name in self._of_critic or name.startswith(f"{HEAD}.")
        }

    def forward(self, block: GroupBlock) -> Cost:
        told = self.settings.ppo
        scored = scored_choices(
            self.lm,
            block,
            self.legal,
            entropy=True,
            new_rows=self._rows(),
            chunk=self.engine.minibatch_size,
        )
        values = self._values(block, scored)
        if not len(block.groups):
            return Cost(scored.log_probs.sum() + values.sum(), block.silent, dict(block.numbers))
        assert scored.entropy is not None
        answers = self._answers(block, scored.log_probs)
        policy = self.loss.function(answers, self._told)
        old, returns = (self._of_choices(block, name, values) for name in ("values", "returns"))
        critic = value_costs(values, old, returns, told.value_clip)
        total = policy.each.sum() + told.value_weight * critic.sum() - told.entropy * scored.entropy.sum()
        weight = float(len(policy.each))
        numbers = dict(block.numbers)
        gone = answers.log_probs.detach() - answers.old
        numbers |= {
            "clipped": (float(policy.clipped.float().sum()), weight),
            "ratio": (float(gone.abs().sum()), weight),
            "policy_kl": (float((torch.expm1(gone) - gone).sum()), weight),
            "value_loss": (float(critic.detach().sum()), weight),
            "choice_entropy": (float(scored.entropy.detach().sum()), weight),
            "value": (float(values.detach().sum()), weight),
        }
        if answers.reference is not None:
            apart = answers.log_probs.detach() - answers.reference
            numbers["kl"] = float(apart.sum()), weight
        return Cost(total, weight + block.silent, numbers)

    def _values(self, block: GroupBlock, scored: Scored | None = None) -> Tensor:
        """float32 ``[T']``, of the state that each choice was made in."""
        if self._of_critic:
            with as_critic(self.lm):
                hidden, back = choice_hidden(self.lm, block, new_rows=self._fixed_rows())
        elif scored is not None:
            hidden, back = scored.hidden.detach(), scored.back
        else:
            hidden, back = choice_hidden(self.lm, block, new_rows=self._rows())
        found: Tensor = self.value_head(hidden)
        return found[back]

    def _fixed_rows(self) -> Any:
        rows = self._rows()
        if rows is None:
            return None
        output = None if rows.output is None else rows.output.detach()
        return replace(rows, input=rows.input.detach(), output=output)  # type: ignore[arg-type]

    def _of_choices(self, block: GroupBlock, name: str, like: Tensor) -> Tensor:
        groups = block.groups
        return torch.from_numpy(np.ascontiguousarray(groups.numbers[name][groups.choice])).to(like.device)

    @torch.no_grad()
    def value_all(self, groups: Groups, max_tokens: int) -> Float32:
        """The value before each choice under the weights of this moment, float32 ``[T]``; 0 where there is none."""
        before = self.lm.training
        self.lm.train(False)
        found = [np.zeros(0, np.float32)]
        try:
            for part in blocks_of(groups, max_tokens):
                own = np.zeros(len(part.choice), np.float32)
                with forest_attention(self.lm), torch.autocast(self.device.type, enabled=False):
                    own[part.choice] = self._values(GroupBlock.of(part)).float().cpu().numpy()
                found.append(own)
        finally:
            self.lm.train(before)
        return np.concatenate(found)

    def completed(
        self, groups: Groups, max_tokens: int, meet: Callable[[Callable[[], Any]], Any], gather: Gather
    ) -> tuple[Groups, Mapping[str, tuple[float, float]]]:
        values: Float32 = meet(lambda: self.value_all(groups, max_tokens))
        found = with_advantages(groups, values, self.settings.ppo, gather)
        choice = groups.choice
        errors = (found.numbers["returns"] - found.numbers["values"])[choice].astype(np.float64)
        returns = found.numbers["returns"][choice].astype(np.float64)
        spread = float(returns.var()) if len(returns) else 0.0
        # 1 for a critic that knows, 0 for one that says the same of everything
        explained = 1 - float(errors.var()) / spread if spread > TINY else 0.0
        return found, {"explained": (explained, 1.0)}

"""REBEL: the policy's log-ratios are regressed on relative rewards (Gao et al. 2024, algorithm 1).

What a pair costs is :func:`itemic.rl.losses.rebel`; here is what becomes of the rewards before that. The distance to
the reference is taken off an answer's reward, ``r - β (Σ log π - Σ log π_ref)`` with π as it was when the answer was
written (Ziegler et al. 2019, section 2.2), and what is left is whitened over all ranks. Of a difference of rewards the
mean is none of its business: whitening makes η mean the same whatever the rewards' unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.rl.groups import Groups
from itemic.rl.objective import GroupObjective
from itemic.rl.ppo import whitened
from itemic.rl.settings import GroupSettings, RebelSettings

Float32 = npt.NDArray[np.float32]
Gather = Callable[[Any], list[Any]]


def shaped_rewards(
    groups: Groups, settings: RebelSettings, gather: Gather = lambda value: [value]
) -> Float32:
    """float32 ``[N]``: rewards less the distance to the reference, whitened.

    Args:
        groups: with a reference where the distance to it counts.
        settings: its weight, and whether rewards are whitened.
        gather: of all ranks: what is whitened is whitened together.

    Example:
        Rewards 1 and 0, answers that are by 2 and 0 nats more probable than under the reference, β = .2: ``.6`` and 0;
        whitened 1 and -1.
    """
    rewards = groups.rewards.astype(np.float64)
    if settings.kl:
        assert groups.reference is not None
        gone = np.where(groups.choice, groups.log_probs - groups.reference, 0).astype(np.float64)
        answer = np.repeat(np.arange(len(groups.answers)), groups.answers.lengths)
        rewards = rewards - settings.kl * np.bincount(answer, gone, minlength=len(rewards))
    if settings.whiten:
        rewards = whitened(rewards, shift=True, gather=gather)
    return rewards.astype(np.float32)


class RebelObjective(GroupObjective):
    """What groups of answers cost under REBEL; a step's cost is the mean over its groups."""

    def completed(
        self, groups: Groups, max_tokens: int, meet: Callable[[Callable[[], Any]], Any], gather: Gather
    ) -> tuple[Groups, Mapping[str, tuple[float, float]]]:
        return replace(groups, rewards=shaped_rewards(groups, self.settings.rebel, gather)), {}


def objective_class(settings: GroupSettings) -> type[GroupObjective]:
    """Which objective computes what groups cost; ``ppo``, which has a critic, has its own."""
    return RebelObjective if settings.name == "rebel" else GroupObjective

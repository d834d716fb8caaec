"""What answers cost under each objective of reinforcement learning: short functions of log-probabilities.

A policy has written ``K`` answers to each of ``G`` prompts, a *group* each, and every answer has a reward. All of them
take the same :class:`Answers` and give one cost for each answer, each token or each group; what a step costs is their
sum over its weight, which is how many there are. Gradients go through ``log_probs`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

ANSWERS, TOKENS, GROUPS = "answers", "tokens", "groups"  # what a step's cost is a mean over


@dataclass(frozen=True)
class Answers:
    """``N`` answers with ``T`` tokens together, the answers of a group one after the other.

    Attributes:
        log_probs: float32 ``[T]``, of each token under the weights of this moment; a graph.
        old: float32 ``[T]``, under the weights that wrote the answers.
        answer: int64 ``[T]``, which answer each token is of, rising.
        group: int64 ``[N]``, which group each answer is of, rising.
        advantages: float32 ``[N]``, see :mod:`itemic.rl.advantages`.
        rewards: float32 ``[N]``.
        reference: float32 ``[T]``, under the reference; None without one.
        gains: float32 ``[T]``, advantages of the tokens; None where all of an answer have the answer's.
    """

    log_probs: Tensor
    old: Tensor
    answer: Tensor
    group: Tensor
    advantages: Tensor
    rewards: Tensor
    reference: Tensor | None = None
    gains: Tensor | None = None

    @cached_property
    def lengths(self) -> Tensor:
        """float32 ``[N]``: tokens of each answer."""
        return self.sums(torch.ones_like(self.old))

    @cached_property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group[-1]) + 1 if len(self.group) else 0

    def sums(self, values: Tensor) -> Tensor:
        """``[T]`` to ``[N]``: the sum over each answer's tokens."""
        return values.new_zeros(len(self.group)).index_add(0, self.answer, values)

    @property
    def ratios(self) -> Tensor:
        """``[T]``: how much more probable each token has become."""
        return (self.log_probs - self.old).exp()


class Cost(NamedTuple):
    """Costs of answers, tokens or groups, ``[n]``, and of each whether a clip took its gradient away, bool ``[n]``."""

    each: Tensor
    clipped: Tensor


@dataclass(frozen=True)
class Settings:
    """What the objectives can be told.

    Attributes:
        clip: how far below 1 a ratio may fall before it stops counting.
        clip_high: how far above 1; None for as far as ``clip``.
        max_tokens: of an answer; what Dr. GRPO divides each answer's sum by.
        sharpness: exponent of the probabilities in ``expected``.
        preference: β of ``dpo`` and ``sdpo``.
        eta: η of ``rebel``.
        pairs: of ``rebel``: ``all`` pairs of a group, or its ``best-worst``.
    """

    clip: float = 0.2
    clip_high: float | None = None
    max_tokens: int = 1
    sharpness: float = 1.0
    preference: float = 0.1
    eta: float = 1.0
    pairs: str = "all"

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest ratio that count."""
        return 1 - self.clip, 1 + (self.clip if self.clip_high is None else self.clip_high)


def _surrogate(ratios: Tensor, advantages: Tensor, settings: Settings) -> Cost:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), as a cost."""
    low, high = settings.bounds
    plain, bounded = ratios * advantages, ratios.clamp(low, high) * advantages
    return Cost(-torch.minimum(plain, bounded), bounded < plain)


def grpo(answers: Answers, settings: Settings) -> Cost:
    """GRPO (Shao et al. 2024, "DeepSeekMath", equation 3): the mean over an answer's tokens, then over answers."""
    cost, clipped = _surrogate(answers.ratios, answers.advantages[answers.answer], settings)
    each = answers.sums(cost) / answers.lengths
    return Cost(each, answers.sums(clipped.float()) / answers.lengths)


def dr_grpo(answers: Answers, settings: Settings) -> Cost:
    """Dr. GRPO (Liu et al. 2025, "Understanding R1-Zero-Like Training", section 3.2): an answer's sum over a constant,
    so that long answers don't weigh less a token. Its advantages aren't divided by their deviation."""
    cost, clipped = _surrogate(answers.ratios, answers.advantages[answers.answer], settings)
    return Cost(answers.sums(cost) / settings.max_tokens, answers.sums(clipped.float()) / answers.lengths)


def dapo(answers: Answers, settings: Settings) -> Cost:
    """DAPO (Yu et al. 2025, equation 8): each token counts the same, and the upper clip is wider than the lower."""
    return _surrogate(answers.ratios, answers.advantages[answers.answer], settings)


def gspo(answers: Answers, settings: Settings) -> Cost:
    """GSPO (Zheng et al. 2025, equations 5 and 7): one ratio an answer, the geometric mean of its tokens'."""
    ratios = (answers.sums(answers.log_probs - answers.old) / answers.lengths).exp()
    return _surrogate(ratios, answers.advantages, settings)


def cispo(answers: Answers, settings: Settings) -> Cost:
    """CISPO (MiniMax 2025, "MiniMax-M1", equation 4): the importance weight is clipped and not learned through, so that
    no token loses its gradient."""
    low, high = settings.bounds
    ratios = answers.ratios.detach()
    weights = ratios.clamp(low, high) * answers.advantages[answers.answer]
    return Cost(-weights * answers.log_probs, (ratios < low) | (ratios > high))


def rloo(answers: Answers, settings: Settings) -> Cost:
    """RLOO (Ahmadian et al. 2024, "Back to Basics", equation 7): the answer is one action. Where the weights have moved
    since, its ratio is clipped as PPO's; where they haven't, the gradient is REINFORCE's."""
    ratios = answers.sums(answers.log_probs - answers.old).exp()
    return _surrogate(ratios, answers.advantages, settings)


def reinforce(answers: Answers, settings: Settings) -> Cost:
    """REINFORCE++ (Hu 2025, section 3): PPO's surrogate a token, with advantages normalised over all of a step."""
    return _surrogate(answers.ratios, answers.advantages[answers.answer], settings)


def ppo(answers: Answers, settings: Settings) -> Cost:
    """PPO's policy (Schulman et al. 2017, equation 7): each token has an advantage of its own; what its critic and its
    entropy cost is in :mod:`itemic.rl.ppo`."""
    gains = answers.advantages[answers.answer] if answers.gains is None else answers.gains
    return _surrogate(answers.ratios, gains, settings)


def shares_apart(answers: Answers, settings: Settings) -> Tensor:
    """``[G]``: KL(policy ‖ reference) over the answers of a group, exactly: of the probabilities that ``expected``
    weighs rewards by. With a weight β on it, the best shares are the reference's times ``exp(reward / β)``."""
    assert answers.reference is not None
    mine, theirs = (
        scores - _log_sums(scores, answers)[answers.group]
        for scores in (
            settings.sharpness * answers.sums(answers.log_probs),
            settings.sharpness * answers.sums(answers.reference),
        )
    )
    return _by_group(mine.exp() * (mine - theirs), answers)


def expected(answers: Answers, settings: Settings) -> Cost:
    """The expected reward over the answers of a group, exactly: no sampling noise, and no advantages.

    Probabilities are normalised over the group's answers, which must all differ (minimum risk training, Shen et al.
    2016, equations 8 and 9, with ``sharpness`` as their α).
    """
    scores = settings.sharpness * answers.sums(answers.log_probs)
    shares = (scores - _log_sums(scores, answers)[answers.group]).exp()
    each = shares.new_zeros(answers.groups).index_add(0, answers.group, -shares * answers.rewards)
    return Cost(each, torch.zeros_like(each, dtype=torch.bool))


def dpo(answers: Answers, settings: Settings) -> Cost:
    """DPO (Rafailov et al. 2023, equation 7): a group's best answer against each that has less reward, the mean over
    these pairs. The first of equally good answers is the best; a group without any worse answer costs nothing."""
    gains, best, worse = _preferences(answers, settings)
    pairs = -torch.nn.functional.logsigmoid(gains[best][answers.group] - gains)
    count = _by_group(worse.float(), answers)
    each = _by_group(torch.where(worse, pairs, 0.0), answers) / count.clamp(min=1)
    return Cost(each, torch.zeros_like(each, dtype=torch.bool))


def sdpo(answers: Answers, settings: Settings) -> Cost:
    """S-DPO (Chen et al. 2024, "On Softmax Direct Preference Optimization for Recommendation", equation 9): a group's
    best answer against all worse ones at once."""
    gains, best, worse = _preferences(answers, settings)
    against = torch.where(worse, gains - gains[best][answers.group], -torch.inf)
    each = torch.nn.functional.softplus(_log_sums(against, answers))
    return Cost(each, torch.zeros_like(each, dtype=torch.bool))


def rebel(answers: Answers, settings: Settings) -> Cost:
    """REBEL (Gao et al. 2024, "REBEL: Reinforcement Learning via Regressing Relative Rewards", algorithm 1), times η²:
    ``((Δ₁ - Δ₂) - η (r₁ - r₂))²``, where Δ is how much more probable an answer is than when it was written.

    The paper has two answers to a prompt. Of more, ``all`` takes the mean over all pairs, which needs no pair: with
    ``a = Δ - η r`` it is twice the sample variance of a group's ``a``. ``best-worst`` takes the best and the worst by
    their reward, as the authors' own program does with five (``ultrafeedback_largebatch`` of their repository): the
    first of equally good ones and the last of equally bad ones.

    Example:
        Δ = .5 and .1, rewards 1 and 0, η = 1: ``(.4 - 1)² = .36``.
    """
    apart = answers.sums(answers.log_probs - answers.old) - settings.eta * answers.rewards
    if settings.pairs == "best-worst":
        best, worst = (_extreme(sign * answers.rewards, answers, first=sign > 0) for sign in (1, -1))
        each = (apart[best] - apart[worst]).square()
    else:
        count = _by_group(torch.ones_like(apart), answers)
        gone = apart - (_by_group(apart, answers) / count)[answers.group]
        each = 2 * _by_group(gone.square(), answers) / (count - 1).clamp(min=1)
    return Cost(each, torch.zeros_like(each, dtype=torch.bool))


def _extreme(values: Tensor, answers: Answers, *, first: bool) -> Tensor:
    """``[G]``: the place of each group's highest value, the first or the last of equal ones."""
    most = values.new_full((answers.groups,), -torch.inf)
    most = most.scatter_reduce(0, answers.group, values, "amax")
    top = values == most[answers.group]
    nobody, way = (len(top), "amin") if first else (-1, "amax")
    place = torch.where(top, torch.arange(len(top), device=top.device), nobody)
    found = torch.full((answers.groups,), nobody, device=top.device, dtype=torch.int64)
    return found.scatter_reduce(0, answers.group, place, way)


def _preferences(answers: Answers, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """Implicit rewards ``[N]``, the place of each group's best answer ``[G]``, and bool ``[N]``, who is worse."""
    reference = answers.old if answers.reference is None else answers.reference
    gains = settings.preference * answers.sums(answers.log_probs - reference)
    best = _extreme(answers.rewards, answers, first=True)
    return gains, best, answers.rewards < answers.rewards[best][answers.group]


def _by_group(values: Tensor, answers: Answers) -> Tensor:
    return values.new_zeros(answers.groups).index_add(0, answers.group, values)


def _log_sums(scores: Tensor, answers: Answers) -> Tensor:
    """``[N]`` to ``[G]``: the log-sum-exp over each group's answers; -inf where all are."""
    most = scores.detach().new_full((answers.groups,), -torch.inf)
    most = most.scatter_reduce(0, answers.group, scores.detach(), "amax")
    safe = torch.where(most.isfinite(), most, 0.0)
    return safe + _by_group((scores - safe[answers.group]).exp(), answers).log()


class Loss(NamedTuple):
    """An objective: its function, what its mean is over, and whether it takes advantages."""

    function: Callable[[Answers, Settings], Cost]
    over: str
    advantages: bool = True


LOSSES: dict[str, Loss] = {
    "grpo": Loss(grpo, ANSWERS),
    "dr-grpo": Loss(dr_grpo, ANSWERS),
    "dapo": Loss(dapo, TOKENS),
    "gspo": Loss(gspo, ANSWERS),
    "cispo": Loss(cispo, TOKENS),
    "rloo": Loss(rloo, ANSWERS),
    "reinforce++": Loss(reinforce, TOKENS),
    "expected": Loss(expected, GROUPS, advantages=False),
    "dpo": Loss(dpo, GROUPS, advantages=False),
    "s-dpo": Loss(sdpo, GROUPS, advantages=False),
    "ppo": Loss(ppo, TOKENS),
    "rebel": Loss(rebel, GROUPS, advantages=False),
}


# ------------------------------------------------------------------------- distance to a reference


def divergence(log_probs: Tensor, reference: Tensor, estimator: str) -> Tensor:
    """An estimate of KL(policy ‖ reference) for each token, ``[T]`` (Schulman 2020, "Approximating KL divergence").

    Args:
        log_probs: of the policy, of tokens that it drew.
        reference: of the reference.
        estimator: ``k1``, the log-ratio: unbiased, of any sign, and as a part of a loss without a gradient on average,
            so it belongs into rewards; ``k2``, half its square: small bias, and its gradient is that of the KL; ``k3``,
            ``exp(-k1) - 1 + k1``: unbiased and never negative.
    """
    gap = log_probs - reference
    if estimator == "k1":
        return gap
    if estimator == "k2":
        return 0.5 * gap.square()
    return torch.expm1(-gap) + gap


ESTIMATORS = ("k1", "k2", "k3")

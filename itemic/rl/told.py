"""What is told of a rollout: sums and their weights, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from itemic.rl.advantages import signal
from itemic.rl.rewards import Answered
from itemic.rl.rolled import Answers
from itemic.rl.settings import RolloutSettings

RANKS = ((1, 1), (2, 4), (5, 10), (11, 10**9))  # places whose rewards are told together
QUANTILES = (50, 90, 99)


def numbers_of(answers: Answers) -> dict[str, tuple[float, float]]:
    """Of a rollout's answers: mean rewards, signal, hits, reward by place, how the probability is spread."""
    there, total = answers.answered.there, answers.total
    count = float(there.sum())
    numbers = {"reward": (float(np.nansum(total)), count)}
    for name, values in answers.apart.items():
        numbers[f"reward/{name}"] = float(np.nansum(values)), count
    for label, first, last in rank_names(there.shape[1]):
        part = total[:, first - 1 : last]
        numbers[f"reward_at/{label}"] = float(np.nansum(part)), float((~np.isnan(part)).sum())
    groups = there.sum(axis=1) >= 2
    if groups.any():
        numbers["without_signal"] = float((~signal(total[groups])).sum()), float(groups.sum())
    numbers["found"] = float(answers.answered.hits.any(axis=1).sum()), float(len(there))
    numbers["targets_added"] = float(answers.added.sum()), float(len(there))
    numbers["suggested"] = float(answers.suggested.sum()), count
    numbers["entropy"] = _entropy(answers.answered), float(len(there))
    return numbers


def rank_names(answers: int) -> list[tuple[str, int, int]]:
    """Places whose rewards are told together: a name, the first and the last."""
    found = []
    for first, last in RANKS:
        if first <= answers:
            last = min(last, answers)
            found.append((str(first) if first == last else f"{first}-{last}", first, last))
    return found


def told_names(settings: RolloutSettings, rewards: Sequence[str]) -> tuple[str, ...]:
    """Names of all numbers that a rollout may tell."""
    thoughts = ("thought_tokens", "thoughts_cut", "thought_reward") if settings.thoughts else ()
    ranks = (f"reward_at/{label}" for label, _, _ in rank_names(settings.answers))
    own = (f"reward/{name}" for name in rewards)
    quantiles = (f"kl_of_answers/p{share}" for share in QUANTILES)
    others = ("without_signal", "found", "targets_added", "suggested", "entropy", "tried", "rollout_seconds")
    return ("reward", *own, *ranks, *others, *thoughts, *quantiles)


def _entropy(answered: Answered) -> float:
    """The sum over groups of the entropy of their answers' probabilities among each other, in nats."""
    scores = np.where(answered.there, answered.log_probs.astype(np.float64), -np.inf)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    most = scores.max(axis=1, keepdims=True, initial=-np.inf)
    chance = np.exp(scores - np.where(np.isfinite(most), most, 0))
    chance /= np.maximum(chance.sum(axis=1, keepdims=True), 1e-300)
    return float(-(chance * np.log(np.maximum(chance, 1e-300))).sum())

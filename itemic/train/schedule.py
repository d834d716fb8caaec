"""The learning rate of each step."""

from __future__ import annotations

import math

from itemic.train.stage import Stage


def learning_rate(stage: Stage, step: int, total: int) -> float:
    """The learning rate of an optimizer step.

    With warm-up ``w`` (in steps), steps numbered from 0, peak ``p`` and floor ``m``:
    ``p·(step+1)/w`` while ``step < w``; then with ``x = (step-w) / max(1, total-1-w)``, at most 1,
    ``m + (p-m)·(1 + cos(πx))/2`` (cosine), ``p + (m-p)·x`` (linear) or ``p`` (constant).
    The last step has exactly ``m``; steps past ``total`` stay there.
    """
    warmup = stage.warmup_steps(total)
    if step < warmup:
        return stage.learning_rate * (step + 1) / warmup
    if stage.schedule == "constant":
        return stage.learning_rate
    share = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    fall = (1 + math.cos(math.pi * share)) / 2 if stage.schedule == "cosine" else 1 - share
    return stage.min_lr + (stage.learning_rate - stage.min_lr) * fall

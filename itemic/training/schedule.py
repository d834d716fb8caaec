"""The learning rate of each step."""

from __future__ import annotations

import math

from itemic.training.settings import TrainingSettings


def learning_rate(stage: TrainingSettings, step: int, total: int) -> float:
    """The learning rate of an optimizer step.

    With warm-up ``w`` (in steps), steps numbered from 0, peak ``p`` and floor ``m``:
    ``p·(step+1)/w`` while ``step < w``; then with ``x = (step-w) / max(1, end-1-w)``, at most 1,
    ``m + (p-m)·(1 + cos(πx))/2`` (cosine), ``p + (m-p)·x`` (linear) or ``p`` (constant). ``wsd`` stays at ``p``
    until its last ``d`` steps and falls by ``m + (p-m)·(1 - √y)``, ``y`` the share of them that is gone
    (Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training durations").
    ``end`` is ``stage.schedule.steps``, or ``total``. Its last step has exactly ``m``; steps past it stay there.
    """
    end = stage.schedule.steps or total
    warmup = stage.schedule.warmup_steps(end)
    if step < warmup:
        return stage.learning_rate * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, end - 1 - warmup))
    fall = {
        "cosine": lambda: (1 + math.cos(math.pi * share)) / 2,
        "linear": lambda: 1 - share,
        "constant": lambda: 1.0,
        "wsd": lambda: _last_fall(step, end, stage.schedule.decay_steps(end)),
    }[stage.schedule.name]()
    return stage.schedule.min_lr + (stage.learning_rate - stage.schedule.min_lr) * fall


def _last_fall(step: int, end: int, decay: int) -> float:
    gone = min(1.0, max(0, step + 1 - (end - decay)) / max(1, decay))
    return 1 - math.sqrt(gone)

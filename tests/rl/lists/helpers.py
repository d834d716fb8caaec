"""A shop, a teacher with random weights, and stages of lists that take a moment."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from itemic.rl.run import Knows
from itemic.teacher.teacher import Teacher
from tests.rl.test_run import shop

SHAPE = {"width": 8, "heads": 1, "layers": 1, "inner": 8, "max_length": 10, "dropout": 0.0}
TASKS = ["RLSeqRec", "RLPersonalControlRec", "RLPersonalCategoryRate", "RLItemCount"]
STAGE: dict[str, Any] = {
    "steps": 3,
    "learning_rate": 1e-3,
    "data": {"prompts_per_step": 4},
    "asks": {"tasks": TASKS, "requests": 24},
    "rollout": {"normalize": "legal", "lists": {"samples": 3}},
    "objective": "ppo",
    "validation": {"every": None, "first": False, "requests": 8},
    "checkpoints": {"every": 1},
    "logs": {"every": 1},
    "examples": 2,
}


@lru_cache(maxsize=1)
def teacher() -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Teacher.new(shop().item_ids, SHAPE)


def knows() -> Knows:
    return Knows(teacher())

"""Which strategy a training is shared out by."""

from __future__ import annotations

from itemic.errors import ConfigError
from itemic.training.deepspeed import DeepSpeed
from itemic.training.distribution import Distribution
from itemic.training.objective import Objective
from itemic.training.parallel import DataParallel, Strategy, is_empty
from itemic.training.partitioned import Partitioned
from itemic.training.ranks import Ranks
from itemic.training.settings import TrainingSettings
from itemic.training.sharded import Sharded


def make_strategy(
    objective: Objective, stage: TrainingSettings, ranks: Ranks, options: Distribution
) -> Strategy:
    """The strategy of the options; a process on its own needs none.

    Raises:
        ConfigError: strategy and stage don't fit, or a library is missing.
    """
    if (ranks.size == 1 or options.strategy == "ddp") and is_empty(objective):
        raise ConfigError(
            f"rank {ranks.rank} has a model without weights, which strategy {options.strategy} needs on every rank",
            "Load it there, or use strategy fsdp on several ranks.",
        )
    if ranks.size == 1:
        return Strategy(objective, stage, ranks, options)
    if options.strategy == "deepspeed":
        made = Partitioned if options.shards_weights else DeepSpeed
        return made(objective, stage, ranks, options)
    return {"ddp": DataParallel, "fsdp": Sharded}[options.strategy](objective, stage, ranks, options)

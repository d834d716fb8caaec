"""Which strategy a training is shared out by."""

from __future__ import annotations

from transformers import PreTrainedModel

from itemic.training.deepspeed import DeepSpeed
from itemic.training.distribution import Distribution
from itemic.training.language.learning import Learning
from itemic.training.language.stage import Stage
from itemic.training.parallel import DataParallel, Sharded, Strategy
from itemic.training.ranks import Ranks


def make_strategy(
    lm: PreTrainedModel, learns: Learning, stage: Stage, ranks: Ranks, options: Distribution
) -> Strategy:
    """The strategy of the options; a process on its own needs none.

    Raises:
        ConfigError: strategy and stage don't fit, or a library is missing.
    """
    if ranks.size == 1:
        return Strategy(lm, learns, stage, ranks, options)
    if options.strategy == "deepspeed":
        return DeepSpeed(lm, learns, stage, ranks, options)
    return {"ddp": DataParallel, "fsdp": Sharded}[options.strategy](lm, learns, stage, ranks, options)

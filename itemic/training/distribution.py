"""How training is spread over processes: a frozen table, importable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from itemic.errors import ConfigError
from itemic.settings import Switch, Text, settings, settings_from, wrong

Strategy = Literal["ddp", "fsdp", "deepspeed"]


@settings(frozen=True)
class Distribution:
    """How several processes train one model. One process on its own needs none of it.

    Attributes:
        strategy: ``ddp``: each has the whole model (DistributedDataParallel); ``fsdp``: weights, gradients and
            optimizer state are shared out (FSDP2, ``fully_shard``); ``deepspeed``: ZeRO by DeepSpeed's engine.
        reshard_after_forward: ``fsdp`` gives up a layer's whole weights after its forward pass and gathers them again
            for the backward pass; without it they stay: more memory, less traffic.
        config: DeepSpeed's JSON file; ``zero_optimization`` says the stage.
    """

    strategy: Strategy = "ddp"
    reshard_after_forward: Switch = True
    config: Annotated[Text | None, Field(validate_default=True)] = None

    @field_validator("config")
    @classmethod
    def _with_deepspeed(cls, config: str | None, info: ValidationInfo) -> str | None:
        if "strategy" in info.data and (info.data["strategy"] == "deepspeed") != (config is not None):
            raise wrong("is DeepSpeed's JSON file: it and strategy deepspeed go together", config)
        return config

    @classmethod
    def of(cls, value: Distribution | Mapping[str, Any] | None) -> Distribution:
        """From a mapping, as a recipe has it.

        Raises:
            ConfigError: naming every unknown key and every value that can't work.
        """
        return settings_from(cls, value)

    @property
    def shards_weights(self) -> bool:
        """Whether weights are shared out, so that no rank needs all of them.

        Raises:
            ConfigError: DeepSpeed's file can't be used.
        """
        return self.strategy == "fsdp" or (self.config is not None and zero_stage(self.config) == 3)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_deepspeed(file: str | Path) -> dict[str, Any]:
    """DeepSpeed's JSON file.

    Raises:
        ConfigError: it can't be read, has no ZeRO stage of 1, 2 or 3, or sets what a stage of training says.
    """
    try:
        config = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
        stage = config["zero_optimization"]["stage"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file} is no configuration of DeepSpeed with a zero_optimization.stage: {error!r}",
            "Start from zero2.json or zero3.json, which `itemic recipe copy launch` writes.",
        ) from error
    if stage not in (1, 2, 3):
        raise ConfigError(f"{file}: zero_optimization.stage is {stage!r}", "Use 1, 2 or 3.")
    said = [key for key in ("optimizer", "scheduler", "gradient_clipping") if key in config]
    if said:
        raise ConfigError(
            f"{file} sets {', '.join(said)}, which the stage of training says",
            "Remove them there; learning_rate, schedule and optimizer (with its clip) are the stage's keys.",
        )
    return config  # type: ignore[no-any-return]


def zero_stage(file: str | Path) -> int:
    """The stage of ZeRO that DeepSpeed's JSON file asks for.

    Raises:
        ConfigError: as :func:`read_deepspeed`.
    """
    return int(read_deepspeed(file)["zero_optimization"]["stage"])

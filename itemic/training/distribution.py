"""How training is spread over processes: a frozen table, importable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from itemic.errors import ConfigError

STRATEGIES = ("ddp", "fsdp", "deepspeed")


@dataclass(frozen=True)
class Distribution:
    """How several processes train one model. One process on its own needs none of it.

    Attributes:
        strategy: ``ddp``: each has the whole model (DistributedDataParallel); ``fsdp``: weights, gradients and
            optimizer state are shared out (FSDP2, ``fully_shard``); ``deepspeed``: ZeRO by DeepSpeed's engine.
        reshard_after_forward: ``fsdp`` gives up a layer's whole weights after its forward pass and gathers them again
            for the backward pass; without it they stay: more memory, less traffic.
        config: DeepSpeed's JSON file; ``zero_optimization`` says the stage.
    """

    strategy: str = "ddp"
    reshard_after_forward: bool = True
    config: str | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.strategy not in STRATEGIES:
            faults.append(f"strategy is {self.strategy!r}, not one of {', '.join(STRATEGIES)}")
        if self.reshard_after_forward not in (True, False):
            faults.append(f"reshard_after_forward is {self.reshard_after_forward!r}, neither true nor false")
        if (self.strategy == "deepspeed") != (self.config is not None):
            faults.append("config, DeepSpeed's JSON file, and strategy deepspeed go together")
        if faults:
            raise ConfigError(f"distribution: {'; '.join(faults)}", "Mend these keys.")

    @classmethod
    def of(cls, value: Distribution | Mapping[str, Any] | None) -> Distribution:
        """From a mapping; unknown keys are refused.

        Raises:
            ConfigError: naming every unknown key, or every value that can't work.
        """
        if isinstance(value, Distribution):
            return value
        known = [f.name for f in fields(cls)]
        unknown = [str(key) for key in value or {} if key not in known]
        if unknown:
            raise ConfigError(
                f"unknown keys in distribution: {', '.join(unknown)}", f"Known: {', '.join(known)}."
            )
        return cls(**(value or {}))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_deepspeed(file: str | Path) -> dict[str, Any]:
    """DeepSpeed's JSON file.

    Raises:
        ConfigError: it can't be read, has no ZeRO stage of 2 or 3, or sets what a stage of training says.
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
            "Remove them there; learning_rate, schedule, clip and optimizer are the stage's keys.",
        )
    return config  # type: ignore[no-any-return]

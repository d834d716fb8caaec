"""Stages of training by dotted keys, which can be put together: ``KEYS | {"schedule.warmup": 0}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itemic.training.language.stage import Stage


def stage_of(keys: Mapping[str, Any]) -> Stage:
    """``{"steps": 3, "schedule.warmup": 0}`` → the stage of ``{steps: 3, schedule: {warmup: 0}}``."""
    opened: dict[str, Any] = {}
    for key, value in keys.items():
        part, dot, name = key.partition(".")
        if dot:
            opened.setdefault(part, {})[name] = value
        else:
            opened[key] = value
    return Stage.of(opened)


def with_keys(stage: Stage, keys: Mapping[str, Any]) -> Stage:
    """The stage with some other values."""
    return stage_of(stage.flat() | keys)

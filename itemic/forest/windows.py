"""Sliding windows: which ones a model's layers have, and short ones for a trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from itemic.errors import ModelError

SLIDING, FULL = "sliding_attention", "full_attention"


def windows_of(config: Any) -> list[int | None]:
    """The window of each kind of layer, once each: how many tokens a query sees, itself included; None for all.

    Args:
        config: a transformers configuration.
    """
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if kinds is None:
        return [window if getattr(config, "use_sliding_window", True) else None]
    return list(dict.fromkeys(window if kind == SLIDING else None for kind in kinds))


def check_windows(lm: PreTrainedModel) -> None:
    """Raises:
    ModelError: a layer has another window than the configuration says.
    """
    said = getattr(lm.config, "sliding_window", None)
    for name, module in lm.named_modules():
        window = _window(module)
        if window is not None and window != said:
            raise ModelError(
                f"the configuration says sliding_window: {said}, but {name} has a window of {window}",
                "Save the model again with a configuration that says what it does.",
            )


@contextmanager
def short_windows(lm: PreTrainedModel, length: int) -> Iterator[None]:
    """Inside the block windows are ``length`` tokens long, so that a few tokens show what they do."""
    with_window: list[Any] = [module for module in lm.modules() if _window(module) is not None]
    said, own = getattr(lm.config, "sliding_window", None), [module.sliding_window for module in with_window]
    if said is not None:
        lm.config.sliding_window = length
    for module in with_window:
        module.sliding_window = length
    try:
        yield
    finally:
        if said is not None:
            lm.config.sliding_window = said
        for module, window in zip(with_window, own, strict=True):
            module.sliding_window = window


def _window(module: nn.Module) -> Any:
    found = vars(module).get("sliding_window")
    return found if isinstance(found, int) else None

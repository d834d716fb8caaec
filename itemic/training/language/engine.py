"""How a forward and a backward pass are carried out: with less memory, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from itemic.errors import ConfigError

COMPILED = ("mlp", "input_layernorm", "post_attention_layernorm", "norm", "q_norm", "k_norm")


@contextmanager
def lean_memory(lm: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Keep only each layer's input in the forward pass inside the block, and compute the rest again for the gradient
    (Chen et al. 2016, "Training deep nets with sublinear memory cost").

    Raises:
        ConfigError: the model's code can't do so.
    """
    if not wanted:
        yield
        return
    if not lm.supports_gradient_checkpointing:
        raise ConfigError(
            f"a {lm.config.model_type} model can't compute its layers again for their gradients",
            "Set gradient_checkpointing to false.",
        )
    _switch(lm, "enable")({"use_reentrant": False})
    if (
        getattr(lm, "_require_grads_hook", None) is not None
    ):  # only the reentrant kind needs inputs with gradients
        lm.disable_input_require_grads()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        _switch(lm, "disable")()


def _switch(lm: PreTrainedModel, what: str) -> Callable[..., None]:
    """transformers calls it activation checkpointing from some 5.x on."""
    names = (f"activation_checkpointing_{what}", f"gradient_checkpointing_{what}")
    found: Callable[..., None] = next(getattr(lm, name) for name in names if hasattr(lm, name))
    return found


@contextmanager
def compiled(lm: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Compile feed-forward layers and norms inside the block, which are many passes over memory when they aren't.

    Attention stays as it is: its parts differ from block to block, or it is a compiled kernel already.
    """
    parts = _parts(lm) if wanted else []
    for part in parts:
        part.compile(dynamic=True)
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None


def _parts(lm: nn.Module) -> list[nn.Module]:
    return [module for name, module in lm.named_modules() if name.rpartition(".")[2] in COMPILED]

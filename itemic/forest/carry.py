"""A forest, or a search, on its way through the layers of a model to their attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel


@contextmanager
def forwards(of: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Inside the block these modules go forward otherwise; hooks stay."""
    before = {module: vars(module).get("forward") for module in of}
    for module, forward in of.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del module.forward
            else:
                module.forward = own


@contextmanager
def handed_on(lm: PreTrainedModel, keyword: str) -> Iterator[None]:
    """Inside the block a layer's attention gets the ``keyword`` that the layer is called with.

    Most layers hand all their keywords on; those of StableLM keep them to themselves.
    """
    with ExitStack() as stack:
        for layer in getattr(lm.base_model, "layers", ()):
            for attention in (part for part in layer.children() if type(part).__name__.endswith("Attention")):
                stack.enter_context(forwards(_bridge(layer, attention, keyword)))
        yield


def _bridge(layer: Any, attention: Any, keyword: str) -> dict[nn.Module, Callable[..., Any]]:
    whole_layer, whole_attention, held = layer.forward, attention.forward, None

    def layer_forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal held
        held = kwargs.get(keyword)
        return whole_layer(*args, **kwargs)

    def attention_forward(*args: Any, **kwargs: Any) -> Any:
        return whole_attention(*args, **{keyword: held, **kwargs})

    return {layer: layer_forward, attention: attention_forward}

"""The last layer's feed-forward, for the tokens alone whose last hidden states are asked for: few carry loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from itemic.forest.carry import forwards


@contextmanager
def short_last_layer(lm: PreTrainedModel) -> Iterator[None]:
    """Inside the block the last layer takes heed of :attr:`itemic.forest.layout.ForestLayout.wanted`.

    What a feed-forward layer adds to other tokens is zero then, which nothing sees: attention comes before it. The
    layer's own arguments tell it, so a layer that is computed again for its gradient does the same again.
    """
    layer = last_layer(lm)
    if layer is None or layer.mlp._compiled_call_impl is not None:
        yield
        return
    mlp: Any = layer.mlp
    whole_layer, whole_mlp = layer.forward, mlp.forward
    wanted: Tensor | None = None

    def layer_forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal wanted
        forest = kwargs.get("forest")
        wanted = None if forest is None else forest.wanted
        return whole_layer(*args, **kwargs)

    def mlp_forward(hidden: Tensor) -> Any:
        if wanted is None:
            return whole_mlp(hidden)
        found: Tensor = whole_mlp(hidden.index_select(1, wanted))
        return found.new_zeros(*hidden.shape[:-1], found.shape[-1]).index_copy(1, wanted, found)

    with forwards({layer: layer_forward, mlp: mlp_forward}):
        yield


def last_layer(lm: PreTrainedModel) -> Any:
    """The layer before the last hidden states, whose feed-forward is ``mlp``; None where it has no plain one (experts
    choose by token, and some balance over all of them)."""
    layers = getattr(lm.base_model, "layers", None)
    last = layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None
    mlp = getattr(last, "mlp", None)
    plain = type(mlp).__name__.endswith("MLP") and not hasattr(mlp, "experts")
    return last if plain else None

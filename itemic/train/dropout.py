"""Dropout on embeddings and on the outputs of attention and feed-forward layers, which the families we train
have no setting for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from itemic.errors import ModelError

BRANCHES = ("self_attn", "mlp")


@contextmanager
def residual_dropout(lm: PreTrainedModel, share: float, embeddings: bool = True) -> Iterator[None]:
    """Zero a share of the token embeddings, and of what each attention and feed-forward layer adds to the residual
    stream (Vaswani et al. 2017, section 5.4), in training mode only, inside the block only.

    Args:
        lm: the model.
        share: of the numbers that are zeroed; 0 does nothing.
        embeddings: whether the embeddings are among them; not where they are computed outside the module.

    Raises:
        ModelError: the model has no layers of the known names.
    """
    branches = [module for name, module in lm.named_modules() if name.rpartition(".")[2] in BRANCHES]
    if share and not branches:
        raise ModelError(
            f"found no attention or feed-forward layers in a {lm.config.model_type}", "Set dropout to 0."
        )

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, Tensor):
            return F.dropout(output, share)
        return (F.dropout(output[0], share), *output[1:])

    places = [*branches, *([lm.get_input_embeddings()] if embeddings else [])]
    handles = [module.register_forward_hook(drop) for module in places] if share else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

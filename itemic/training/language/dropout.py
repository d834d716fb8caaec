"""Dropout on embeddings and on the outputs of attention and feed-forward layers; the base's own is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from itemic.model.layers import branches
from itemic.progress import log

_RANDOM = ("dropout", "drop", "layerdrop", "jitter_noise", "router_jitter_noise", "input_jitter_noise")


@contextmanager
def residual_dropout(lm: PreTrainedModel, share: float, embeddings: bool = True) -> Iterator[None]:
    """Zero a share of the token embeddings, and of what comes out of each attention and feed-forward layer (Vaswani et
    al. 2017, section 5.4), in training mode only, inside the block only.

    Args:
        lm: the model.
        share: of the numbers that are zeroed; 0 does nothing.
        embeddings: whether the embeddings are among them; not where they are computed outside the module.

    Raises:
        ModelError: the model's layers have parts that aren't known.
    """

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, Tensor):
            return F.dropout(output, share)
        return (F.dropout(output[0], share), *output[1:])

    places = [*branches(lm), *([lm.get_input_embeddings()] if embeddings else [])] if share else []
    handles = [module.register_forward_hook(drop) for module in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def without_own_dropout(lm: PreTrainedModel) -> Iterator[None]:
    """Inside the block nothing that a base's configuration says of chance counts: GPT-2 and others drop a tenth of
    everything unless told otherwise, of which a forest, whose attention has no dropout, would do a part only.

    :func:`residual_dropout` and the adapters' own dropout are not concerned.
    """
    before = list(_chances(lm))
    if before:
        names = sorted({name for _, _, name, _ in before})
        log.info(
            "the %s model's own dropout (%s) is off while training; a stage's `dropout` is the one that counts",
            lm.config.model_type,
            ", ".join(names),
        )
    for module, key, _, _ in before:
        setattr(module, key, 0.0)
    try:
        yield
    finally:
        for module, key, _, value in before:
            setattr(module, key, value)


def _chances(lm: PreTrainedModel) -> Iterator[tuple[nn.Module, str, str, float]]:
    """Modules with the attribute that holds a share above 0, what it is called, and the share."""
    for place, module in lm.named_modules():
        if "lora_dropout" in place:
            continue
        if isinstance(module, nn.Dropout) and module.p > 0:
            yield module, "p", place.rpartition(".")[2], module.p
        for key, value in vars(module).items():
            named = any(key == word or key.endswith(f"_{word}") for word in _RANDOM) or key.endswith("pdrop")
            if named and isinstance(value, float) and value > 0:
                yield module, key, key, value

"""Which models a forest can go through: decided by their configuration, then proved by a small forward pass."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from itemic.errors import ModelError
from itemic.forest.build import build_forest
from itemic.forest.rows import TokenRows

_REMEDY = "Use a decoder with full causal attention in every layer, such as Qwen3, Qwen2, Llama or Gemma."
_proved: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def check_config(config: PreTrainedConfig) -> None:
    """Refuse what is known not to work, by name.

    Raises:
        ModelError: encoder(-decoder), sliding-window or recurrent layers in use, soft-capped logits.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"a {kind} model is an encoder-decoder, not a causal language model", _REMEDY)
    other = sorted(set(getattr(config, "layer_types", None) or []) - {"full_attention"})
    if other:
        raise ModelError(f"this {kind} model has layers of type {', '.join(other)}", _REMEDY)
    window = getattr(config, "sliding_window", None)
    untyped = getattr(config, "layer_types", None) is None
    if window is not None and untyped and getattr(config, "use_sliding_window", True):
        raise ModelError(f"this {kind} model attends through a sliding window of {window} tokens", _REMEDY)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            raise ModelError(f"this {kind} model caps its logits ({key})", _REMEDY)


def check_supported(lm: PreTrainedModel) -> None:
    """Refuse a model whose outputs over a small forest differ from those over its rows; the proof is kept per model.

    Raises:
        ModelError: it does, or its configuration tells so beforehand.
    """
    if _proved.get(lm):
        return
    check_config(lm.config)
    if not _same_as_rows(lm):
        raise ModelError(f"a {lm.config.model_type} model gives other results over a token forest", _REMEDY)
    _proved[lm] = True


def check_copy(copy: PreTrainedModel, lm: PreTrainedModel) -> None:
    """The same for a copy of a model, of the model itself: the copy may be about to be taken apart.

    Raises:
        ModelError: as :func:`check_supported`.
    """
    check_supported(lm)
    _proved[copy] = True


def _same_as_rows(lm: PreTrainedModel) -> bool:
    from itemic.forest import attention
    from itemic.forest.run import forest_hidden

    rows = TokenRows.of([[5, 3, 4, 1], [5, 3, 2], [6, 1, 2, 3]])
    forest = build_forest(rows)
    before, training = lm.config._attn_implementation, lm.training
    lm.train(False)
    try:
        with torch.no_grad(), torch.autocast(lm.device.type, enabled=False):
            lm.config._attn_implementation = attention.NAME
            hidden = forest_hidden(lm, forest, backend="dense")[torch.from_numpy(forest.row_leaf).long()]
            head = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
            ours = torch.nn.functional.linear(hidden, head.weight)
            lm.config._attn_implementation = "eager"
            theirs = [
                lm(torch.tensor([rows[i].tolist()], device=lm.device), use_cache=False).logits[0, -1]
                for i in range(len(rows))
            ]
    except TypeError:
        return False  # a forward that doesn't hand keywords on to its attention
    finally:
        lm.config._attn_implementation = before
        lm.train(training)
    scale = torch.stack(theirs).float().abs().max().clamp_min(1e-6)
    limit = 1e-3 if lm.dtype == torch.float32 else 0.1
    return bool((ours.float() - torch.stack(theirs).float()).abs().max() < limit * scale)

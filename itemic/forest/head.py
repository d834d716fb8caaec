"""From last hidden states to logits: the output embeddings, and what some families do behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class OutputHead:
    """``cap · tanh(scale · (hidden @ weightᵀ + bias) / cap)``.

    Attributes:
        weight: ``[V, d]``, the output embeddings.
        bias: ``[V]`` or None.
        scale: Cohere's ``logit_scale``, one through Granite's ``logits_scaling``.
        cap: bounds the logits (Gemma 2, arXiv:2408.00118, section 2); None where they are as they are.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, lm: PreTrainedModel) -> OutputHead:
        """By the model's configuration; :func:`itemic.forest.support.check_supported` proves it."""
        module: Any = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
        scale = (getattr(lm.config, "logit_scale", None) or 1.0) / (
            getattr(lm.config, "logits_scaling", None) or 1.0
        )
        cap = getattr(lm.config, "final_logit_softcapping", None)
        return cls(module.weight, getattr(module, "bias", None), float(scale), cap)

    def finish(self, logits: Tensor) -> Tensor:
        """From products to logits, in place: for where nothing is differentiated."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, logits: Tensor) -> Tensor | float:
        """What a product's gradient is of its logit's; ``logits`` are finished ones."""
        return self.scale if self.cap is None else (1 - (logits / self.cap).square()) * self.scale

    def logits(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """float32 ``[n, V]`` (float64 in float64) of hidden states ``[n, d]``; of int64 ``rows`` alone, ``[n, m]``."""
        weight, bias = self.weight, self.bias
        if rows is not None:
            weight, bias = weight.index_select(0, rows), None if bias is None else bias[rows]
        found = torch.nn.functional.linear(hidden, weight, bias)
        return self.finish(found.to(torch.promote_types(found.dtype, torch.float32)))

"""How one layer's attention makes weights of queries and keys: what decoders differ in, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """``softmax(cap · tanh(scale · q·k / cap))`` over the keys that a query sees, and over its head's sink.

    Attributes:
        scale: of the products of queries and keys.
        window: a query sees keys whose position is less than so many before its own; None for all before it.
        cap: bounds the scores (Gemma 2, arXiv:2408.00118, section 2); None where they are as they are.
        sinks: ``[H]``, for each query head the score of a key that holds nothing, so that a head can look at nothing
            (gpt-oss, arXiv:2508.10925, section 2.2); None without.
    """

    scale: float
    window: int | None = None
    cap: float | None = None
    sinks: Tensor | None = None

    @classmethod
    def asked_for(cls, query: Tensor, scaling: float | None, asked: dict[str, Any]) -> Scores:
        """From what transformers hands to an attention function beside queries ``[…, d]``, keys and values."""
        return cls(
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            asked.get("sliding_window"),
            asked.get("softcap"),
            asked.get("s_aux"),
        )

    @property
    def plain(self) -> bool:
        """Whether they are the scaled products themselves."""
        return self.cap is None

    def capped(self, products: Tensor) -> Tensor:
        """The scores of products that are scaled already."""
        return products if self.cap is None else torch.tanh(products / self.cap) * self.cap

    def capped_(self, products: Tensor) -> Tensor:
        """The same in place, for where nothing is differentiated."""
        return products if self.cap is None else products.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, scores: Tensor) -> Tensor | float:
        """What a product's gradient is of its score's, without the scale."""
        return 1.0 if self.cap is None else 1 - (scores / self.cap).square()

    def with_sinks(self, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``[n, H, d]`` and log-sum-exps ``[n, H]`` over keys alone to those over keys and sinks."""
        if self.sinks is None:
            return out, lse
        total = torch.logaddexp(lse, self.sinks.to(lse.dtype))
        return out * torch.exp(lse - total)[..., None].to(out.dtype), total

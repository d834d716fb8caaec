"""Root mean square norms in one function of autograd, where no compiler fuses them: on a CPU they are a tenth of a
training of small models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from itemic.forest.carry import forwards

# all the same: weight · x / rms(x)
NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
CACHED = 1 << 16  # numbers that are worked on at a time, a small part of a core's cache


@contextmanager
def lean_norms(lm: PreTrainedModel, wanted: bool = True) -> Iterator[None]:
    """Inside the block norms of the known kinds are :func:`rms_norm` on float32 numbers on a CPU; all others, and these
    on other numbers, stay what they are."""
    norms = [module for module in lm.modules() if wanted and type(module).__name__ in NORMS]
    with forwards({norm: partial(_forward, norm, norm.forward) for norm in norms}):
        yield


def _forward(norm: Any, plain: Any, hidden: Tensor) -> Tensor:
    weight = norm.weight
    if hidden.device.type != "cpu" or not hidden.dtype == weight.dtype == torch.float32:
        return plain(hidden)  # type: ignore[no-any-return]
    return rms_norm(hidden, weight, norm.variance_epsilon)


def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """``weight · x / √(mean x² + ε)`` over the last dimension (Zhang and Sennrich 2019, eq. 4), float32 ``[…, d]``."""
    compute: Any = _RMSNorm.apply
    found: Tensor = compute(hidden, weight, epsilon)
    return found


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        square = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square_().div_(hidden.shape[-1])
        scale = square.add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight, scale)
        normed: Tensor = (hidden * scale).mul_(weight)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, weight, scale = ctx.saved_tensors
        width = len(weight)
        x, r, g = hidden.reshape(-1, width), scale.reshape(-1, 1), grads[0].reshape(-1, width)
        d_hidden = torch.empty_like(x)
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        step = max(1, CACHED // width)
        for at in range(0, len(x), step):
            rows = slice(at, at + step)
            normed = x[rows] * r[rows]
            slope = g[rows] * normed
            if d_weight is not None:
                d_weight += slope.sum(0)
            mean = (slope @ weight)[:, None].div_(width)
            torch.mul(g[rows], weight, out=d_hidden[rows]).addcmul_(normed, mean, value=-1).mul_(r[rows])
        return d_hidden.view(hidden.shape), d_weight, None

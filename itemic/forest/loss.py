"""Cross-entropy of weighted tokens, the head applied chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from itemic.forest.head import OutputHead


def weighted_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
    learn: Tensor | None = None,
    learn_start: int = 0,
    chunk: int = 2048,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """``Σ weight · -log softmax(head · hidden)[target]``, without ever holding more than ``chunk`` rows of logits.

    The gradients are computed in the forward pass, while a chunk's logits are there; the backward pass only scales
    them, in place, so there can be one only. Memory does not grow with rows × vocabulary.

    Args:
        hidden: ``[n, d]``.
        head: ``[V, d]``, the output embeddings.
        targets: int64 ``[n]``.
        weights: float32 ``[n]``.
        bias: ``[V]`` or None.
        scale: of the logits, see :class:`itemic.forest.head.OutputHead`; likewise ``cap``.
        cap: see there.
        chunk: rows of logits held at once.
        learn_start: the vocabulary row where ``learn`` begins.
        learn: ``[m, d]``, the same numbers as ``head[learn_start:learn_start + m]``: only these rows get a gradient
            and ``head`` gets none.
        label_smoothing: ε of Szegedy et al. 2016, eq. 8: the target keeps 1-ε+ε/V, every other token gets ε/V.

    Returns:
        the sum, a float32 scalar, and the losses that were summed, float32 ``[n]``, which carry no gradient.
    """
    compute: Any = _WeightedCrossEntropy.apply
    found: tuple[Tensor, Tensor] = compute(
        hidden,
        head if learn is None else head.detach(),
        bias,
        learn,
        targets,
        weights,
        (scale, cap),
        learn_start,
        chunk,
        label_smoothing,
    )
    return found


class _WeightedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        learn: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        after: tuple[float, float | None],
        start: int,
        chunk: int,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        matrix = head.to(dtype)
        output = OutputHead(matrix, None if bias is None else bias.to(dtype), *after)
        part = slice(start, start + len(learn)) if learn is not None else slice(0, len(head))
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        wants_head = ctx.needs_input_grad[3] if learn is not None else ctx.needs_input_grad[1]
        grad_head: Tensor | None = None
        grad_bias = (
            torch.zeros_like(bias, dtype=torch.float32)
            if bias is not None and ctx.needs_input_grad[2]
            else None
        )
        total = torch.zeros((), device=hidden.device)
        losses = torch.empty(len(hidden), device=hidden.device)
        for at in range(0, len(hidden), chunk):
            rows, goal = hidden[at : at + chunk].to(dtype), targets[at : at + chunk]
            weight = weights[at : at + chunk].float()
            with torch.autocast(device, enabled=False):
                logits = output.logits(rows)
                bend = output.slope(logits)
                top = logits.amax(-1, keepdim=True)
                hit = logits.gather(1, goal[:, None]) - top
                mean = logits.mean(-1, keepdim=True) - top if smoothing else 0.0
                chance = logits.sub_(
                    top
                ).exp_()  # in place: a second matrix of this size would be most of the memory
                sums = chance.sum(-1, keepdim=True)
                loss = (sums.log() - (1 - smoothing) * hit - smoothing * mean)[:, 0]
                total += (weight * loss).sum()
                losses[at : at + chunk] = loss
                if grad_hidden is None and grad_bias is None and not wants_head:
                    continue
                slope = chance.mul_(weight[:, None] / sums)
                if smoothing:
                    slope -= weight[:, None] * (smoothing / len(head))
                slope[torch.arange(len(goal), device=goal.device), goal] -= weight * (1 - smoothing)
                if after != (1.0, None):
                    slope *= bend
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
                slope = slope.to(dtype)
                if grad_hidden is not None:
                    grad_hidden[at : at + chunk] = slope @ matrix
                if wants_head:
                    grad_head = _add_product(grad_head, slope[:, part].T, rows)
        if wants_head and grad_head is None:
            grad_head = torch.zeros(part.stop - part.start, head.shape[1], device=head.device)
        ctx.grads = (grad_hidden, grad_head, grad_bias, learn is not None)
        ctx.types = ((head if learn is None else learn).dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(losses)
        return total, losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("weighted_cross_entropy keeps its gradients for one backward pass only")
        scale = grads[0]
        (hidden, head, bias, learns), ctx.grads = ctx.grads, None
        # in place: a second matrix of the head's size would be most of the memory
        d_hidden = None if hidden is None else hidden.mul_(scale.to(hidden.dtype))
        d_head = None if head is None else head.mul_(scale).to(ctx.types[0])
        d_bias = None if bias is None else bias.mul_(scale).to(ctx.types[1])
        none = (None, None, None, None, None, None)
        if learns:
            return (d_hidden, None, d_bias, d_head, *none)
        return (d_hidden, d_head, d_bias, None, *none)


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """``total + left @ right`` in float32 at the least, without a matrix in between where the types allow it."""
    if total is None:
        product = left @ right
        return product.to(torch.promote_types(product.dtype, torch.float32))
    return total.addmm_(left, right) if left.dtype == total.dtype else total.add_(left @ right)

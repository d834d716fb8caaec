"""Cross-entropy of weighted tokens, the head applied chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from itemic.forest.head import OutputHead
from itemic.forest.scope import Among
from itemic.forest.unwanted import Avoid


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
    among: Among | None = None,
    avoid: Avoid | None = None,
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
        label_smoothing: ε of Szegedy et al. 2016, eq. 8: the target keeps 1-ε+ε/V, every other token gets ε/V, where V
            tokens compete.
        among: in the last rows a few tokens compete instead of the whole vocabulary, the target one of them.
        avoid: tokens that are unwanted in some rows: ``factor · -log(1 - P)`` is added to such a row's loss, ``P`` the
            probability of all of them together (unlikelihood, Welleck et al. 2020, eq. 4, where they are one by one).

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
        among,
        avoid,
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
        among: Among | None,
        avoid: Avoid | None,
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
        quiet = grad_hidden is None and grad_bias is None and not wants_head
        for begin, stop, over, few in _parts(len(hidden), output, among):
            grad_over: Tensor | None = None
            for at in range(begin, stop, chunk):
                here = slice(at, min(at + chunk, stop))
                rows, goal, weight = hidden[here].to(dtype), targets[here], weights[here].float()
                with torch.autocast(device, enabled=False):
                    legal = None if few is None else few.mask(here.start, here.stop)
                    goal = goal if few is None else torch.searchsorted(few.columns, goal)
                    spared = None if avoid is None else avoid.between(here.start, here.stop)
                    if spared is not None and few is not None:
                        spared = spared[0], torch.searchsorted(few.columns, spared[1]), spared[2]
                    loss, slope = _slopes(over, rows, goal, weight, smoothing, quiet, legal, spared)
                    total += (weight * loss).sum()
                    losses[here] = loss
                    if slope is None:
                        continue
                    if grad_bias is not None and few is None:
                        grad_bias += slope.sum(0)
                    elif grad_bias is not None and few is not None:
                        grad_bias.index_add_(0, few.columns, slope.sum(0))
                    slope = slope.to(dtype)
                    if grad_hidden is not None:
                        grad_hidden[here] = slope @ over.weight
                    if wants_head:
                        wide = slope[:, part] if few is None else slope
                        grad_over = _add_product(grad_over, wide.T, rows)
            if few is None:
                grad_head = grad_over
            elif grad_over is not None:
                if grad_head is None:
                    grad_head = grad_over.new_zeros(part.stop - part.start, head.shape[1])
                place = few.columns - part.start
                own = (place >= 0) & (place < len(grad_head))
                grad_head.index_add_(0, place[own], grad_over[own])
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
        none = (None,) * 8
        if learns:
            return (d_hidden, None, d_bias, d_head, *none)
        return (d_hidden, d_head, d_bias, None, *none)


def _parts(
    rows: int, head: OutputHead, among: Among | None
) -> Iterator[tuple[int, int, OutputHead, Among | None]]:
    """From which row to which, the head that is applied to them, and what competes where that isn't everything."""
    if among is None:
        yield 0, rows, head, None
        return
    yield 0, among.begin, head, None
    bias = None if head.bias is None else head.bias[among.columns]
    yield among.begin, rows, OutputHead(head.weight[among.columns], bias, head.scale, head.cap), among


def _slopes(
    head: OutputHead,
    rows: Tensor,
    goal: Tensor,
    weight: Tensor,
    smoothing: float,
    quiet: bool,
    legal: Tensor | None,
    avoid: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor | None]:
    """The losses ``[m]`` of a chunk, and what its weighted sum's gradient is of the products ``[m, V]`` with the head,
    unless ``quiet``. Under ``legal``, bool ``[m, V]``, other tokens don't compete; ``avoid`` names rows and columns
    that are unwanted, and what that counts in each row."""
    logits = head.logits(rows)
    bend = head.slope(logits)
    if legal is not None:
        logits.masked_fill_(~legal, -torch.inf)
    top = logits.amax(-1, keepdim=True)
    hit = logits.gather(1, goal[:, None]) - top
    mean: Tensor | float = 0.0
    if smoothing and legal is None:
        mean = logits.mean(-1, keepdim=True) - top
    elif smoothing and legal is not None:
        count = legal.sum(-1, keepdim=True)
        mean = logits.masked_fill(~legal, 0.0).sum(-1, keepdim=True) / count - top
    chance = logits.sub_(top).exp_()  # in place: a second matrix of this size would be most of the memory
    sums = chance.sum(-1, keepdim=True)
    loss = (sums.log() - (1 - smoothing) * hit - smoothing * mean)[:, 0]
    share, kept = weight[:, None] / sums, None
    if avoid is not None:
        row, column, factor = avoid
        own = chance[row, column]
        chance[row, column] = 0.0
        rest = chance.sum(-1, keepdim=True).clamp_min_(torch.finfo(chance.dtype).tiny)
        chance[row, column] = own
        loss = loss + factor * (sums / rest).log()[:, 0]
        share = share * (1 + factor[:, None])
        kept = own * share[row, 0]
        share = share - (weight * factor)[:, None] / rest
    if quiet:
        return loss, None
    slope = chance.mul_(share)
    if avoid is not None and kept is not None:
        slope[avoid[0], avoid[1]] = kept
    if smoothing and legal is None:
        slope -= weight[:, None] * (smoothing / len(head.weight))
    elif smoothing and legal is not None:
        slope -= legal * (weight[:, None] * (smoothing / count))
    slope[torch.arange(len(goal), device=goal.device), goal] -= weight * (1 - smoothing)
    if head.scale != 1.0 or head.cap is not None:
        slope *= bend
    return loss, slope


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """``total + left @ right`` in float32 at the least, without a matrix in between where the types allow it."""
    if total is None:
        product = left @ right
        return product.to(torch.promote_types(product.dtype, torch.float32))
    return total.addmm_(left, right) if left.dtype == total.dtype else total.add_(left @ right)

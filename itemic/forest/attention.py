"""Attention over a forest, behind one face: a function in transformers' attention interface.

Models stay unmodified: they look their attention up by name, pass on the keyword ``forest`` and build no mask of their
own, because no mask function of that name exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from itemic.forest.layout import ForestLayout, Part

NAME = "itemic_forest"


def default_backend(device: torch.device) -> str:
    """``flex`` on CUDA, ``sdpa`` elsewhere (flex_attention has no backward on CPU)."""
    return "flex" if device.type == "cuda" else "sdpa"


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    forest: ForestLayout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: query ``[1, H, T, d]``, key and value ``[1, H_kv, T, d]``.

    Returns:
        ``[1, T, H, d]`` and None for the weights.
    """
    if forest is None:
        raise RuntimeError("the model is set to forest attention but was called without `forest=`")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if torch.is_autocast_enabled(query.device.type):
        # norms leave queries and keys in float32, values are not
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    groups = query.shape[1] // key.shape[1]
    if forest.backend == "flex":
        out = _flex()(query, key, value, block_mask=forest.mask, scale=scale, enable_gqa=groups > 1)
        return out.transpose(1, 2), None
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if forest.backend == "dense":
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=forest.mask, scale=scale
        )
        return out.transpose(1, 2), None
    by_token = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    tree: Any = _TreeAttention.apply
    return tree(*by_token, forest.parts, scale)[None], None


@cache
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


class _TreeAttention(torch.autograd.Function):
    """Attention as a sum of parts, merged through their log-sum-exp.

    A query's softmax over the union of its parts' keys is the mean of the parts' outputs weighted by
    exp(lse_part - lse). The backward pass of each part needs only the *merged* output and log-sum-exp, because the
    probabilities are exp(score - lse) whatever part a key is in.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: tuple[Part, ...], scale: float
    ) -> Tensor:
        total, heads, _ = query.shape
        out = query.new_zeros(total, heads, value.shape[-1])
        exact = torch.promote_types(query.dtype, torch.float32)
        lse = torch.full((total, heads), float("-inf"), dtype=exact, device=query.device)
        for part in parts:
            o, norm = attend_part(part, query, key, value, scale)
            if part.places is None:
                at = part.queries
                out[at], lse[at] = merge(out[at], lse[at], o, norm)
            else:
                slots, tokens = part.places
                merged = merge(out[tokens], lse[tokens], o[slots], norm[slots])
                out.index_copy_(0, tokens, merged[0])
                lse.index_copy_(0, tokens, merged[1])
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.scale = parts, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, lse = ctx.saved_tensors
        grad, dtype = grads[0].contiguous(), query.dtype
        if query.device.type == "cpu" and dtype.itemsize < 4:
            # the CPU kernel's backward pass is five times slower in bfloat16 than in float32
            query, key, value, out, grad = (x.float() for x in (query, key, value, out, grad))
        dq, dk, dv = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for part in ctx.parts:
            _backward(part, (query, key, value, out, lse, grad), (dq, dk, dv), ctx.scale)
        return dq.to(dtype), dk.to(dtype), dv.to(dtype), None, None


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Join two parts' outputs ``[n, H, d]`` and log-sum-exps ``[n, H]``; a part of -inf has seen nothing yet."""
    total = torch.logaddexp(lse, more_lse)
    old = torch.exp(lse - total)[..., None].to(out.dtype)
    new = torch.exp(more_lse - total)[..., None].to(out.dtype)
    return torch.addcmul(more * new, out, old), total


def _gather(tensor: Tensor, where: slice | Tensor) -> Tensor:
    """``[T, H, d]`` → ``[n, H, w, d]``, n = 1 for a slice."""
    if isinstance(where, slice):
        return tensor[where].transpose(0, 1)[None]
    picked = tensor.index_select(0, where.flatten())
    return picked.view(*where.shape, *tensor.shape[1:]).transpose(1, 2)


def _by_token(tensor: Tensor) -> Tensor:
    """``[n, H, w, …]`` → ``[n · w, H, …]``."""
    return tensor.transpose(1, 2).flatten(0, 1)


def attend_part(part: Part, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output ``[n, H, d]`` and log-sum-exp ``[n, H]`` of a part's queries over its keys; tensors are ``[T, H, d]``."""
    q, k, v = _gather(query, part.queries), _gather(key, part.keys), _gather(value, part.keys)
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, part.causal, attn_mask=part.mask, scale=scale
        )
    else:
        scores = _scores(part, q, k, scale)
        lse = scores.logsumexp(-1)
        out = (scores - lse[..., None]).exp().to(v.dtype) @ v
    return _by_token(out), _by_token(lse)


def _scores(part: Part, q: Tensor, k: Tensor, scale: float) -> Tensor:
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if part.causal:
        keep = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        return scores.masked_fill(~keep, float("-inf"))
    return scores if part.mask is None else scores + part.mask.float()


def _backward(
    part: Part, saved: tuple[Tensor, ...], into: tuple[Tensor, Tensor, Tensor], scale: float
) -> None:
    query, key, value, out, lse, grad = saved
    q, k, v = _gather(query, part.queries), _gather(key, part.keys), _gather(value, part.keys)
    o, g = _gather(out, part.queries), _gather(grad, part.queries)
    norm = _gather(lse[..., None], part.queries)[..., 0]
    if part.places is not None:
        g = _only(g, part.places[0])
    if query.device.type == "cpu":
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, q, k, v, o, norm.contiguous(), 0.0, part.causal, attn_mask=_as(part.mask, q.dtype), scale=scale
        )
    else:
        chance = (_scores(part, q, k, scale) - norm[..., None]).exp()
        dv = chance.to(g.dtype).transpose(-1, -2) @ g
        inner = (
            chance
            * ((g @ v.transpose(-1, -2)).float() - (g.float() * o.float()).sum(-1, keepdim=True))
            * scale
        )
        dq, dk = inner.to(q.dtype) @ k, inner.to(q.dtype).transpose(-1, -2) @ q
    for total, piece, where in zip(into, (dq, dk, dv), (part.queries, part.keys, part.keys), strict=True):
        if part.places is None:
            total[where] += _by_token(piece)
        else:
            slots, tokens = part.places
            total.index_add_(0, tokens, _by_token(piece).index_select(0, slots))


def _as(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if mask is None else mask.to(dtype)


def _only(grad: Tensor, slots: Tensor) -> Tensor:
    """Gradients of padded queries are nothing: ``[n, H, w, d]`` with all but the real slots zero."""
    kept = torch.zeros(grad.shape[0] * grad.shape[2], dtype=grad.dtype, device=grad.device)
    kept[slots] = 1
    return grad * kept.view(grad.shape[0], 1, grad.shape[2], 1)


@contextmanager
def forest_attention(lm: PreTrainedModel) -> Iterator[None]:
    """Run ``lm`` with forest attention inside the block; what it used before is restored after.

    Raises:
        ModelError: the model has layers that a forest can't be masked in.
    """
    from itemic.forest.support import check_supported

    check_supported(lm)
    before = lm.config._attn_implementation
    lm.config._attn_implementation = NAME
    try:
        yield
    finally:
        lm.config._attn_implementation = before


AttentionInterface.register(NAME, attend)

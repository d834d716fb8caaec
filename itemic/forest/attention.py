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

from itemic.forest.last_layer import short_last_layer
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
    if forest.backend == "dense":
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=forest.mask, scale=scale, enable_gqa=groups > 1
        )
        return out.transpose(1, 2), None
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    tree: Any = _TreeAttention.apply
    return tree(query.contiguous(), key.contiguous(), value.contiguous(), forest.parts, scale)[None], None


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
        out = query.new_empty(total, heads, value.shape[-1])
        lse = query.new_empty(total, heads, dtype=torch.promote_types(query.dtype, torch.float32))
        for part in parts:
            o, norm = (_real(part, found) for found in attend_part(part, query, key, value, scale))
            if not part.first:
                o, norm = merge(_pick(out, part), _pick(lse, part), o, norm)
            _put(out, part, o)
            _put(lse, part, norm)
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
        dq, dk, dv = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for part in ctx.parts:
            _backward(part, (query, key, value, out, lse, grad), (dq, dk, dv), ctx.scale)
        return dq.to(dtype), dk.to(dtype), dv.to(dtype), None, None


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Join two parts' outputs ``[n, H, d]`` and log-sum-exps ``[n, H]``; a part of -inf has seen nothing yet."""
    total = torch.logaddexp(lse, more_lse)
    old = torch.exp(lse - total)[..., None].to(out.dtype)
    new = torch.exp(more_lse - total)[..., None].to(out.dtype)
    return torch.addcmul(more * new, out, old), total


def _gather(tensor: Tensor, where: slice | Tensor, spare: Tensor | None = None) -> Tensor:
    """``[T, H, d]`` → ``[n, H, w, d]``, n = 1 for a slice; zeros in the spare places."""
    if isinstance(where, slice):
        return tensor[where].transpose(0, 1)[None]
    picked = tensor.index_select(0, where.flatten())
    if spare is not None:
        picked.index_fill_(0, spare, 0)
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
    o, g = _gather(out, part.queries), _gather(grad, part.queries, part.spare)
    norm = _gather(lse[..., None], part.queries)[..., 0]
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
    dq = _real(part, _by_token(dq))
    _put(into[0], part, dq if part.first else dq.add_(_pick(into[0], part)))
    for total, piece in zip(into[1:], (dk, dv), strict=True):
        if isinstance(part.keys, slice):
            total[part.keys] += _by_token(piece)
        else:
            total.index_add_(0, part.keys.flatten(), _by_token(piece))


def _real(part: Part, found: Tensor) -> Tensor:
    """What was found for each place ``[n · w, …]``, without the spare ones."""
    return found if part.spare is None or part.places is None else found.index_select(0, part.places[0])


def _pick(tensor: Tensor, part: Part) -> Tensor:
    """Of each query of a part."""
    return tensor[part.queries] if part.places is None else tensor.index_select(0, part.places[1])


def _put(tensor: Tensor, part: Part, values: Tensor) -> None:
    """Set it for each query of a part."""
    if part.places is None:
        tensor[part.queries] = values
    else:
        tensor.index_copy_(0, part.places[1], values)


def _as(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if mask is None else mask.to(dtype)


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
        with short_last_layer(lm):
            yield
    finally:
        lm.config._attn_implementation = before


AttentionInterface.register(NAME, attend)

"""Attention over a forest, behind one face: a function in transformers' attention interface.

Models stay unmodified: they look their attention up by name, pass on the keyword ``forest`` and build no mask of their
own, because no mask function of that name exists.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from itemic.forest.layout import ForestLayout, Part
from itemic.forest.scores import Scores

NAME = "itemic_forest"
CELLS = 1 << 22  # scores of a layer that are held at once where no kernel does without


class NotHandedOn(RuntimeError):
    """An attention function was called without what it attends by."""


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
    **asked: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: query ``[1, H, T, d]``, key and value ``[1, H_kv, T, d]``.

    Returns:
        ``[1, T, H, d_v]``, contiguous as some models want it, and None for the weights.
    """
    if forest is None:
        raise NotHandedOn("the model is set to forest attention but was called without `forest=`")
    scores = Scores.asked_for(query, scaling, asked)
    view, width = forest.view(scores.window), value.shape[-1]
    if torch.is_autocast_enabled(query.device.type):
        # norms leave queries and keys in float32, values are not
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    query, key, value = same_width(query, key, value)
    if forest.backend == "flex":
        return _flex_attention(query, key, value, view.mask, scores)[..., :width].contiguous(), None
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if forest.backend == "dense":
        return _dense_attention(query, key, value, view.mask[0, 0], scores)[
            None, ..., :width
        ].contiguous(), None
    tree: Any = _TreeAttention.apply
    parts = (x.contiguous() for x in (query, key, value))
    return tree(*parts, scores.sinks, view.parts, scores)[None, ..., :width].contiguous(), None


def same_width(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heads as wide as the wider of keys and values (multi-head latent attention has both); zeros change nothing."""
    wide, narrow = query.shape[-1], value.shape[-1]
    if wide > narrow:
        return query, key, torch.nn.functional.pad(value, (0, wide - narrow))
    if wide < narrow:
        query, key = (torch.nn.functional.pad(x, (0, narrow - wide)) for x in (query, key))
    return query, key, value


def _flex_attention(query: Tensor, key: Tensor, value: Tensor, mask: Any, scores: Scores) -> Tensor:
    """``[1, H, T, d]`` to ``[1, T, H, d]``."""
    from torch.nn.attention.flex_attention import AuxRequest

    options = {"score_mod": _cap(scores.cap), "block_mask": mask, "scale": scores.scale}
    options["enable_gqa"] = query.shape[1] > key.shape[1]
    if scores.sinks is None:
        out: Tensor = _flex()(query, key, value, **options)
        return out.transpose(1, 2)
    out, aux = _flex()(query, key, value, **options, return_aux=AuxRequest(lse=True))
    out, _ = scores.with_sinks(out[0].transpose(0, 1), aux.lse[0].transpose(0, 1))
    return out[None]


@cache
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


@cache
def _cap(cap: float | None) -> Any:
    if cap is None:
        return None

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


def _dense_attention(query: Tensor, key: Tensor, value: Tensor, sees: Tensor, scores: Scores) -> Tensor:
    """By definition, for the proof of a model and for tests: ``[T, H, d]`` each, ``sees`` bool ``[T, T]``."""
    products = _wide(torch.einsum("qhd,khd->hqk", query, key)) * scores.scale
    weights = scores.capped(products).masked_fill(~sees, float("-inf"))
    lse = weights.logsumexp(-1)
    out = torch.einsum("hqk,khd->qhd", (weights - lse[..., None]).exp().to(value.dtype), value)
    return scores.with_sinks(out, lse.transpose(0, 1))[0]


class _TreeAttention(torch.autograd.Function):
    """Attention as a sum of parts, merged through their log-sum-exp.

    A query's softmax over the union of its parts' keys is the mean of the parts' outputs weighted by
    exp(lse_part - lse). The backward pass of each part needs only the *merged* output and log-sum-exp, because the
    probabilities are exp(score - lse) whatever part a key is in. A sink is a key whose value is zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        parts: tuple[Part, ...],
        scores: Scores,
    ) -> Tensor:
        total, heads, _ = query.shape
        out = query.new_empty(total, heads, value.shape[-1])
        lse = query.new_empty(total, heads, dtype=torch.promote_types(query.dtype, torch.float32))
        for part in parts:
            o, norm = (_real(part, found) for found in attend_part(part, query, key, value, scores))
            if not part.first:
                o, norm = merge(_pick(out, part), _pick(lse, part), o, norm)
            _put(out, part, o)
            _put(lse, part, norm)
        out, lse = scores.with_sinks(out, lse)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.scores = parts, replace(scores, sinks=None if sinks is None else sinks.detach())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        grad, dtype, scores = grads[0].contiguous(), query.dtype, ctx.scores
        if query.device.type == "cpu" and dtype.itemsize < 4:
            # the CPU kernel's backward pass is five times slower in bfloat16 than in float32
            query, key, value, out, grad = (x.float() for x in (query, key, value, out, grad))
        dq, dk, dv = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for part in ctx.parts:
            _backward(part, (query, key, value, out, lse, grad), (dq, dk, dv), scores)
        sinks = None
        if ctx.needs_input_grad[3]:
            share = torch.exp(scores.sinks.to(lse.dtype) - lse)  # what the sink takes of each query, [T, H]
            sinks = -(share * (grad * out).sum(-1)).sum(0).to(scores.sinks.dtype)
        return dq.to(dtype), dk.to(dtype), dv.to(dtype), sinks, None, None


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Join two parts' outputs ``[n, H, d]`` and log-sum-exps ``[n, H]``; a part of -inf has seen nothing yet."""
    total = torch.logaddexp(lse, more_lse)
    base = total.clamp_min(torch.finfo(total.dtype).min)  # finite where neither has seen anything
    old = torch.exp(lse - base)[..., None].to(out.dtype)
    new = torch.exp(more_lse - base)[..., None].to(out.dtype)
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


def attend_part(
    part: Part, query: Tensor, key: Tensor, value: Tensor, scores: Scores
) -> tuple[Tensor, Tensor]:
    """Output ``[n, H, d]`` and log-sum-exp ``[n, H]`` of a part's queries over its keys; tensors are ``[T, H, d]``.

    Sinks are left out: they count once for all parts. Who sees nothing gets zeros and -inf.
    """
    q, k, v = _gather(query, part.queries), _gather(key, part.keys), _gather(value, part.keys)
    if fused(q, scores):
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, part.causal, attn_mask=part.mask, scale=scores.scale
        )
    else:
        found = [_rows(part, rows, q, k, v, scores) for rows in _strips(q, k)]
        out, lse = (torch.cat(x, 2) for x in zip(*found, strict=True))
    out, lse = _by_token(out), _by_token(lse)
    if part.blind is not None:
        lse.index_fill_(0, part.blind, float("-inf"))  # the kernel says 0
    return out, lse


def fused(query: Tensor, scores: Scores) -> bool:
    """Whether the kernel that never writes all scores down can do it."""
    return query.device.type == "cpu" and scores.plain


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _strips(q: Tensor, k: Tensor) -> list[slice]:
    """Queries ``[n, H, w, d]`` a few at a time, so that their scores stay few."""
    n, heads, width, _ = q.shape
    step = max(16, CELLS // max(n * heads * k.shape[2], 1))
    return [slice(start, min(start + step, width)) for start in range(0, width, step)] or [slice(0, 0)]


def _rows(part: Part, rows: slice, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> tuple[Tensor, Tensor]:
    seen = _seen(part, rows, scores.capped_(_wide(q[:, :, rows] @ k.transpose(-1, -2)) * scores.scale))
    lse = seen.logsumexp(-1)
    shift = lse if part.blind is None else lse.clamp_min(torch.finfo(lse.dtype).min)
    return (seen - shift[..., None]).exp().to(v.dtype) @ v, lse


def _seen(part: Part, rows: slice, found: Tensor) -> Tensor:
    """Scores ``[n, H, r, w']`` of some rows of queries, -inf where a key isn't seen."""
    if part.causal:
        keep = torch.ones(found.shape[-2:], dtype=torch.bool, device=found.device).tril(rows.start)
        return found.masked_fill(~keep, float("-inf"))
    return found if part.mask is None else found + part.mask[:, :, rows].to(found.dtype)


def _backward(
    part: Part, saved: tuple[Tensor, ...], into: tuple[Tensor, Tensor, Tensor], scores: Scores
) -> None:
    query, key, value, out, lse, grad = saved
    q, k, v = _gather(query, part.queries), _gather(key, part.keys), _gather(value, part.keys)
    o, g = _gather(out, part.queries), _gather(grad, part.queries, part.spare)
    norm = _gather(lse[..., None], part.queries)[..., 0]
    if fused(q, scores):
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g,
            q,
            k,
            v,
            o,
            norm.contiguous(),
            0.0,
            part.causal,
            attn_mask=_as(part.mask, q.dtype),
            scale=scores.scale,
        )
    else:
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        delta = (_wide(g) * _wide(o)).sum(-1, keepdim=True)
        for rows in _strips(q, k):
            own, slope = q[:, :, rows], g[:, :, rows]
            found = scores.capped_(_wide(own @ k.transpose(-1, -2)) * scores.scale)
            bend = scores.slope(found)
            chance = (_seen(part, rows, found) - norm[:, :, rows, None]).exp()
            dv += chance.to(g.dtype).transpose(-1, -2) @ slope
            inner = chance * (_wide(slope @ v.transpose(-1, -2)) - delta[:, :, rows]) * bend * scores.scale
            inner = inner.to(q.dtype)
            dq[:, :, rows], dk = inner @ k, dk + inner.transpose(-1, -2) @ own
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


AttentionInterface.register(NAME, attend)

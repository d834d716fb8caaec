"""Attention of a search: what prompts and beams see, and where their keys are kept.

A search has three kinds of keys: the *template* (what all prompts begin with), each request's own *prompt*, and the
*leaves*, one token a beam and step. All are computed once; none is copied for a beam, none is reordered. A leaf sees
the template, its request's prompt, its ancestors and itself.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from itemic.decode.layout import Group, group_leaves
from itemic.forest.attention import attend_part, merge
from itemic.forest.layout import Part


class KeyValue(NamedTuple):
    """Keys and values of some tokens in one layer."""

    key: Tensor
    value: Tensor


class Pass(Protocol):
    """One forward pass over tokens that stand one after the other without padding."""

    @property
    def wanted(self) -> Tensor | None:
        """int64, the tokens whose last hidden states are asked for; None for all."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Keep the new keys; query ``[n, H, d]``, key and value ``[T, H_kv, d]`` to outputs ``[n, H, d]``.

        The queries are those of all tokens or those of the wanted ones.
        """


class PromptPass:
    """Prompts one after the other: a token sees the template, then its own prompt up to itself.

    Args:
        groups: prompts of like length.
        template: keys and values ``[H_kv, P, d]`` of each layer that all prompts continue; empty for none.
        keys_only: no hidden states are wanted, not even those of each prompt's last token.

    Attributes:
        keys: for each layer and group, keys and values ``[H_kv, R, W, d]``.
    """

    def __init__(self, groups: list[Group], template: list[KeyValue], keys_only: bool = False) -> None:
        self.groups, self.template = groups, template
        self.keys: list[list[KeyValue]] = []
        ends = torch.cat([group.ends() for group in groups])
        self.wanted: Tensor | None = ends[:0] if keys_only else ends
        self._tokens = groups[-1].stop

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        padded = [tuple(group.pad(x) for x in (key, value)) for group in self.groups]
        own = [KeyValue(*(x.permute(2, 0, 1, 3).contiguous() for x in pair)) for pair in padded]
        self.keys.append(own)
        if len(query) < self._tokens:
            return self._attend_ends(layer, query, scale)
        outs, norms = [], []
        for group, (k, v) in zip(self.groups, padded, strict=True):
            out, norm = _causal(group.pad(query), k, v, scale)
            outs.append(group.unpad(out))
            norms.append(group.unpad(norm))
        out, norm = _joined(outs), _joined(norms)
        if self.template:
            out, _ = merge(out, norm, *_over_all(query, self.template[layer], scale))
        return out

    def _attend_ends(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """The last token of each prompt, which sees all of it."""
        if not len(query):
            return query
        lengths = np.ones(sum(group.requests for group in self.groups), np.int64)
        near = query.new_zeros(len(query), 0, self.keys[layer][0].key.shape[0], 1)
        outs = [
            _read(
                group,
                self,
                place,
                layer,
                query,
                near.expand(-1, -1, -1, query.shape[1] // near.shape[2]),
                scale,
            )
            for place, group in enumerate(group_leaves(lengths, self.groups, query.device))
        ]
        return _joined([out for out, _ in outs]).reshape(query.shape)

    def as_template(self) -> list[KeyValue]:
        """The keys ``[H_kv, P, d]`` of each layer, where there was one prompt."""
        return [KeyValue(*(x[:, 0] for x in groups[0])) for groups in self.keys]


class LeafPass:
    """One new token below each beam: it sees the template, its prompt and its ancestors.

    Args:
        prompts: the pass that holds the prompts' keys.
        leaves: for each layer keys and values ``[n, H_kv, d]`` of all leaves so far; this pass adds its own.
        groups: the new tokens, grouped as the prompts are.
        ancestors: int64 ``[T, A]``, which leaves each token sees, itself the last of them.
    """

    def __init__(
        self, prompts: PromptPass, leaves: list[KeyValue], groups: list[Group], ancestors: Tensor
    ) -> None:
        self.prompts, self.leaves, self.groups, self.ancestors = prompts, leaves, groups, ancestors
        self.wanted: Tensor | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        above = self._above(layer, key, value)
        tokens, heads, width = query.shape
        split = query.view(tokens, 1, key.shape[1], -1, width)
        near = (split * above.key).sum(-1).mul_(scale)  # [T, A, H_kv, g]
        outs = [
            _read(group, self.prompts, place, layer, query, near, scale)
            for place, group in enumerate(self.groups)
            if group.width
        ]
        out, weights = (_joined(list(x)) for x in zip(*outs, strict=True))
        for ancestor in range(near.shape[1]):
            out.addcmul_(weights[:, ancestor, :, :, None].to(out.dtype), above.value[:, ancestor])
        return out.view(tokens, heads, -1)

    def _above(self, layer: int, key: Tensor, value: Tensor) -> KeyValue:
        """Keys and values ``[T, A, H_kv, 1, d]`` of each token's ancestors, itself included."""
        if layer == len(self.leaves):
            self.leaves.append(KeyValue(key.contiguous(), value.contiguous()))
        else:
            old = self.leaves[layer]
            self.leaves[layer] = KeyValue(torch.cat([old.key, key]), torch.cat([old.value, value]))
        at, (tokens, count) = self.ancestors.flatten(), self.ancestors.shape
        found = (x.index_select(0, at).view(tokens, count, x.shape[1], 1, -1) for x in self.leaves[layer])
        return KeyValue(*found)


def _read(
    group: Group,
    prompts: PromptPass,
    place: int,
    layer: int,
    query: Tensor,
    near: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """What a group of leaves reads from template and prompts.

    Args:
        group: the leaves' places.
        prompts: holds template and prompts.
        place: which of the prompts' groups these leaves are of.
        layer: of the model.
        query: ``[T, H, d]`` of all leaves.
        near: ``[T, A, H_kv, g]``, the scores of the leaves' ancestors, which take part in the softmax.
        scale: of the other scores.

    Returns:
        outputs ``[n, H_kv, g, d]``, and how much each ancestor counts beside them, ``[n, A, H_kv, g]``.
    """
    padded, own = prompts.groups[place], prompts.keys[layer][place]
    kv_heads, requests, _, width = own.key.shape
    # the query heads that share a key head are more rows of one matrix for each key head and request
    q = group.pad(query)
    q = q.view(*q.shape[:2], kv_heads, -1, width).permute(2, 0, 1, 3, 4)  # [H_kv, R, B, g, d]
    beams, ratio = q.shape[2:4]
    q = q.reshape(kv_heads * requests, beams * ratio, width)
    bias = q.new_zeros(1) if padded.bias is None else padded.bias.to(q.dtype).repeat(kv_heads, 1, 1)
    scores = [torch.baddbmm(bias, q, own.key.flatten(0, 1).transpose(1, 2), alpha=scale)]
    template = prompts.template[layer] if prompts.template else None
    if template is not None:
        shared = torch.bmm(q.view(kv_heads, -1, width), template.key.transpose(1, 2)).mul_(scale)
        scores.append(shared.view(*q.shape[:2], -1))
    by_head = group.pad(near).permute(3, 0, 1, 4, 2)  # [H_kv, R, B, g, A]
    scores.append(by_head.reshape(*q.shape[:2], -1))
    weights = torch.cat(scores, -1).softmax(-1, dtype=torch.float32).to(q.dtype)
    length, last = padded.width, weights.shape[-1] - near.shape[1]
    out = torch.bmm(weights[..., :length], own.value.flatten(0, 1))
    if (
        template is not None
    ):  # one product for each key head: the template's values are not repeated by request
        part = weights[..., length:last].reshape(kv_heads, -1, last - length)
        out.view(kv_heads, -1, out.shape[-1]).baddbmm_(part, template.value)
    shape = (kv_heads, requests, beams, ratio)
    read = group.unpad(out.view(*shape, -1).permute(1, 2, 0, 3, 4).contiguous())
    return read, group.unpad(weights[..., last:].reshape(*shape, -1).permute(1, 2, 4, 0, 3))


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """``[R, W, H, d]`` over ``[R, W, H_kv, d]``, each up to its own place: outputs, log-sum-exps ``[R, W, H]``.

    Padding stands behind the real tokens, which don't see it.
    """
    width, heads = query.shape[1:3]
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if query.device.type == "cpu":  # this kernel shares key heads by itself
        out, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, True, attn_mask=None, scale=scale
        )
    else:
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
        scores = (q @ k.transpose(-1, -2)).float() * scale
        seen = torch.ones(width, width, dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
        norm = scores.logsumexp(-1)
        out = (scores - norm[..., None]).exp().to(v.dtype) @ v
    return out.transpose(1, 2), norm.transpose(1, 2).float()


def _over_all(query: Tensor, shared: KeyValue, scale: float) -> tuple[Tensor, Tensor]:
    """Every query ``[T, H, d]`` over every key ``[H_kv, P, d]``: outputs ``[T, H, d]`` and log-sum-exps ``[T, H]``.

    Query heads that share a key head are laid side by side as more queries, so keys are read as they are.
    """
    count, heads, width = query.shape
    kv_heads = shared.key.shape[0]
    rows = query.view(count, kv_heads, -1, width).transpose(1, 2).flatten(0, 1)
    key, value = (x.transpose(0, 1) for x in shared)
    out, norm = attend_part(Part(slice(None), slice(None)), rows, key, value, scale)
    out = out.view(count, heads // kv_heads, kv_heads, -1).transpose(1, 2).flatten(1, 2)
    norm = norm.view(count, heads // kv_heads, kv_heads).transpose(1, 2).flatten(1, 2)
    return out, norm.float()

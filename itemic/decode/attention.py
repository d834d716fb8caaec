"""Attention of a search: what prompts and beams see, and where their keys are kept.

A search has three kinds of keys: the *template* (what all prompts begin with), each request's own *prompt*, and the
*leaves*, one token a beam and step. All are computed once; none is copied for a beam, none is reordered. A leaf sees
the template, its request's prompt, its ancestors and itself.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.decode.layout import Group, Seats, group_leaves
from itemic.forest.attention import attend_part, fused, merge
from itemic.forest.layout import STRIP, Part
from itemic.forest.scores import Scores


class KeyValue(NamedTuple):
    """Keys and values of some tokens in one layer."""

    key: Tensor
    value: Tensor


class Pass(Protocol):
    """One forward pass over tokens that stand one after the other without padding."""

    @property
    def wanted(self) -> Tensor | None:
        """int64, the tokens whose last hidden states are asked for; None for all."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Keep the new keys; query ``[n, H, d]``, key and value ``[T, H_kv, d]`` to outputs ``[n, H, d]``.

        The queries are those of all tokens or those of the wanted ones.
        """


class Sight(NamedTuple):
    """What leaves see through a sliding window of the keys before them.

    Attributes:
        template: the first of the template's keys that any of them sees.
        template_bias: float32 ``[R, 1, P - template]``, -inf where a request's leaves don't see it.
        own: the first place of the prompts' keys that any of them sees.
        own_bias: float32 ``[R, 1, W - own]``, likewise.
    """

    template: int
    template_bias: Tensor
    own: int
    own_bias: Tensor


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
        self.before = template[0].key.shape[1] if template else 0  # tokens of the template
        self._longest = max(group.width for group in groups)
        self._tokens = groups[-1].stop
        self._sights: dict[tuple[int, int, int], Sight] = {}

    def window(self, scores: Scores, behind: int = 0) -> int | None:
        """A layer's sliding window where it hides anything from tokens ``behind`` places after the prompts."""
        window = scores.window
        return None if window is None or window >= self.before + self._longest + behind else window

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        padded = [KeyValue(*(group.pad(x) for x in (key, value))) for group in self.groups]
        own = [KeyValue(*(x.permute(2, 0, 1, 3).contiguous() for x in pair)) for pair in padded]
        self.keys.append(own)
        if len(query) < self._tokens:
            return self._attend_ends(layer, query, scores)
        window = self.window(scores)
        template = self.template[layer] if self.template else None
        outs, norms = [], []
        for group, pair in zip(self.groups, padded, strict=True):
            own_query = group.pad(query)
            if window is not None:
                out, norm = _over_latest(own_query, pair, template, window, scores)
            elif fused(query, scores):
                out, norm = _attend(own_query, pair, None, scores)
            else:
                out, norm = _over_latest(own_query, pair, None, group.width, scores)
            outs.append(group.unpad(out))
            norms.append(group.unpad(norm))
        out, norm = _joined(outs), _joined(norms)
        if template is not None and window is None:
            out, norm = merge(out, norm, *_over_all(query, template, scores))
        return scores.with_sinks(out, norm)[0]

    def _attend_ends(self, layer: int, query: Tensor, scores: Scores) -> Tensor:
        """The last token of each prompt, which sees all of it."""
        if not len(query):
            return query
        lengths = np.ones(sum(group.requests for group in self.groups), np.int64)
        near = query.new_zeros(len(query), 0, self.keys[layer][0].key.shape[0], 1)
        near = near.expand(-1, -1, -1, query.shape[1] // near.shape[2])
        seats, _ = group_leaves(lengths, self.groups, query.device)
        outs = [_read(each, self, layer, query, near, scores) for each in seats]
        return _joined([out for out, _ in outs]).reshape(query.shape)

    def sight(self, place: int, behind: int, window: int) -> Sight:
        """Of tokens ``behind`` places after the last of their prompts, which are a group's."""
        if (place, behind, window) not in self._sights:
            group = self.groups[place]
            first = group.lengths + behind - window  # the first place that each request's leaves see
            own, template = (max(0, int(first.min()) + before) for before in (0, self.before))
            template = min(template, self.before)
            hidden = np.arange(own, group.width) < first[:, None]
            own_bias = _bias(hidden | (np.arange(own, group.width) >= group.lengths[:, None]), group.device)
            far = np.arange(template, self.before) < first[:, None] + self.before
            self._sights[place, behind, window] = Sight(template, _bias(far, group.device), own, own_bias)
        return self._sights[place, behind, window]

    def as_template(self) -> list[KeyValue]:
        """The keys ``[H_kv, P, d]`` of each layer, where there was one prompt."""
        return [KeyValue(*(x[:, 0] for x in groups[0])) for groups in self.keys]


class LeafPass:
    """One new token below each beam: it sees the template, its prompt and its ancestors.

    Args:
        prompts: the pass that holds the prompts' keys.
        leaves: for each layer keys and values ``[n, H_kv, d]`` of all leaves so far, in pieces; this pass adds its own.
        seats: where the new tokens are.
        ancestors: int64 ``[T, A]``, which leaves each token sees, itself the last of them.
    """

    def __init__(
        self, prompts: PromptPass, leaves: list[list[KeyValue]], seats: list[Seats], ancestors: Tensor
    ) -> None:
        self.prompts, self.leaves, self.seats, self.ancestors = prompts, leaves, seats, ancestors
        self.wanted: Tensor | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        above = self._above(layer, key, value)
        if scores.window is not None:
            above = KeyValue(*(x[:, -scores.window :] for x in above))
        tokens, heads, width = query.shape
        split = query.view(tokens, 1, key.shape[1], -1, width)
        near = scores.capped_((split * above.key).sum(-1).mul_(scores.scale))  # [T, A, H_kv, g]
        behind = self.ancestors.shape[1]
        outs = [_read(each, self.prompts, layer, query, near, scores, behind) for each in self.seats]
        out, weights = (_joined(list(x)) for x in zip(*outs, strict=True))
        for ancestor in range(near.shape[1]):
            out.addcmul_(weights[:, ancestor, :, :, None].to(out.dtype), above.value[:, ancestor])
        return out.view(tokens, heads, -1)

    def _above(self, layer: int, key: Tensor, value: Tensor) -> KeyValue:
        """Keys and values ``[T, A, H_kv, 1, d]`` of each token's ancestors, itself included."""
        if layer == len(self.leaves):
            self.leaves.append([])
        # pieces are put together where something below reads them; another list, as the old one may be shared
        pieces = self.leaves[layer] = [*self.leaves[layer], KeyValue(key.contiguous(), value.contiguous())]
        at, (tokens, count) = self.ancestors.flatten(), self.ancestors.shape
        if count == 1:
            return KeyValue(*(x[:, None, :, None] for x in pieces[-1]))
        if len(pieces) > 1:
            pieces[:] = [KeyValue(*(torch.cat(x) for x in zip(*pieces, strict=True)))]
        found = (x.index_select(0, at).view(tokens, count, x.shape[1], 1, -1) for x in pieces[0])
        return KeyValue(*found)


def _read(
    seats: Seats,
    prompts: PromptPass,
    layer: int,
    query: Tensor,
    near: Tensor,
    scores: Scores,
    behind: int = 0,
) -> tuple[Tensor, Tensor]:
    """What leaves read from template and prompts.

    Args:
        seats: of the leaves.
        prompts: holds template and prompts.
        layer: of the model.
        query: ``[T, H, d]`` of all leaves.
        near: ``[T, A, H_kv, g]``, the scores of the leaves' ancestors, which take part in the softmax.
        scores: of the layer.
        behind: how many places after the last of their prompt the leaves stand.

    Returns:
        outputs ``[n, H_kv, g, d]``, and how much each ancestor counts beside them, ``[n, A, H_kv, g]``.
    """
    place, rows, group = seats.place, seats.rows, seats.group
    own = prompts.keys[layer][place]
    template = prompts.template[layer] if prompts.template else None
    own_bias, far_bias = prompts.groups[place].bias, None
    window = prompts.window(scores, behind)
    if window is not None:
        sight = prompts.sight(place, behind, window)
        own, own_bias = KeyValue(*(x[:, :, sight.own :] for x in own)), sight.own_bias
        if template is not None:
            template, far_bias = KeyValue(*(x[:, sight.template :] for x in template)), sight.template_bias
            template = template if template.key.shape[1] else None  # no leaf sees any of it
    if rows is not None:
        own = KeyValue(*(x.index_select(1, rows) for x in own))
        own_bias, far_bias = (None if x is None else x.index_select(0, rows) for x in (own_bias, far_bias))
    kv_heads, requests, length, width = own.key.shape
    # the query heads that share a key head are more rows of one matrix for each key head and request
    q = group.pad(query)
    q = q.view(*q.shape[:2], kv_heads, -1, width).permute(2, 0, 1, 3, 4)  # [H_kv, R, B, g, d]
    beams, ratio = q.shape[2:4]
    q = q.reshape(kv_heads * requests, beams * ratio, width)
    columns = [_products(q, own.key.flatten(0, 1), own_bias, scores)]
    if template is not None:
        shared = scores.capped_(
            torch.bmm(q.view(kv_heads, -1, width), template.key.transpose(1, 2)).mul_(scores.scale)
        ).view(*q.shape[:2], -1)
        columns.append(shared if far_bias is None else shared + far_bias.to(q.dtype).repeat(kv_heads, 1, 1))
    by_head = group.pad(near).permute(3, 0, 1, 4, 2)  # [H_kv, R, B, g, A]
    columns.append(by_head.reshape(*q.shape[:2], -1))
    if scores.sinks is not None:
        sinks = scores.sinks.to(q.dtype).view(kv_heads, 1, 1, ratio).expand(kv_heads, requests, beams, ratio)
        columns.append(sinks.reshape(*q.shape[:2], 1))
    weights = torch.cat(columns, -1).softmax(-1, dtype=torch.float32).to(q.dtype)
    if scores.sinks is not None:
        weights = weights[..., :-1]
    last = weights.shape[-1] - near.shape[1]
    out = torch.bmm(weights[..., :length], own.value.flatten(0, 1))
    if (
        template is not None
    ):  # one product for each key head: the template's values are not repeated by request
        part = weights[..., length:last].reshape(kv_heads, -1, last - length)
        out.view(kv_heads, -1, out.shape[-1]).baddbmm_(part, template.value)
    shape = (kv_heads, requests, beams, ratio)
    read = group.unpad(out.view(*shape, -1).permute(1, 2, 0, 3, 4).contiguous())
    return read, group.unpad(weights[..., last:].reshape(*shape, -1).permute(1, 2, 4, 0, 3))


def _products(query: Tensor, key: Tensor, bias: Tensor | None, scores: Scores) -> Tensor:
    """Scores ``[n, b, w]`` of queries ``[n, b, d]`` and keys ``[n, w, d]``, biases ``[R, 1, w]`` added by head."""
    if bias is not None:
        bias = bias.to(query.dtype).repeat(len(query) // len(bias), 1, 1)
    if scores.plain:
        start = query.new_zeros(1) if bias is None else bias
        return torch.baddbmm(start, query, key.transpose(1, 2), alpha=scores.scale)
    found = scores.capped_(torch.bmm(query, key.transpose(1, 2)).mul_(scores.scale))
    return found if bias is None else found.add_(bias)


def _bias(hidden: npt.NDArray[np.bool_], device: torch.device) -> Tensor:
    """float32 ``[R, 1, w]`` of ``[R, w]``: -inf where it is hidden."""
    return torch.from_numpy(np.where(hidden, -np.inf, 0).astype(np.float32)[:, None]).to(device)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _over_latest(
    query: Tensor, own: KeyValue, template: KeyValue | None, window: int, scores: Scores
) -> tuple[Tensor, Tensor]:
    """``[R, W, H, d]``, each over the latest ``window`` keys up to its own place; see :func:`_attend`.

    Args:
        query: of the prompts.
        own: the prompts' keys and values ``[R, W, H_kv, d]``.
        template: keys and values ``[H_kv, P, d]`` that stand before all of them.
        window: how many keys each query sees, its own included.
        scores: of the layer.
    """
    before = 0
    if template is not None:
        before = min(window - 1, template.key.shape[1])
        front = (x[:, x.shape[1] - before :].transpose(0, 1).expand(len(query), -1, -1, -1) for x in template)
        own = KeyValue(*(torch.cat(pair, 1) for pair in zip(front, own, strict=True)))
    found = []
    for start in range(0, query.shape[1], STRIP):
        rows = torch.arange(start, min(start + STRIP, query.shape[1]), device=query.device) + before
        first, stop = max(0, start + before - window + 1), int(rows[-1]) + 1
        back = rows[:, None] - torch.arange(first, stop, device=query.device)
        part = KeyValue(*(x[:, first:stop] for x in own))
        sees = (back >= 0) & (back < window)
        found.append(_attend(query[:, start : start + STRIP], part, sees, scores))
    out, norm = (torch.cat(x, 1) for x in zip(*found, strict=True))
    return out, norm


def _attend(query: Tensor, own: KeyValue, sees: Tensor | None, scores: Scores) -> tuple[Tensor, Tensor]:
    """``[R, q, H, d]`` over ``[R, k, H_kv, d]``: outputs, log-sum-exps ``[R, q, H]``.

    Args:
        query: of as many prompts as there are keys of.
        own: keys and values. Padding stands behind the real tokens, which don't see it.
        sees: bool ``[q, k]``, each of which sees something; None where a query sees the keys up to its own place.
        scores: of the layer.
    """
    heads = query.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (query, *own))
    if fused(query, scores):  # this kernel shares key heads by itself
        mask = (
            None if sees is None else torch.zeros(sees.shape, dtype=q.dtype).masked_fill_(~sees, -torch.inf)
        )
        out, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, sees is None, attn_mask=mask, scale=scores.scale
        )
    else:
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
        if sees is None:
            sees = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        found = scores.capped_((q @ k.transpose(-1, -2)).float().mul_(scores.scale))
        found = found.masked_fill_(~sees, -torch.inf)
        norm = found.logsumexp(-1)
        out = (found - norm[..., None]).exp_().to(v.dtype) @ v
    return out.transpose(1, 2), norm.transpose(1, 2).float()


def _over_all(query: Tensor, shared: KeyValue, scores: Scores) -> tuple[Tensor, Tensor]:
    """Every query ``[T, H, d]`` over every key ``[H_kv, P, d]``: outputs ``[T, H, d]`` and log-sum-exps ``[T, H]``.

    Query heads that share a key head are laid side by side as more queries, so keys are read as they are.
    """
    count, heads, width = query.shape
    kv_heads = shared.key.shape[0]
    rows = query.view(count, kv_heads, -1, width).transpose(1, 2).flatten(0, 1)
    key, value = (x.transpose(0, 1) for x in shared)
    out, norm = attend_part(Part(slice(None), slice(None)), rows, key, value, scores)
    out = out.view(count, heads // kv_heads, kv_heads, -1).transpose(1, 2).flatten(1, 2)
    norm = norm.view(count, heads // kv_heads, kv_heads).transpose(1, 2).flatten(1, 2)
    return out, norm.float()

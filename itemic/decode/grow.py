"""Attention of samples that are being written: their prompts' keys, shared, and a store of each one's own.

A *place* is a sample that is being written. It sees its request's prompt, whose keys are kept once for all samples of
the request, and what it has written itself, whose keys lie one after the other in the place's row of the store. Its own
keys and the prompt, which counts as one more key by its log-sum-exp, share a softmax, so no key is copied for a step. A
finished sample's row is given to another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.decode.attention import KeyValue, PromptPass
from itemic.decode.layout import Group
from itemic.forest.attention import fused, merge
from itemic.forest.scores import Scores

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

_ALONE = 5  # tokens of a padded run that reading a run by itself costs beside its own
_ROOM = 8  # tokens of a place that the store grows by at least, and by an eighth


@dataclass(frozen=True)
class Block:
    """Prompts of like length that samples are being written for.

    Attributes:
        requests: int64 ``[R]``, which requests they are.
        lengths: int64 ``[R]``, tokens of each.
        keys: for each layer keys and values ``[R, H_kv, W, d]``.
        hidden: ``[R, d]``, what the first new token is predicted from.
    """

    requests: Int64
    lengths: Int64
    keys: list[KeyValue]
    hidden: Tensor

    @classmethod
    def of(cls, requests: Int64, step: PromptPass, hidden: Tensor) -> list[Block]:
        """From a pass over the prompts of ``requests`` and the last hidden state of each: one for each group."""
        blocks, begin = [], 0
        for place, group in enumerate(step.groups):
            keys = []
            for number, layer in enumerate(step.keys):
                own = [x.transpose(0, 1) for x in layer[place]]
                if step.template:  # each prompt's keys stand behind those of what all begin with
                    front = (x.expand(group.requests, -1, -1, -1) for x in step.template[number])
                    own = [torch.cat(pair, 2) for pair in zip(front, own, strict=True)]
                keys.append(KeyValue(*(x.contiguous() for x in own)))
            some = slice(begin, begin + group.requests)
            blocks.append(cls(requests[some], group.lengths + step.before, keys, hidden[some]))
            begin = some.stop
        return blocks

    @property
    def tokens(self) -> int:
        """Whose keys are held, padding included."""
        return len(self.lengths) * int(self.lengths.max(initial=0))

    def only(self, kept: Bool) -> Block:
        """Of the requests that are ``kept`` (bool ``[R]``); the others' keys are let go."""
        rows = torch.from_numpy(np.flatnonzero(kept)).to(self.hidden.device)
        width = int(self.lengths[kept].max(initial=0))
        keys = [KeyValue(*(x[:, :, :width].index_select(0, rows) for x in layer)) for layer in self.keys]
        return Block(self.requests[kept], self.lengths[kept], keys, self.hidden.index_select(0, rows))


class Store:
    """Keys and values of what each place has written, ``[P, H_kv, L, d]`` in each layer.

    Args:
        limit: the most tokens that a place will hold.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.places = 0
        self.layers: list[KeyValue] = []

    def reserve(self, places: int) -> None:
        """Make room for so many places."""
        self.places = max(self.places, places)

    def write(
        self, layer: int, key: Tensor, value: Tensor, at: Int64, whose: Int64 | None = None
    ) -> KeyValue:
        """Keep ``[n, H_kv, d]`` of the first ``n`` places, at token ``at`` of each; or of the places ``whose``, rising,
        with all of the first ones among them.

        Returns:
            ``[n, H_kv, L, d]``, the store's whole width: reading on costs less than leaving gaps between places.
        """
        count = len(key) if whose is None else int(whose[-1]) + 1
        longest = int(at.max()) + 1
        if layer == len(self.layers):
            empty = key.new_empty(0, key.shape[1], 0, key.shape[2])
            self.layers.append(KeyValue(empty, empty))
        kept = KeyValue(*(self._wide_enough(x, longest) for x in self.layers[layer]))
        self.layers[layer] = kept
        own = np.arange(count) if whose is None else whose
        places, token = (torch.from_numpy(x).to(key.device) for x in (own, at))
        for store, new in zip(kept, (key, value), strict=True):
            if whose is None and longest - 1 == int(at.min()):
                store[:count, :, longest - 1] = new
            else:
                store[places, :, token] = new
        return KeyValue(*(x[:count] for x in kept))

    def _wide_enough(self, store: Tensor, longest: int) -> Tensor:
        places, heads, width, size = store.shape
        if places >= self.places and width >= longest:
            return store
        # zeros: what lies behind a place's tokens is multiplied by a weight of zero, and must be finite
        wide = width if width >= longest else min(longest - 1 + max(_ROOM, width // 8), self.limit)
        grown = store.new_zeros(max(places, self.places), heads, max(wide, longest), size)
        grown[:places, :, :width] = store
        return grown

    def move(self, source: Int64, target: Int64) -> None:
        """Give the keys of places ``source`` to the places ``target``."""
        for layer in range(len(self.layers) if len(source) else 0):
            kept = self.layers[layer] = KeyValue(*(self._wide_enough(x, 0) for x in self.layers[layer]))
            old, new = (torch.from_numpy(x).to(kept.key.device) for x in (source, target))
            for store in kept:
                store[new] = store[old]


class Seating:
    """Which places are of which prompts; the same as long as the same samples are being written.

    Args:
        blocks: of the prompts.
        block: int64 ``[n]``, the block of each place.
        row: int64 ``[n]``, the prompt within the block.
        device: where the model is.
    """

    def __init__(self, blocks: list[Block], block: Int64, row: Int64, device: torch.device) -> None:
        self.blocks, self.device = blocks, device
        first = np.cumsum([0] + [len(x.requests) for x in blocks])
        prompt = first[block] + row
        self.sorted = np.argsort(prompt, kind="stable")
        self.order: Tensor | None = None
        if (self.sorted != np.arange(len(block))).any():
            self.order = torch.from_numpy(self.sorted).to(device)
            self.back = torch.from_numpy(np.argsort(self.sorted)).to(device)
        counts = np.bincount(prompt, minlength=first[-1])
        self.groups: list[tuple[Block, Group]] = []
        start = 0
        for own, begin, stop in zip(blocks, first[:-1], first[1:], strict=True):
            group = Group.of(start, counts[begin:stop], device)
            start = group.stop
            if group.width:
                self.groups.append((own, group))


class GrowPass:
    """One new token for each place: it sees its prompt, what its place has written, and itself.

    Args:
        seating: of the places.
        store: holds what they have written; this pass adds its own.
        at: int64 ``[n]``, how many tokens each place has written before this one.
    """

    def __init__(self, seating: Seating, store: Store, at: Int64) -> None:
        self.seating, self.store, self.at = seating, store, at
        self.wanted: Tensor | None = None
        self._own: dict[int | None, tuple[int, Tensor]] = {}
        self._prompts: dict[tuple[int, int | None], tuple[int, Tensor | None, Tensor | None]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Keep the new keys; queries ``[n, H, d]``, key and value ``[n, H_kv, d]`` to outputs ``[n, H, d]``."""
        return self.read(layer, self.store.write(layer, key, value, self.at), query, scores)

    def read(self, layer: int, written: KeyValue, query: Tensor, scores: Scores) -> Tensor:
        """Queries ``[n, H, d]``, one a place, to outputs ``[n, H, d]``, where the new keys are kept already."""
        first, mask = self._sight_of_own(scores.window, written.key.shape[2])
        own = KeyValue(*(x[:, :, first:].flatten(0, 1) for x in written))
        count, heads, size = query.shape
        split = query.view(count, written.key.shape[1], -1, size)
        shape = split.shape[:3]
        near = scores.capped_(
            torch.bmm(split.flatten(0, 1), own.key.transpose(1, 2)).mul_(scores.scale)
        ).view(*shape, -1)
        near.masked_fill_(mask, -torch.inf)
        far, norm = self._over_prompts(layer, split, scores)
        weights, seen = _weights(near, norm.view(*shape, 1), scores, query.dtype), near.shape[-1]
        out = torch.bmm(weights[..., :seen].flatten(0, 1), own.value).view(count, heads, -1)
        return out.addcmul_(far, weights[..., seen].reshape(count, heads, 1))

    def _over_prompts(self, layer: int, query: Tensor, scores: Scores) -> tuple[Tensor, Tensor]:
        """Queries ``[n, H_kv, g, d]`` to outputs ``[n, H, d]`` and log-sum-exps ``[n, H]``, -inf for nothing seen."""
        seating = self.seating
        query = query if seating.order is None else query.index_select(0, seating.order)
        outs, norms = [], []
        for place, (block, group) in enumerate(seating.groups):
            first, mask, blind = self._sight_of_prompts(place, scores.window)
            padded = group.pad(query)  # [R, B, H_kv, g, d]
            requests, count, heads, ratio, width = padded.shape
            own = KeyValue(*(x[:, :, first:] for x in block.keys[layer]))
            if not own.key.shape[2]:
                outs.append(query.new_zeros(group.stop - group.start, heads * ratio, width))
                norms.append(torch.full_like(outs[-1][..., 0], -torch.inf, dtype=torch.float32))
                continue
            rows = padded.transpose(1, 2).reshape(requests, heads, count * ratio, width)
            if mask is not None and mask.shape[2] > 1:
                mask = mask.repeat_interleave(ratio, 2)
            out, norm = _attend(rows, own, mask, scores)
            out = out.view(requests, heads, count, ratio, width).transpose(1, 2).flatten(2, 3)
            norm = norm.view(requests, heads, count, ratio).transpose(1, 2).flatten(2, 3)
            if blind is not None:
                norm = norm.masked_fill(blind, -torch.inf)
            outs.append(group.unpad(out))
            norms.append(group.unpad(norm))
        out, norm = torch.cat(outs), torch.cat(norms)
        if seating.order is None:
            return out, norm
        return out.index_select(0, seating.back), norm.index_select(0, seating.back)

    def _sight_of_own(self, window: int | None, width: int) -> tuple[int, Tensor]:
        """The first of the store's tokens that any place sees, and bool ``[n or 1, 1, 1, t]``, which of those from
        there to its end a place doesn't see."""
        if window not in self._own:
            at = self.at[:1] if (self.at == self.at[0]).all() else self.at
            first = 0 if window is None else max(0, int(at.min()) - window + 1)
            back = at[:, None] - np.arange(first, width)
            hidden = (back < 0) | (False if window is None else back >= window)
            self._own[window] = first, torch.from_numpy(hidden[:, None, None]).to(self.seating.device)
        return self._own[window]

    def _sight_of_prompts(self, place: int, window: int | None) -> tuple[int, Tensor | None, Tensor | None]:
        """Of a group: the first of the prompts' tokens that any place sees, and where not all see all, masks.

        Returns:
            the first token, a mask ``[R, 1, B, W]`` or ``[R, 1, 1, W]``, and bool ``[R, B, 1]``, who sees nothing.
        """
        if (place, window) not in self._prompts:
            block, group = self.seating.groups[place]
            width = int(block.lengths.max())
            real = np.arange(width) < block.lengths[:, None]  # [R, W]
            least = 0
            if window is not None:
                own = self.at[self.seating.sorted[group.start : group.stop]]
                at = np.zeros(group.requests * group.width, np.int64)
                spots = np.arange(group.width) < group.lengths[:, None]
                at[np.flatnonzero(spots)] = own
                # the first place that each sees; the spare spots look like a sample's beginning
                begin = block.lengths[:, None] + at.reshape(spots.shape) - window + 1
                least = min(width, max(0, int(np.where(spots, begin, width).min())))
            if window is None or int(begin.max()) <= 0:
                self._prompts[place, window] = 0, self._mask(real[:, None, None]), None
            else:
                sees = real[:, None, least:] & (np.arange(least, width) >= begin[:, :, None])
                blind = torch.from_numpy(~sees.any(-1, keepdims=True)).to(self.seating.device)
                self._prompts[place, window] = least, self._mask(sees[:, None]), blind
        return self._prompts[place, window]

    def _mask(self, sees: Bool) -> Tensor | None:
        return None if sees.all() else torch.from_numpy(sees).to(self.seating.device)


class RunPass(GrowPass):
    """One or more new tokens for each place, one after the other: a token sees those before it as well.

    Args:
        seating: of the places.
        store: as for :class:`GrowPass`.
        at: int64 ``[T]``, how many tokens its place has before each token.
        lengths: int64 ``[n]``, how many tokens each place gets, 1 or more.
        where: the block of each place and the prompt within it, as for :class:`Seating`.
    """

    def __init__(
        self, seating: Seating, store: Store, at: Int64, lengths: Int64, where: tuple[Int64, Int64]
    ) -> None:
        block, row = (np.repeat(x, lengths) for x in where)
        super().__init__(Seating(seating.blocks, block, row, seating.device), store, at)
        self.lengths, self.where = lengths, where
        self.whose = np.repeat(np.arange(len(lengths)), lengths)
        last = np.cumsum(lengths) - 1
        self.wanted = torch.from_numpy(last).to(seating.device)
        self.last = GrowPass(seating, store, at[last])
        self.runs = Group.of(0, lengths, seating.device)
        self._uneven: tuple[RunPass | GrowPass, LongRuns] | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Keep the new keys; queries of all tokens or of each place's last one."""
        written = self.store.write(layer, key, value, self.at, self.whose)
        if len(query) < len(key):
            return self.last.read(layer, written, query, scores)
        width = _even(self.lengths) if fused(query, scores) and scores.window is None else self.runs.width
        if width == self.runs.width or scores.sinks is not None:
            return self.read(layer, written, query, scores)
        if self._uneven is None:
            self._uneven = self._parted(width)
        begins, rest = self._uneven
        out = torch.empty_like(query)
        out[rest.begins] = begins.read(layer, written, query[rest.begins], scores)
        out[rest.tokens] = rest.read(layer, written, query, scores)
        return out

    def _parted(self, width: int) -> tuple[RunPass | GrowPass, LongRuns]:
        """The first ``width`` tokens of all runs, which are padded together, and what is longer."""
        inside = np.arange(len(self.whose)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        begins = np.flatnonzero(inside < width)
        lengths = np.minimum(self.lengths, width)
        part: RunPass | GrowPass
        if width == 1:
            part = GrowPass(
                Seating(self.seating.blocks, *self.where, self.seating.device), self.store, self.at[begins]
            )
        else:
            part = RunPass(self.seating, self.store, self.at[begins], lengths, self.where)
        return part, LongRuns(self, begins, np.flatnonzero(inside >= width), width)

    def read(self, layer: int, written: KeyValue, query: Tensor, scores: Scores) -> Tensor:
        """Queries ``[T, H, d]`` of all tokens to outputs ``[T, H, d]``, runs padded to the longest."""
        first, mask = self._sight_of_own(scores.window, written.key.shape[2])
        own = KeyValue(*(x[:, :, first:].flatten(0, 1) for x in written))
        count, heads, size = query.shape
        split = query.view(count, written.key.shape[1], -1, size)
        # places, heads, tokens of a place, queries that share a key: as the padded runs stand
        shape = (self.runs.requests, split.shape[1], self.runs.width, split.shape[2])
        rows = self._together(split).reshape(shape[0] * shape[1], -1, size)
        near = scores.capped_(torch.bmm(rows, own.key.transpose(1, 2)).mul_(scores.scale)).view(*shape, -1)
        near.masked_fill_(self._together(mask), -torch.inf)
        far, norm = self._over_prompts(layer, split, scores)
        norm = self._together(norm.view(*split.shape[:3], 1))
        weights, seen = _weights(near, norm, scores, query.dtype), near.shape[-1]
        out = torch.bmm(weights[..., :seen].flatten(2, 3).flatten(0, 1), own.value).view(*shape, -1)
        share = self._apart(weights[..., seen : seen + 1]).reshape(count, heads, 1)
        return self._apart(out).reshape(count, heads, -1).addcmul_(far, share)

    def _together(self, tokens: Tensor) -> Tensor:
        """``[T, H_kv, g, x]`` to ``[n, H_kv, W, g, x]``, a place's tokens side by side."""
        return self.runs.pad(tokens).transpose(1, 2)

    def _apart(self, places: Tensor) -> Tensor:
        """Back to ``[T, H_kv, g, x]``."""
        return self.runs.unpad(places.transpose(1, 2))


class LongRuns:
    """What runs have behind their first tokens, run by run: for the few that are much longer than the others.

    Args:
        runs: all of them.
        begins: int64, their first tokens.
        tokens: int64, all others.
        width: how many tokens of a run count as first.
    """

    def __init__(self, runs: RunPass, begins: Int64, tokens: Int64, width: int) -> None:
        self.runs, device = runs, runs.seating.device
        self.begins, self.tokens = (torch.from_numpy(x).to(device) for x in (begins, tokens))
        ends = np.cumsum(runs.lengths)
        self.own = [
            (place, int(ends[place] - runs.lengths[place]) + width, int(ends[place]))
            for place in np.flatnonzero(runs.lengths > width).tolist()
        ]
        self._masks: list[Tensor] = []

    def read(self, layer: int, written: KeyValue, query: Tensor, scores: Scores) -> Tensor:
        """Queries ``[T, H, d]`` of all tokens to outputs ``[m, H, d]`` of those that aren't first ones."""
        runs = self.runs
        if not self._masks:
            for _, start, stop in self.own:
                back = runs.at[start:stop, None] - np.arange(int(runs.at[stop - 1]) + 1)
                bias = torch.from_numpy(np.where(back < 0, np.finfo(np.float32).min, np.float32(0)))
                self._masks.append(bias.to(query.dtype))
        near, far = [], []
        for (place, start, stop), mask in zip(self.own, self._masks, strict=True):
            block, row = runs.seating.blocks[int(runs.where[0][place])], int(runs.where[1][place])
            some = query[start:stop].transpose(0, 1)[None]
            own = KeyValue(*(x[place : place + 1, :, : mask.shape[1]] for x in written))
            prompt = KeyValue(*(x[row : row + 1, :, : int(block.lengths[row])] for x in block.keys[layer]))
            near.append(_fused(some, own, mask, scores))
            far.append(_fused(some, prompt, None, scores))
        parts = []
        for found in (near, far):
            out = torch.cat([out[0].transpose(0, 1) for out, _ in found])
            parts += [out, torch.cat([norm[0].T for _, norm in found])]
        return merge(*parts)[0]


def _fused(query: Tensor, keys: KeyValue, mask: Tensor | None, scores: Scores) -> tuple[Tensor, Tensor]:
    """Outputs ``[1, H, q, d]`` and log-sum-exps ``[1, H, q]`` over keys ``[1, H_kv, k, d]``."""
    out, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys.key, keys.value, 0.0, False, attn_mask=mask, scale=scores.scale
    )
    return out, norm


def _even(lengths: Int64) -> int:
    """To how many tokens runs are padded together, so that with what is longer run by run the least is computed."""
    widths = np.unique(lengths)
    longer = [lengths[lengths > width] - width for width in widths]
    costs = [len(lengths) * width + (rest + _ALONE).sum() for width, rest in zip(widths, longer, strict=True)]
    return int(widths[int(np.argmin(costs))])


def _weights(near: Tensor, norm: Tensor, scores: Scores, dtype: torch.dtype) -> Tensor:
    """Softmax over a place's own keys ``[n, H_kv, …, g, t]``, its prompt as one more, by its log-sum-exp
    ``[n, H_kv, …, g, 1]``, and the sink where there is one."""
    columns = [near, norm]
    if scores.sinks is not None:
        each = (1, near.shape[1], *[1] * (near.dim() - 4), near.shape[-2], 1)
        columns.append(scores.sinks.to(norm.dtype).view(each).expand(norm.shape))
    return torch.cat(columns, -1).softmax(-1, dtype=torch.float32).to(dtype)


def _attend(query: Tensor, own: KeyValue, sees: Tensor | None, scores: Scores) -> tuple[Tensor, Tensor]:
    """Outputs ``[n, h, q, d]`` and float32 log-sum-exps ``[n, h, q]``.

    Args:
        query: ``[n, h, q, d]``.
        own: keys and values ``[n, h, k, d]``.
        sees: bool ``[n, 1, q or 1, k]``, or None for all. Who sees nothing gets anything.
        scores: of the layer; without sinks.
    """
    if fused(query, scores):
        mask = None
        if sees is not None:
            # finite, so that a query that sees nothing stays a number
            least = torch.finfo(query.dtype).min
            mask = query.new_zeros(sees.shape).masked_fill_(~sees, least)
        out, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, own.key, own.value, 0.0, False, attn_mask=mask, scale=scores.scale
        )
        return out, norm.float()
    found = scores.capped_((query @ own.key.transpose(-1, -2)).float().mul_(scores.scale))
    if sees is not None:
        found.masked_fill_(~sees, torch.finfo(found.dtype).min)
    norm = found.logsumexp(-1)
    out = (found - norm[..., None]).exp_().to(own.value.dtype) @ own.value
    return out, norm

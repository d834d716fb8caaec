"""Keys and values of a search: computed once, never copied, never reordered.

A search has three kinds of keys: the *template* (what all prompts begin with), each request's own *prompt*, and the
*leaves*, one token a beam and step. A leaf sees the template, its request's prompt, its ancestors and itself; each of
the three is attended on its own and the parts are merged through their log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, PreTrainedModel

from itemic.forest.attention import attend_part, merge
from itemic.forest.build import TokenForest
from itemic.forest.layout import Part, attention_parts

NAME = "itemic_beams"
Int64 = npt.NDArray[np.int64]
KeysValues = list[tuple[Tensor, Tensor]]  # by layer, each [T, H_kv, d]


@dataclass(frozen=True)
class Chains:
    """A pass over whole sequences: the template alone, or the prompts' own parts side by side."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, offsets: Int64, device: torch.device, dtype: torch.dtype) -> Chains:
        """Chains of the given offsets that see only themselves (and the template, where there is one)."""
        total, lengths = int(offsets[-1]), np.diff(offsets)
        start = np.repeat(offsets[:-1], lengths)
        index = np.arange(total)
        forest = TokenForest(
            np.zeros(total, np.int32),
            (index - start).astype(np.int32),
            np.where(index == start, -1, index - 1).astype(np.int32),
            np.repeat(offsets[1:], lengths).astype(np.int32),
            np.zeros(total, np.float32),
            np.zeros(0, np.int32),
        )
        return cls(tuple(attention_parts(forest, device, dtype)))


@dataclass(frozen=True)
class Leaves:
    """A pass over one new token per beam.

    Attributes:
        spans: for each request with leaves: its leaves ``[a, b)`` and its prompt's tokens ``[c, d)``.
        ancestors: int64 ``[N, t]``, places in the leaves' store: each leaf's ancestors, then itself.
    """

    spans: tuple[tuple[slice, slice], ...]
    ancestors: Tensor


@dataclass
class BeamCache(Cache):
    """What the model's layers write their keys to (through ``update``) and our attention reads them from."""

    layers: list[Any] = field(
        default_factory=list
    )  # transformers asks these what they are; ours are one kind
    template: KeysValues = field(default_factory=list)
    prompts: KeysValues = field(default_factory=list)
    leaves: KeysValues = field(default_factory=list)
    used: int = 0  # leaves stored by the steps before this one
    step: Chains | Leaves | None = None
    storing: str = "prompts"

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the new tokens' keys and values ``[1, H_kv, n, d]``; hand them back as they are."""
        key, value = key_states[0].transpose(0, 1), value_states[0].transpose(0, 1)
        if isinstance(self.step, Leaves):
            new = slice(self.used, self.used + len(key))
            if layer_idx == len(self.leaves):
                self.leaves.append((_room_for(key, 0), _room_for(value, 0)))
            elif new.stop > len(self.leaves[layer_idx][0]):
                old = self.leaves[layer_idx]
                self.leaves[layer_idx] = tuple(  # type: ignore[assignment]
                    torch.cat([store, _room_for(tensor, len(store))])
                    for store, tensor in zip(old, (key, value), strict=True)
                )
            for store, tensor in zip(self.leaves[layer_idx], (key, value), strict=True):
                store[new] = tensor
        else:
            store_of: KeysValues = getattr(self, self.storing)
            store_of.append((key.contiguous(), value.contiguous()))
        return key_states, value_states

    def attend(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """``[n, H, d]`` queries of the current pass over all that they see: ``[n, H, d]``."""
        if isinstance(self.step, Leaves):
            return self._attend_leaves(self.step, layer, query, scale)
        assert self.step is not None
        key, value = (_expand(x, query.shape[1]) for x in getattr(self, self.storing)[layer])
        out = query.new_zeros(query.shape[0], query.shape[1], value.shape[-1])
        lse = torch.full(query.shape[:2], float("-inf"), dtype=torch.float32, device=query.device)
        for part in self.step.parts:
            more, norm = attend_part(part, query, key, value, scale)
            if part.places is None:
                out[part.queries], lse[part.queries] = more.to(out.dtype), norm.float()
            else:
                slots, tokens = part.places
                out[tokens], lse[tokens] = more[slots].to(out.dtype), norm[slots].float()
        if self.storing == "prompts" and self.template:
            out, _ = merge(out, lse, *_over(query, *self.template[layer], scale))
        return out

    def _attend_leaves(self, step: Leaves, layer: int, query: Tensor, scale: float) -> Tensor:
        out, lse = self._over_ancestors(step.ancestors, layer, query, scale)
        key, value = self.prompts[layer]
        pieces = [_over(query[mine], key[prompt], value[prompt], scale) for mine, prompt in step.spans]
        more, norm = (torch.cat(x) if len(pieces) > 1 else x[0] for x in zip(*pieces, strict=True))
        out, lse = merge(out, lse, more, norm)
        if self.template:
            out, _ = merge(out, lse, *_over(query, *self.template[layer], scale))
        return out

    def _over_ancestors(
        self, places: Tensor, layer: int, query: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Each leaf over the few keys of its own path."""
        key, value = (x[: self.used + len(query)] for x in self.leaves[layer])
        leaves, heads, width = query.shape
        q = query.reshape(leaves, key.shape[1], heads // key.shape[1], width) * scale
        k = key.index_select(0, places.flatten()).view(*places.shape, *key.shape[1:]).permute(0, 2, 3, 1)
        v = value.index_select(0, places.flatten()).view(*places.shape, *value.shape[1:]).transpose(1, 2)
        scores = (q @ k).float()
        lse = scores.logsumexp(-1)
        out = (scores - lse[..., None]).exp().to(v.dtype) @ v
        return out.reshape(leaves, heads, v.shape[-1]), lse.reshape(leaves, heads)


def _room_for(new: Tensor, have: int) -> Tensor:
    """Empty places for leaves: for this step and two like it, or as many again as there are."""
    return new.new_empty(max(3 * len(new), have), *new.shape[1:])


def _expand(tensor: Tensor, heads: int) -> Tensor:
    """Key heads repeated for the query heads that share them, ``[T, H, d]``."""
    return tensor if tensor.shape[1] == heads else tensor.repeat_interleave(heads // tensor.shape[1], 1)


def _over(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Every query ``[n, H, d]`` over every key ``[m, H_kv, d]``: output and log-sum-exp.

    Query heads that share a key head are laid side by side as more queries, so keys are read as they are.
    """
    count, heads, width = query.shape
    shared = key.shape[1]
    if shared != heads:
        query = query.reshape(count, shared, heads // shared, width).transpose(1, 2).flatten(0, 1)
    out, norm = attend_part(Part(slice(None), slice(None)), query, key, value, scale)
    if shared != heads:
        out = out.view(count, heads // shared, shared, -1).transpose(1, 2).flatten(1, 2)
        norm = norm.view(count, heads // shared, shared).transpose(1, 2).flatten(1, 2)
    return out, norm.float()


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    search: BeamCache | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls with query ``[1, H, n, d]``; keys are in the cache already."""
    if search is None:
        raise RuntimeError("the model is set to beam attention but was called without `search=`")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = search.attend(int(module.layer_idx), query[0].transpose(0, 1).contiguous(), scale)  # type: ignore[arg-type]
    return out[None], None


@contextmanager
def beam_attention(lm: PreTrainedModel) -> Iterator[None]:
    """Run ``lm`` with beam attention inside the block, in evaluation mode; both are restored after."""
    before, training = lm.config._attn_implementation, lm.training
    lm.config._attn_implementation = NAME
    lm.train(False)
    try:
        yield
    finally:
        lm.config._attn_implementation = before
        lm.train(training)


AttentionInterface.register(NAME, attend)

"""The model below its head, behind one face: tokens of a pass in, last hidden states out.

Any supported model goes through transformers' own code, which looks its attention up by name. Plain Qwen3, Qwen2 and
Llama models go through a forward of our own that reads the same weights with a third fewer passes over memory, and that
leaves out the last layer's feed-forward where nobody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from itemic.decode.attention import Pass, PromptPass
from itemic.decode.layout import group_prompts
from itemic.forest.attention import NotHandedOn, same_width
from itemic.forest.scores import Scores
from itemic.forest.support import with_keyword

NAME = "itemic_beams"
_LEAN = ("LlamaModel", "Qwen2Model", "Qwen3Model")  # pre-norm, rotary positions by halves, gated feed-forward
_CACHED = 1 << 19  # values of a feed-forward layer's inside that a CPU core's cache holds beside the weights
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


class Body(Protocol):
    """Runs a model's layers over one pass."""

    def __call__(self, tokens: Tensor, position: Tensor, step: Pass) -> Tensor:
        """Last hidden states ``[n, d]`` of those int64 tokens ``[T]`` at positions ``[T]`` that the pass wants."""


def body_of(lm: PreTrainedModel) -> Body:
    """The faster body that gives what the model itself does."""
    reference = TransformersBody(lm)
    if not _is_plain(lm):
        return reference
    lean = LeanBody(lm)
    tokens, place = torch.arange(5, device=lm.device) % 3, torch.arange(5, device=lm.device)
    with torch.inference_mode(), torch.autocast(lm.device.type, enabled=False):
        ours, theirs = (body(tokens, place, _probe(lm)).float() for body in (lean, reference))
    limit = 1e-4 if lm.dtype == torch.float32 else 0.1
    return lean if bool((ours - theirs).abs().max() <= limit * theirs.abs().max()) else reference


def _probe(lm: PreTrainedModel) -> Pass:
    import numpy as np

    return PromptPass(group_prompts(np.array([5]), lm.device), [])


def _is_plain(lm: PreTrainedModel) -> bool:
    """Whether all parts are what the lean forward reads: no adapters, no quantized layers, no hooks."""
    base = lm.base_model
    if type(base).__name__ not in _LEAN or not type(base).__module__.startswith("transformers."):
        return False
    if getattr(base.config, "hidden_act", None) != "silu":
        return False
    return not any(
        any(getattr(module, hooks, None) for hooks in _HOOKS)
        or (name.endswith("_proj") and type(module) is not nn.Linear)
        for name, module in base.named_modules()
    )


@contextmanager
def evaluating(lm: PreTrainedModel) -> Iterator[None]:
    """Inside the block the model doesn't train; its mode comes back."""
    training = lm.training
    lm.train(False)
    try:
        yield
    finally:
        lm.train(training)


class TransformersBody:
    """The model's own forward, through the attention interface."""

    def __init__(self, lm: PreTrainedModel) -> None:
        self.lm = lm

    def __call__(self, tokens: Tensor, position: Tensor, step: Pass) -> Tensor:
        with _beam_attention(self.lm):
            out = self.lm.base_model(
                input_ids=tokens[None], position_ids=position[None], use_cache=False, search=step
            )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden if step.wanted is None else hidden[step.wanted]


class LeanBody:
    """The same arithmetic for models of Llama's build, with in-place sums and no copies between heads and tokens."""

    def __init__(self, lm: PreTrainedModel) -> None:
        self.base: Any = lm.base_model

    def __call__(self, tokens: Tensor, position: Tensor, step: Pass) -> Tensor:
        base = self.base
        hidden = torch.nn.functional.embedding(tokens, base.embed_tokens.weight)
        cos, sin = base.rotary_emb(hidden[None], position[None])
        half = cos.shape[-1] // 2
        turn = (cos[0, :, None, :half], sin[0, :, None, :half])
        last = len(base.layers) - 1
        for at, layer in enumerate(base.layers):
            x = _rms(hidden, layer.input_layernorm)
            wanted = step.wanted if at == last else None
            if wanted is not None:
                hidden = hidden[wanted]
            _add_product(hidden, self._attend(at, layer, x, turn, step, wanted), layer.self_attn.o_proj)
            _feed_forward(hidden, layer)
        return _rms(hidden, base.norm)

    @staticmethod
    def _attend(
        at: int, layer: Any, x: Tensor, turn: tuple[Tensor, Tensor], step: Pass, wanted: Tensor | None
    ) -> Tensor:
        attention, width = layer.self_attn, layer.self_attn.head_dim
        key = attention.k_proj(x).unflatten(-1, (-1, width))
        value = attention.v_proj(x).unflatten(-1, (-1, width))
        own, own_turn = (x, turn) if wanted is None else (x[wanted], (turn[0][wanted], turn[1][wanted]))
        query = attention.q_proj(own).unflatten(-1, (-1, width))
        if hasattr(attention, "q_norm"):
            query, key = _rms(query, attention.q_norm), _rms(key, attention.k_norm)
        query, key = _turned(query, *own_turn), _turned(key, *turn)
        scores = Scores(attention.scaling, getattr(attention, "sliding_window", None))
        out: Tensor = step.attend(at, query, key, value, scores).flatten(1)
        return out


def _rms(x: Tensor, norm: Any) -> Tensor:
    """Root-mean-square normalisation of the last dimension, in float32 as transformers has it."""
    wide = x.float()
    size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    size.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    out: Tensor = (wide * size).to(x.dtype).mul_(norm.weight)
    return out


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the first half of each head ``[T, H, d]`` turned against the second."""
    half = x.shape[-1] // 2
    first, second, out = x[..., :half], x[..., half:], torch.empty_like(x)
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)
    return out


def _feed_forward(hidden: Tensor, layer: Any) -> None:
    """``hidden += mlp(norm(hidden))`` in place; on the CPU so many tokens at a time that they stay in the cache."""
    mlp, count = layer.mlp, max(len(hidden), 1)
    step = max(_CACHED // mlp.gate_proj.out_features, 64) if hidden.device.type == "cpu" else count
    for first in range(0, len(hidden), step):
        rows = hidden[first : first + step]
        x = _rms(rows, layer.post_attention_layernorm)
        gate = nn.functional.silu(mlp.gate_proj(x), inplace=True)
        _add_product(rows, gate.mul_(mlp.up_proj(x)), mlp.down_proj)


def _add_product(total: Tensor, x: Tensor, linear: nn.Linear) -> None:
    """``total += linear(x)`` in place."""
    total.addmm_(x, linear.weight.T)
    if linear.bias is not None:
        total.add_(linear.bias)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    search: Pass | None = None,
    scaling: float | None = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: query ``[1, H, T, d]``, key and value ``[1, H_kv, T, d]``."""
    if search is None:
        raise NotHandedOn("the model is set to beam attention but was called without `search=`")
    scores, width = Scores.asked_for(query, scaling, asked), value.shape[-1]
    layer: int = module.layer_idx  # type: ignore[assignment]
    query, key, value = same_width(query, key, value)
    query, key, value = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    return search.attend(layer, query, key, value, scores)[None, ..., :width].contiguous(), None


@contextmanager
def _beam_attention(lm: PreTrainedModel) -> Iterator[None]:
    reaching = with_keyword(lm, "search")
    before = lm.config._attn_implementation
    lm.config._attn_implementation = NAME
    try:
        with reaching:
            yield
    finally:
        lm.config._attn_implementation = before


AttentionInterface.register(NAME, attend)

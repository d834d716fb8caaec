"""Slow, obvious counterparts of the forest's parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import (
    CONFIG_MAPPING,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
}
FAMILIES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gemma": (GemmaConfig, GemmaForCausalLM),
}


WINDOW = 9
MIXED = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "v_head_dim": 8}
LATENT |= {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "head_dim": 8, "first_k_dense_replace": 3}
# decoders whose attention or head is more than Llama's, with what of it there is
SPECIAL: dict[str, tuple[str, dict[str, object]]] = {
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "mixed windows": ("gemma3_text", MIXED),
    "caps": (
        "gemma2",
        MIXED | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 16},
    ),
    "sinks": ("gpt_oss", MIXED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "scaled logits": ("granite", {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "parallel blocks": ("cohere2", MIXED | {"logit_scale": 0.3}),
    "kept keywords": ("stablelm", {"head_dim": None, "use_parallel_residual": True}),
    "latent heads": ("deepseek_v3", LATENT),
    "fused projections": ("gpt_neox", {"head_dim": None, "hidden_dropout": 0.0}),
}


def tiny(family: str, **overrides: object) -> PreTrainedModel:
    """A small random model of a family, the same every time."""
    torch.manual_seed(0)
    config, model = FAMILIES[family]
    return model(config(**(SHAPE | overrides)))


def special(name: str, **overrides: object) -> PreTrainedModel:
    """A small random model of :data:`SPECIAL`; also what starts at 0 or 1 is random."""
    torch.manual_seed(0)
    kind, options = SPECIAL[name]
    shape = SHAPE | {"num_hidden_layers": 3, "initializer_range": 0.15, "attention_dropout": 0.0}
    shape |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | options | overrides
    config = CONFIG_MAPPING[kind](**{key: value for key, value in shape.items() if value is not None})
    config._experts_implementation = "eager"  # the other ways know no float64
    lm: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    with torch.no_grad():
        for weight in lm.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.3)
    return lm


@dataclass
class Node:
    token: int
    depth: int
    parent: tuple[int, ...]
    weight: float = 0.0


def slow_forest(
    rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]
) -> dict[tuple[int, ...], Node]:
    """Every distinct prefix, depth first: roots by token, other siblings by what is below them, most first, then by
    token."""
    nodes: dict[tuple[int, ...], Node] = {}
    for row, weight in zip(rows, weights, strict=True):
        for depth in range(len(row)):
            prefix = tuple(row[: depth + 1])
            node = nodes.setdefault(prefix, Node(row[depth], depth, prefix[:-1]))
            node.weight += weight[depth] if depth else 0.0
    below = {prefix: sum(other[: len(prefix)] == prefix for other in nodes) for prefix in nodes}
    waiting = sorted((prefix for prefix in nodes if len(prefix) == 1), reverse=True)
    order = []
    while waiting:
        prefix = waiting.pop()
        order.append(prefix)
        children = [other for other in nodes if other[:-1] == prefix]
        waiting += sorted(children, key=lambda child: (-below[child], child), reverse=True)
    return {prefix: nodes[prefix] for prefix in order}


def row_by_row(
    lm: PreTrainedModel, rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted loss and gradients when every row goes through the plain model on its own."""
    lm.zero_grad()
    total = torch.zeros(())
    for row, weight in zip(rows, weights, strict=True):
        if len(row) < 2:
            continue
        logits = lm(torch.tensor([row]), use_cache=False).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="none")
        total = total + (losses * torch.tensor(weight[1:])).sum()
    if total.requires_grad:
        total.backward()
    return total.detach(), gradients(lm)


def gradients(lm: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in lm.named_parameters()
    }

"""Slow, obvious counterparts of the forest's parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import (
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


def tiny(family: str, **overrides: object) -> PreTrainedModel:
    """A small random model of a family, the same every time."""
    torch.manual_seed(0)
    config, model = FAMILIES[family]
    return model(config(**(SHAPE | overrides)))


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

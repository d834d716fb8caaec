"""A slow plain SASRec: one user at a time, attention as softmax of products, and the softmax over all items."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from itemic.teacher.model import SASRec


def hidden_states(model: SASRec, items: list[int]) -> Tensor:
    """``[L, d]`` after each item of one history, without dropout."""
    width, length = model.items.weight.shape[1], len(items)
    hidden = model.items.weight[items] * math.sqrt(width) + model.positions.weight[:length]
    for layer in model.layers:
        normed = F.layer_norm(hidden, (width,), layer.attention_norm.weight, layer.attention_norm.bias)
        every = normed @ layer.queries_keys_values.weight.T + layer.queries_keys_values.bias
        query, key, value = every.split(width, dim=1)
        size, seen = width // layer.heads, []
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            for at in range(length):
                scores[at, at + 1 :] = -math.inf
            seen.append(scores.softmax(-1) @ value[:, part])
        out = torch.cat(seen, 1) @ layer.attention_out.weight.T + layer.attention_out.bias
        hidden = hidden + out
        normed = F.layer_norm(hidden, (width,), layer.forward_norm.weight, layer.forward_norm.bias)
        inner = F.gelu(normed @ layer.up.weight.T + layer.up.bias)
        hidden = hidden + inner @ layer.down.weight.T + layer.down.bias
    return F.layer_norm(hidden, (width,), model.norm.weight, model.norm.bias)


def log_chances(model: SASRec, items: list[int]) -> Tensor:
    """``[L, n]``: the log-probability of every item after each prefix of a history."""
    return (hidden_states(model, items) @ model.items.weight.T).log_softmax(-1)


def loss(model: SASRec, rows: list[list[int]]) -> Tensor:
    """The sum over users and targets of ``-log P(next item)``."""
    total = torch.zeros(())
    for row in rows:
        chance = log_chances(model, row[:-1])
        total = total - sum(chance[at, item] for at, item in enumerate(row[1:]))
    return total

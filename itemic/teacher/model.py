"""SASRec: a causal transformer over item rows, whose output embeddings are its input embeddings.

Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018. Norms stand before the layers and one after the
last of them, as later transformers have it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from itemic.teacher.rows import Packed, Slab


class Layer(nn.Module):
    """Causal attention and a feed-forward network, each behind a norm and beside a residual path.

    Args:
        width: of the hidden states.
        heads: they share the width.
        inner: width within the feed-forward network.
        dropout: share of the outputs of both that is zeroed in training.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden: Tensor, slabs: tuple[Slab, ...]) -> Tensor:
        """Hidden states ``[T, d]`` of rows that lie in ``slabs``."""
        found = self.attention_out(self._attend(self.attention_norm(hidden), slabs))
        hidden = hidden + F.dropout(found, self.dropout, self.training)
        found = self.down(F.gelu(self.up(self.forward_norm(hidden))))
        return hidden + F.dropout(found, self.dropout, self.training)

    def _attend(self, hidden: Tensor, slabs: tuple[Slab, ...]) -> Tensor:
        """Slab by slab: each is a batch of rows of one length, where it lies."""
        found, start = [], 0
        every = self.queries_keys_values(hidden)
        for rows, length in slabs:
            part = every[start : start + rows * length]
            start += rows * length
            if length == 1:  # attends to itself alone
                found.append(part.chunk(3, -1)[2])
                continue
            query, key, value = part.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            found.append(seen.transpose(1, 2).reshape(rows * length, -1))
        return torch.cat(found)


class SASRec(nn.Module):
    """Hidden states of rows, each of which scores the whole catalogue for the item that comes next.

    Args:
        items: how many there are.
        width: of embeddings and hidden states.
        layers: how many.
        heads: of attention; they share the width.
        inner: width within the feed-forward networks.
        max_length: of the rows.
        dropout: share of the embeddings and of the layers' outputs that is zeroed in training.

    Attributes:
        share: float32 ``[n]``, what each item was of the training interactions: the answer to an empty history.
    """

    share: Tensor

    def __init__(
        self, items: int, *, width: int, layers: int, heads: int, inner: int, max_length: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout, self.max_length = dropout, max_length
        self.items = nn.Embedding(items, width)
        self.positions = nn.Embedding(max_length, width)
        self.layers = nn.ModuleList(Layer(width, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("share", torch.full((items,), 1.0 / items))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, rows: Packed) -> Tensor:
        """Hidden states ``[T, d]`` of packed rows on the model's device."""
        width = self.items.embedding_dim
        hidden = self.items(rows.items) * math.sqrt(width) + self.positions(rows.position)
        hidden = F.dropout(hidden, self.dropout, self.training)
        for layer in self.layers:
            hidden = layer(hidden, rows.slabs)
        return self.norm(hidden)  # type: ignore[no-any-return]

    def scores(self, rows: Packed) -> Tensor:
        """float32 ``[R, n]``: for each row the log-probability of every item as its next one, in the rows' order from
        before they were packed."""
        last = self(rows)[rows.ends.to(rows.items.device)]
        found = F.linear(last, self.items.weight).float().log_softmax(-1)
        back = torch.empty_like(found)
        back[torch.from_numpy(rows.order).to(found.device)] = found
        return back

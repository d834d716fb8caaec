"""A forest through a model: hidden states, and the weighted loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from itemic.forest.attention import default_backend
from itemic.forest.build import TokenForest
from itemic.forest.head import OutputHead
from itemic.forest.layout import ForestLayout
from itemic.forest.loss import weighted_cross_entropy
from itemic.forest.rows import Float32, Int64
from itemic.forest.scope import Among, Scope
from itemic.forest.unwanted import Unwanted
from itemic.forest.windows import windows_of

# Lengths of blocks and of their targets are rounded up to this. Buffers then come in a few sizes: with thousands of
# sizes, glibc's heap breaks into pieces within an hour and half of the time goes into looking for a place.
ROUND = 128


def forest_hidden(
    lm: PreTrainedModel,
    forest: TokenForest,
    *,
    embeds: Tensor | None = None,
    backend: str | None = None,
    wanted: Int64 | None = None,
) -> Tensor:
    """The base model's last hidden states ``[T, d]`` over a forest.

    Call it inside :func:`itemic.forest.context.forest_attention`.

    Args:
        lm: the model.
        forest: ``T`` tokens.
        embeds: ``[T, d]`` in place of the model's own embeddings of the tokens.
        backend: ``"sdpa"``, ``"flex"`` or ``"dense"``; None for the device's best.
        wanted: int64 ``[n]``, rising: the tokens whose hidden states are needed; those of the others may then be wrong.
    """
    device = lm.device
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else lm.dtype
    windows = windows_of(lm.config)
    layout = ForestLayout.of(forest, device, dtype, backend or default_backend(device), windows, wanted)
    inputs: dict[str, Tensor] = (
        {"input_ids": torch.from_numpy(forest.tokens.astype(np.int64)).to(device)[None]}
        if embeds is None
        else {"inputs_embeds": embeds[None]}
    )
    position = torch.from_numpy(forest.position.astype(np.int64)).to(device)[None]
    out = lm.base_model(**inputs, position_ids=position, use_cache=False, forest=layout)
    return out.last_hidden_state[0]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class NewRows:
    """The part of the vocabulary that learns while everything else stays as it is.

    Attributes:
        start: the first token id that learns.
        input: parameter ``[n, d]`` in place of rows ``start:start + n`` of the input embeddings; it may share their
            storage.
        output: the same for an untied head; None where the head is tied (then ``input`` serves both).
    """

    start: int
    input: torch.nn.Parameter
    output: torch.nn.Parameter | None = None

    def embed(self, lm: PreTrainedModel, tokens: Tensor) -> Tensor:
        """Embeddings ``[T, d]`` of int64 ``tokens``, with gradient for the learning rows only."""
        module = lm.get_input_embeddings()
        fixed = module(tokens).detach()
        inside = (tokens >= self.start) & (tokens < self.start + len(self.input))
        own = torch.nn.functional.embedding((tokens - self.start).clamp(0, len(self.input) - 1), self.input)
        return torch.where(inside[:, None], own * _scale(module, fixed, tokens), fixed)

    @property
    def head(self) -> torch.nn.Parameter:
        return self.input if self.output is None else self.output

    def whole_head(self, weight: Tensor) -> Tensor:
        """The head ``[V, d]`` with the learning rows in their place: ``weight`` itself where they share its storage."""
        rows, stop = self.head.detach(), self.start + len(self.head)
        if rows.data_ptr() == weight[self.start : stop].data_ptr():
            return weight
        return torch.cat([weight[: self.start].detach(), rows.to(weight.dtype), weight[stop:].detach()])


def _scale(module: torch.nn.Module, fixed: Tensor, tokens: Tensor) -> float:
    """Some embedding modules multiply their rows by a constant (Gemma's and BioGPT's scaled word embeddings)."""
    return float(getattr(module, "scalar_embed_scale", getattr(module, "embed_scale", 1.0)))


@dataclass(frozen=True)
class ForestLoss:
    """The loss of a forest.

    Attributes:
        total: the weighted sum of token losses, a graph.
        weight: the sum of weights.
        nodes: int64 ``[n]``, the tokens that carry weight.
        losses: float32 ``[n]``, the loss of each, what is unwanted in its place included, without its weight and
            without a graph.
    """

    total: Tensor
    weight: float
    nodes: Int64
    losses: Tensor


def _wanted(forest: TokenForest, parents: Int64) -> Int64 | None:
    """The parents of weighted tokens, and a few more so that there are a multiple of :data:`ROUND`; None for all.

    Nothing is all as well: an engine that shares layers out waits for every one of them in every block.
    """
    if not len(parents):
        return None
    asked = np.zeros(len(forest), bool)
    asked[parents] = True
    asked[np.flatnonzero(~asked)[: -int(asked.sum()) % ROUND]] = True
    return None if asked.all() else np.flatnonzero(asked)


def forest_loss(
    lm: PreTrainedModel,
    forest: TokenForest,
    *,
    new_rows: NewRows | None = None,
    backend: str | None = None,
    chunk: int = 2048,
    label_smoothing: float = 0.0,
    scope: Scope | None = None,
    unwanted: Unwanted | None = None,
) -> ForestLoss:
    """Sum of ``weight · cross-entropy`` over a forest's tokens, each predicted from its parent.

    The head is applied to the parents of weighted tokens only, in chunks. Equal to the sum over the rows that the
    forest was made from.

    Args:
        lm: the model, inside ``forest_attention``.
        forest: a block of rows with weights.
        backend: as in :func:`forest_hidden`.
        new_rows: only these rows of the vocabulary get a gradient.
        chunk: rows of the head computed at once.
        label_smoothing: share of the target's probability that is spread over what competes with it.
        scope: where a token competes with a few others alone; None for the whole vocabulary everywhere.
        unwanted: tokens whose probability costs something as well.
    """
    forest = forest.padded(ROUND)
    weighted = np.flatnonzero(forest.weight)
    at, weight, row, among = _rows_of(forest, weighted, scope, lm.device)
    targets = torch.from_numpy(forest.tokens[at].astype(np.int64)).to(lm.device)
    weights = torch.from_numpy(weight).to(lm.device)
    parents = np.maximum(forest.parent[at], 0).astype(np.int64)
    embeds = None
    if new_rows is not None:
        embeds = new_rows.embed(lm, torch.from_numpy(forest.tokens.astype(np.int64)).to(lm.device))
    wanted = _wanted(forest, parents[row[row >= 0]])
    hidden = forest_hidden(lm, forest, embeds=embeds, backend=backend, wanted=wanted)
    head = OutputHead.of(lm)
    total, losses = weighted_cross_entropy(
        hidden[torch.from_numpy(parents).to(lm.device)],
        head.weight if new_rows is None else new_rows.whole_head(head.weight),
        targets,
        weights,
        bias=head.bias,
        scale=head.scale,
        cap=head.cap,
        learn=None if new_rows is None else new_rows.head,
        learn_start=0 if new_rows is None else new_rows.start,
        chunk=chunk,
        label_smoothing=label_smoothing,
        among=among,
        avoid=None if unwanted is None else unwanted.in_rows(weighted, row, len(at), lm.device),
    )
    each = losses[: len(weighted)]
    if scope is not None:
        each = torch.zeros(len(weighted), device=losses.device)
        counted = np.flatnonzero(row >= 0)
        each[torch.from_numpy(counted).to(lm.device)] = losses[torch.from_numpy(row[counted]).to(lm.device)]
    alone = forest.weight[weighted[row < 0]]
    size = float(weight.sum(dtype=np.float64) + alone.sum(dtype=np.float64))
    return ForestLoss(total, size, weighted, each)


def _rows_of(
    forest: TokenForest, weighted: Int64, scope: Scope | None, device: torch.device
) -> tuple[Int64, Float32, Int64, Among | None]:
    """The rows of a loss.

    Returns:
        the token and the weight of each, the row of each weighted token (-1 for one without a rival, whose loss is 0),
        and what competes in the last rows.
    """
    widths = np.zeros(len(weighted), np.int64) if scope is None else scope.widths(weighted)
    free, few = np.flatnonzero(widths == 0), np.flatnonzero(widths > 1)
    spare = -len(free) % ROUND, -len(few) % ROUND
    row = np.full(len(weighted), -1, np.int64)
    row[free] = np.arange(len(free))
    row[few] = len(free) + spare[0] + np.arange(len(few))
    own = forest.weight[weighted]
    at = [weighted[free], np.zeros(spare[0], np.int64)]
    weight = [own[free], np.zeros(spare[0], np.float32)]
    among = None
    if scope is not None and len(few):
        at += [weighted[few], np.repeat(weighted[few[:1]], spare[1])]  # what fills up competes like the first
        weight += [own[few], np.zeros(spare[1], np.float32)]
        begin = len(free) + spare[0]
        among = scope.among(np.concatenate(at)[begin:], begin, device)
    return np.concatenate(at), np.concatenate(weight).astype(np.float32), row, among

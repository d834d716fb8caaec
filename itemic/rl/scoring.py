"""Log-probabilities of the choices in a block of groups, with gradients: each token of the forest is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from itemic.forest.build import TokenForest
from itemic.forest.head import OutputHead
from itemic.forest.rows import TokenRows
from itemic.forest.run import ROUND, NewRows, forest_hidden
from itemic.rl.groups import ANYTHING, GroupBlock, Groups
from itemic.sid.trie import Trie

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Legal:
    """What else might have come, for each place of a trie.

    Attributes:
        trie: of the items.
        normalize: ``vocab`` (any token), ``level`` (tokens at the same depth) or ``legal`` (the node's children).
    """

    trie: Trie
    normalize: str

    def of(self, groups: Groups) -> Legal | Sets:
        """What says it of some groups: their own sets, where they have any."""
        return self if groups.sets is None else Sets(groups.sets)

    @property
    def kinds(self) -> int:
        """How many different places there are."""
        return len(self.trie)

    @cached_property
    def tokens(self) -> Int64:
        """int64 ``[C]``, rising: all tokens of the trie."""
        return np.unique(self.trie.token[1:]).astype(np.int64)

    @cached_property
    def _levels(self) -> Bool:
        """bool ``[D, C]``: which tokens stand at each depth."""
        found = np.zeros((len(self.trie.levels), len(self.tokens)), bool)
        for depth, level in enumerate(self.trie.levels):
            found[depth, np.searchsorted(self.tokens, level)] = True
        return found

    def mask(self, nodes: Int64) -> Bool:
        """bool ``[m, C]``: which of :attr:`tokens` a token behind each node is one of."""
        if self.normalize == "level":
            return np.asarray(self._levels[self.trie.depth[nodes]])
        own, back = np.unique(nodes, return_inverse=True)
        tokens, _, offsets = self.trie.children(own)
        found = np.zeros((len(own), len(self.tokens)), bool)
        found[np.repeat(np.arange(len(own)), np.diff(offsets)), np.searchsorted(self.tokens, tokens)] = True
        return found[back]


@dataclass(frozen=True)
class Sets:
    """What else might have come, as rows of tokens.

    Attributes:
        sets: the tokens of each, all different.
    """

    sets: TokenRows

    normalize: ClassVar[str] = "legal"

    @property
    def kinds(self) -> int:
        """How many sets there are."""
        return len(self.sets)

    @cached_property
    def tokens(self) -> Int64:
        """int64 ``[C]``, rising: the tokens of all."""
        return np.unique(self.sets.tokens).astype(np.int64)

    def mask(self, nodes: Int64) -> Bool:
        """bool ``[m, C]``: which of :attr:`tokens` each set has."""
        own, back = np.unique(nodes, return_inverse=True)
        rows = self.sets.take(own)
        found = np.zeros((len(own), len(self.tokens)), bool)
        found[np.repeat(np.arange(len(own)), rows.lengths), np.searchsorted(self.tokens, rows.tokens)] = True
        return found[back]


@dataclass(frozen=True)
class Scored:
    """Choices of a block, graphs where gradients are on.

    Attributes:
        log_probs: float32 ``[T']``.
        entropy: float32 ``[T']``, of what each was chosen from, in nats; None where nobody asked.
        hidden: ``[U, d]``, the model's last hidden states that choices were made at, each once.
        back: int64 ``[T']``, which of these each choice was made at.
    """

    log_probs: Tensor
    entropy: Tensor | None
    hidden: Tensor
    back: Tensor


def choice_log_probs(
    lm: PreTrainedModel,
    block: GroupBlock,
    legal: Legal,
    *,
    new_rows: NewRows | None = None,
    chunk: int = 2048,
    backend: str | None = None,
) -> Tensor:
    """The log-probability of each choice of a block, float32 ``[T']``, see :func:`scored_choices`."""
    return scored_choices(lm, block, legal, new_rows=new_rows, chunk=chunk, backend=backend).log_probs


def scored_choices(
    lm: PreTrainedModel,
    block: GroupBlock,
    legal: Legal,
    *,
    entropy: bool = False,
    new_rows: NewRows | None = None,
    chunk: int = 2048,
    backend: str | None = None,
) -> Scored:
    """The log-probability of each choice of a block, and what it was chosen from.

    Choices that answers share are computed once. Call it inside :func:`itemic.forest.context.forest_attention`.

    Args:
        lm: the model.
        block: groups as a forest.
        legal: over what a probability is normalised.
        entropy: whether that of the distributions is wanted.
        new_rows: of the vocabulary these rows alone learn.
        chunk: rows of the head held at once; more of them are computed again for the gradient.
        backend: as in :func:`itemic.forest.run.forest_hidden`.
    """
    device, forest = lm.device, block.forest.padded(ROUND)
    # a place may be a step of free text in one answer, and one of an item in another
    among = legal.of(block.groups)
    kinds = among.kinds + 1
    key = block.place * kinds + block.groups.node[block.groups.choice] + 1
    own, back = np.unique(key, return_inverse=True)
    own, node = own // kinds, own % kinds - 1
    parents = forest.parent[own].astype(np.int64)
    asked = np.unique(parents)
    hidden = _hidden(lm, forest, asked, new_rows, backend)
    targets = forest.tokens[own].astype(np.int64)
    found = torch.zeros((0, 2 if entropy else 1), device=device) + 0.0 * hidden.sum()
    head = OutputHead.of(lm)
    free = (node == ANYTHING) | (among.normalize == "vocab")
    parts, order = [], []
    for some, whole in ((np.flatnonzero(free), True), (np.flatnonzero(~free), False)):
        if not len(some):
            continue
        at = hidden[torch.from_numpy(parents[some]).to(device)]
        if whole:
            weight, mask, goal = _whole(head.weight, new_rows), None, targets[some]
            bias = head.bias
        else:
            columns = torch.from_numpy(among.tokens).to(device)
            weight = _some(head.weight, columns, new_rows)
            mask = torch.from_numpy(among.mask(node[some])).to(device)
            goal = np.searchsorted(among.tokens, targets[some])
            bias = None if head.bias is None else head.bias[columns]
        goals = torch.from_numpy(goal).to(device)
        own_head = OutputHead(weight, bias, head.scale, head.cap)
        parts.append(_log_probs(own_head, at, goals, mask, chunk, entropy))
        order.append(some)
    if parts:
        place = np.empty(len(own), np.int64)
        place[np.concatenate(order)] = np.arange(len(own))
        found = torch.cat(parts)[torch.from_numpy(place[back]).to(device)]
    where = torch.from_numpy(np.searchsorted(asked, parents)[back]).to(device)
    return Scored(
        found[:, 0],
        found[:, 1] if entropy else None,
        hidden[torch.from_numpy(asked).to(device)],
        where,
    )


def choice_hidden(
    lm: PreTrainedModel, block: GroupBlock, *, new_rows: NewRows | None = None, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """The hidden states that choices were made at, and which each was made at, as :class:`Scored` has them."""
    forest = block.forest.padded(ROUND)
    asked, back = np.unique(forest.parent[block.place].astype(np.int64), return_inverse=True)
    hidden = _hidden(lm, forest, asked, new_rows, backend)
    # an engine that meets in every module has its gradients where there is nothing to learn as well
    own = hidden[torch.from_numpy(asked).to(lm.device)] + 0.0 * hidden.sum()
    return own, torch.from_numpy(back).to(lm.device)


def _hidden(
    lm: PreTrainedModel, forest: TokenForest, asked: Int64, new_rows: NewRows | None, backend: str | None
) -> Tensor:
    embeds = None
    if new_rows is not None:
        embeds = new_rows.embed(lm, torch.from_numpy(forest.tokens.astype(np.int64)).to(lm.device))
    return forest_hidden(lm, forest, embeds=embeds, backend=backend, wanted=_rounded(asked, len(forest)))


def _rounded(parents: Int64, total: int) -> Int64 | None:
    """The tokens whose hidden states are asked for, and some more so that there is a multiple of :data:`ROUND`."""
    if not len(parents):
        return None
    asked = np.zeros(total, bool)
    asked[parents] = True
    asked[np.flatnonzero(~asked)[: -int(asked.sum()) % ROUND]] = True
    return None if asked.all() else np.flatnonzero(asked)


def _whole(weight: Tensor, rows: NewRows | None) -> Tensor:
    if rows is None:
        return weight
    stop = rows.start + len(rows.head)
    return torch.cat([weight[: rows.start].detach(), rows.head.to(weight.dtype), weight[stop:].detach()])


def _some(weight: Tensor, tokens: Tensor, rows: NewRows | None) -> Tensor:
    if rows is None:
        return weight.index_select(0, tokens)
    inside = (tokens >= rows.start) & (tokens < rows.start + len(rows.head))
    own = rows.head.index_select(0, (tokens - rows.start).clamp(0, len(rows.head) - 1))
    return torch.where(inside[:, None], own.to(weight.dtype), weight.detach().index_select(0, tokens))


def _log_probs(
    head: OutputHead, hidden: Tensor, goals: Tensor, mask: Tensor | None, chunk: int, entropy: bool
) -> Tensor:
    """``[n, 1]``, of each row's goal among the columns that the mask lets pass, some rows at a time; with the entropy
    behind it ``[n, 2]``."""
    found = []
    for at in range(0, len(hidden), chunk):
        part = slice(at, at + chunk)
        own = None if mask is None else mask[part]
        if len(hidden) <= chunk or not torch.is_grad_enabled():
            found.append(_of_chunk(head.weight, head.bias, head, hidden[part], goals[part], own, entropy))
        else:  # logits are computed again for the gradient
            found.append(
                checkpoint(
                    _of_chunk,
                    head.weight,
                    head.bias,
                    head,
                    hidden[part],
                    goals[part],
                    own,
                    entropy,
                    use_reentrant=False,
                )
            )
    return torch.cat(found)


def _of_chunk(
    weight: Tensor,
    bias: Tensor | None,
    head: OutputHead,
    hidden: Tensor,
    goals: Tensor,
    mask: Tensor | None,
    entropy: bool,
) -> Tensor:
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * head.scale
    if head.cap is not None:
        logits = torch.tanh(logits / head.cap) * head.cap
    chosen = logits.gather(1, goals[:, None])
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    total = logits.logsumexp(-1, keepdim=True)
    if not entropy:
        return chosen - total
    each = logits - total
    each = each if mask is None else each.masked_fill(~mask, 0.0)
    chance = each.exp() if mask is None else torch.where(mask, each.exp(), 0.0)
    return torch.cat([chosen - total, -(chance * each).sum(-1, keepdim=True)], dim=1)

"""Log-probabilities of the choices in a block of groups, with gradients: each token of the forest is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from itemic.forest.head import OutputHead
from itemic.forest.run import ROUND, NewRows, forest_hidden
from itemic.rl.groups import ANYTHING, GroupBlock
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


def choice_log_probs(
    lm: PreTrainedModel,
    block: GroupBlock,
    legal: Legal,
    *,
    new_rows: NewRows | None = None,
    chunk: int = 2048,
    backend: str | None = None,
) -> Tensor:
    """The log-probability of each choice of a block, float32 ``[T']``; a graph where gradients are on.

    Choices that answers share are computed once. Call it inside :func:`itemic.forest.context.forest_attention`.

    Args:
        lm: the model.
        block: groups as a forest.
        legal: over what a probability is normalised.
        new_rows: of the vocabulary these rows alone learn.
        chunk: rows of the head held at once; more of them are computed again for the gradient.
        backend: as in :func:`itemic.forest.run.forest_hidden`.
    """
    device, forest = lm.device, block.forest.padded(ROUND)
    # a place may be a step of free text in one answer, and one of an item in another
    kinds = len(legal.trie) + 1
    key = block.place * kinds + block.groups.node[block.groups.choice] + 1
    own, back = np.unique(key, return_inverse=True)
    own, node = own // kinds, own % kinds - 1
    parents = forest.parent[own].astype(np.int64)
    asked = np.unique(parents)
    embeds = None
    if new_rows is not None:
        embeds = new_rows.embed(lm, torch.from_numpy(forest.tokens.astype(np.int64)).to(device))
    hidden = forest_hidden(lm, forest, embeds=embeds, backend=backend, wanted=_rounded(asked, len(forest)))
    targets = forest.tokens[own].astype(np.int64)
    found = torch.zeros(0, device=device) + 0.0 * hidden.sum()
    head = OutputHead.of(lm)
    free = (node == ANYTHING) | (legal.normalize == "vocab")
    parts, order = [], []
    for some, whole in ((np.flatnonzero(free), True), (np.flatnonzero(~free), False)):
        if not len(some):
            continue
        at = hidden[torch.from_numpy(parents[some]).to(device)]
        if whole:
            weight, mask, goal = _whole(head.weight, new_rows), None, targets[some]
            bias = head.bias
        else:
            columns = torch.from_numpy(legal.tokens).to(device)
            weight = _some(head.weight, columns, new_rows)
            mask = torch.from_numpy(legal.mask(node[some])).to(device)
            goal = np.searchsorted(legal.tokens, targets[some])
            bias = None if head.bias is None else head.bias[columns]
        goals = torch.from_numpy(goal).to(device)
        parts.append(_log_probs(OutputHead(weight, bias, head.scale, head.cap), at, goals, mask, chunk))
        order.append(some)
    if parts:
        place = np.empty(len(own), np.int64)
        place[np.concatenate(order)] = np.arange(len(own))
        found = torch.cat(parts)[torch.from_numpy(place[back]).to(device)]
    return found


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


def _log_probs(head: OutputHead, hidden: Tensor, goals: Tensor, mask: Tensor | None, chunk: int) -> Tensor:
    """Of each row's goal among the columns that the mask lets pass, some rows at a time."""
    found = []
    for at in range(0, len(hidden), chunk):
        part = slice(at, at + chunk)
        own = None if mask is None else mask[part]
        if len(hidden) <= chunk or not torch.is_grad_enabled():
            found.append(_of_chunk(head.weight, head.bias, head, hidden[part], goals[part], own))
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
                    use_reentrant=False,
                )
            )
    return torch.cat(found)


def _of_chunk(
    weight: Tensor, bias: Tensor | None, head: OutputHead, hidden: Tensor, goals: Tensor, mask: Tensor | None
) -> Tensor:
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * head.scale
    if head.cap is not None:
        logits = torch.tanh(logits / head.cap) * head.cap
    chosen = logits.gather(1, goals[:, None])[:, 0]
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return chosen - logits.logsumexp(-1)

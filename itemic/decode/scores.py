"""Log-probabilities of the legal next tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.forest.head import OutputHead

NORMALIZE = ("vocab", "level", "legal")
_CELLS = 1 << 24  # logits of the whole vocabulary held at once

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


class Head:
    """A model's head, asked for a few tokens at a time.

    Args:
        output: with ``V`` tokens.
        normalize: over what a token's probability is normalised: ``vocab`` (all of V, padding rows too, as ``generate``
            does), ``level`` (every token that some item has at this depth) or ``legal`` (the children of the node).
    """

    def __init__(self, output: OutputHead, normalize: str) -> None:
        self.output, self.normalize = output, normalize

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self.output.weight)

    def log_probs(self, hidden: Tensor, level: Int32, tokens: Int32, leaf: Int64, offsets: Int64) -> Float32:
        """The log-probability of each candidate, float32 ``[C]``.

        Args:
            hidden: ``[N, d]``, what each leaf's next token is predicted from.
            level: the distinct tokens at this depth of the trie, rising.
            tokens: int32 ``[C]``, the candidates' tokens, all of them in ``level``.
            leaf: int64 ``[C]``, which leaf each candidate belongs to, rising.
            offsets: int64 ``[N + 1]``, the candidates of each leaf.
        """
        at = torch.from_numpy(leaf).to(hidden.device)
        if self.normalize == "vocab":
            chosen = self._of_vocabulary(
                hidden, torch.from_numpy(tokens.astype(np.int64)).to(at.device), at, offsets
            )
            return chosen.cpu().numpy().astype(np.float32)
        wanted = level if self.normalize == "level" else np.unique(tokens)
        logits = self._logits(hidden, wanted)
        chosen = logits[at, torch.from_numpy(np.searchsorted(wanted, tokens)).to(at.device)]
        total = logits.logsumexp(-1) if self.normalize == "level" else _segments(chosen, at, len(hidden))
        return (chosen - total[at]).cpu().numpy().astype(np.float32)

    def _logits(self, hidden: Tensor, tokens: Int32) -> Tensor:
        rows = torch.from_numpy(tokens.astype(np.int64)).to(hidden.device)
        return self.output.logits(hidden, rows)

    def _of_vocabulary(self, hidden: Tensor, tokens: Tensor, at: Tensor, offsets: Int64) -> Tensor:
        """Log-probabilities over the whole vocabulary, some leaves at a time."""
        step = max(1, _CELLS // self.size)
        parts = []
        for first in range(0, len(hidden), step):
            own = slice(int(offsets[first]), int(offsets[min(first + step, len(hidden))]))
            logits = self.output.logits(hidden[first : first + step])
            rows = at[own] - first
            chosen = logits[rows, tokens[own]]
            top = logits.amax(-1, keepdim=True)
            total = logits.sub_(top).exp_().sum(-1).log_().add_(top[:, 0])  # in place: no second copy
            parts.append(chosen - total[rows])
        return torch.cat(parts)


def _segments(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Log-sum-exp of the values of each segment, ``[count]``; -inf for an empty one."""
    top = values.new_full((count,), float("-inf")).scatter_reduce(0, segment, values, "amax")
    total = values.new_zeros(count).index_add(0, segment, (values - top[segment]).exp())
    return top + total.log()

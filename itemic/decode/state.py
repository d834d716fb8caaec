"""What a search has computed so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from itemic.decode.attention import KeyValue, PromptPass
from itemic.decode.plan import Excluded
from itemic.forest.rows import TokenRows

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Beams:
    """The living beams of a batch, ordered by request.

    ``request``, ``node`` int64 ``[N]``; ``score`` float32 ``[N]``; ``path`` int64 ``[N, t]``, where the keys of the
    beam's tokens are; ``hidden`` ``[N, d]``, what its next token is predicted from.
    """

    request: Int64
    node: Int64
    score: Float32
    path: Int64
    hidden: Tensor

    def take(self, rows: Int64) -> Beams:
        hidden = self.hidden.index_select(0, torch.from_numpy(rows).to(self.hidden.device))
        return Beams(self.request[rows], self.node[rows], self.score[rows], self.path[rows], hidden)

    @classmethod
    def joined(cls, parts: Sequence[Beams]) -> Beams:
        """Beams of the same depth, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.request for part in parts]),
            np.concatenate([part.node for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.path for part in parts]),
            torch.cat([part.hidden for part in parts]),
        )


@dataclass
class Searched:
    """What a batch has computed so far.

    Attributes:
        prompts: the batch's, without the template.
        skip: tokens of the template.
        banned: what is excluded.
        step: holds the keys of the prompts.
        leaves: for each layer, the keys of all leaves, in pieces.
        used: how many leaves there are.
        trail: the beams that went on, from the root down.
        scored: request, node and score of all continuations of each of these.
        done: the same of every end that was reached, in pieces.
    """

    prompts: TokenRows
    skip: int
    banned: Excluded | None
    step: PromptPass
    leaves: list[list[KeyValue]]
    used: int
    trail: list[Beams]
    scored: list[tuple[Int64, Int64, Float32]]
    done: list[tuple[Int64, Int64, Float32]]

    @property
    def ends(self) -> tuple[Int64, Int64, Float32]:
        """Request, node and score of every end that was reached, ``[C]`` each."""
        if not self.done:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        request, node, score = zip(*self.done, strict=True)
        return np.concatenate(request), np.concatenate(node), np.concatenate(score)

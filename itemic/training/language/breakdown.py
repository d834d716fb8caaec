"""The loss by kind of token, by level of the semantic ID and by source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from itemic.forest.build import TokenForest
from itemic.forest.rows import Float32, Int64
from itemic.sid.index import ItemIndex
from itemic.sid.names import ItemNames

ITEMIC = "itemic"


@dataclass(frozen=True)
class TokenKinds:
    """What each token of a vocabulary is.

    Attributes:
        names: ``text``, ``level 1`` to ``level L``, and ``frame`` for what stands before and after the codes. Where
            items go by titles, all tokens are text.
        of: int64 ``[V]``, numbers into ``names``.
    """

    names: tuple[str, ...]
    of: Int64

    @classmethod
    def of_index(cls, index: ItemNames, first: int, vocabulary: int) -> TokenKinds:
        """Kinds in a vocabulary that has the index's tokens from id ``first`` on."""
        if not isinstance(index, ItemIndex):
            return cls(("text",), np.zeros(vocabulary, np.int64))
        names = ("text", *(f"level {level + 1}" for level in range(index.levels)), "frame")
        kinds = np.zeros(vocabulary, np.int64)
        kinds[first : first + len(index.tokens)] = len(names) - 1
        codes = np.repeat(np.arange(index.levels) + 1, index.sizes)
        kinds[first : first + len(codes)] = codes
        return cls(names, kinds)


def part_names(kinds: TokenKinds | None, sources: Sequence[str]) -> tuple[str, ...]:
    """Every part that there may be, as the log calls them."""
    by_kind = () if kinds is None else (*kinds.names, ITEMIC)
    return tuple(f"loss/{name}" for name in (*by_kind, *(f"source {name}" for name in sources)))


def loss_parts(
    forest: TokenForest, losses: Tensor, kinds: TokenKinds | None, sources: Sequence[str]
) -> dict[str, tuple[Tensor, float]]:
    """A block's sums of losses and of weights.

    Args:
        forest: the block, whose ``shares`` tell its sources.
        losses: ``[n]``, those of its weighted tokens, one by one.
        kinds: what each token is; None for no parts by token.
        sources: names of the rows' labels.

    Returns:
        ``(sum, weight)`` by the names that :func:`part_names` gives; sums are float64 scalars.
    """
    nodes = np.flatnonzero(forest.weight)
    weight = forest.weight[nodes]
    parts: dict[str, Float32] = {}
    if kinds is not None:
        own = kinds.of[forest.tokens[nodes]]
        parts = {name: weight * (own == number) for number, name in enumerate(kinds.names)}
        parts[ITEMIC] = weight * (own > 0)
    if forest.shares is not None:
        shares = zip(sources, forest.shares[:, nodes], strict=True)
        parts |= {f"source {name}": share for name, share in shares}
    if not parts:
        return {}
    table = torch.from_numpy(np.stack(list(parts.values())).astype(np.float32)).to(losses.device)
    sums = (table * losses.float()).sum(1, dtype=torch.float64)
    weights = table.sum(1, dtype=torch.float64).tolist()
    return {f"loss/{name}": (each, size) for name, each, size in zip(parts, sums, weights, strict=True)}

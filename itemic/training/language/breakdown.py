"""The loss by kind of token, by level of the semantic ID and by source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from itemic.forest.build import TokenForest
from itemic.forest.rows import Float32, Int64
from itemic.sid.index import ItemIndex
from itemic.sid.names import ItemNames

ITEMIC = "itemic"
Total = Callable[[list[float]], list[float]]


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


@dataclass
class LossParts:
    """Sums of losses and weights since the last log line.

    Attributes:
        kinds: what each token is; None for no parts by token.
        sources: names of the rows' labels; with a single one there are no parts by source.
    """

    kinds: TokenKinds | None
    sources: tuple[str, ...]
    sums: dict[str, Float32] = field(default_factory=dict)  # name → (loss, weight)

    def add(self, forest: TokenForest, found: Tensor) -> None:
        """Count a block and the losses of its weighted tokens, one by one."""
        nodes = np.flatnonzero(forest.weight)
        losses, weight = found.float().cpu().numpy(), forest.weight[nodes]
        if self.kinds is not None:
            kinds = self.kinds.of[forest.tokens[nodes]]
            for number, name in enumerate(self.kinds.names):
                self._add(name, losses, weight * (kinds == number))
            self._add(ITEMIC, losses, weight * (kinds > 0))
        if forest.shares is not None:
            for name, share in zip(self.sources, forest.shares[:, nodes], strict=True):
                self._add(f"source {name}", losses, share)

    def _add(self, name: str, losses: Float32, weight: Float32) -> None:
        total = np.array([(losses * weight).sum(dtype=np.float64), weight.sum(dtype=np.float64)])
        self.sums[name] = self.sums.get(name, np.zeros(2)) + total

    @property
    def names(self) -> list[str]:
        """Every part that there may be, in the same order on every rank."""
        kinds = [] if self.kinds is None else [*self.kinds.names, ITEMIC]
        return [*kinds, *(f"source {name}" for name in self.sources)]

    def numbers(self, total: Total = list) -> dict[str, float]:
        """Mean losses as ``loss/<name>``, of what there was; begins anew. ``total`` sums over the ranks."""
        none = np.zeros(2)
        sums = total([float(each) for name in self.names for each in self.sums.get(name, none)])
        self.sums = {}
        pairs = zip(self.names, sums[0::2], sums[1::2], strict=True)
        return {f"loss/{name}": loss / weight for name, loss, weight in pairs if weight > 0}

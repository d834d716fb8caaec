"""The loss of the next token on forests, as an objective of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from transformers import PreTrainedModel

from itemic.forest.build import TokenForest, chain_forest
from itemic.forest.rows import Float32, TokenRows
from itemic.forest.run import forest_loss
from itemic.sid.trie import Trie
from itemic.training.language.breakdown import TokenKinds, loss_parts, part_names
from itemic.training.language.learning import Learning
from itemic.training.language.objective import LanguageObjective
from itemic.training.language.scope import Mentions, item_scope, named_again
from itemic.training.language.stage import NextTokenSettings, Stage
from itemic.training.objective import Cost
from itemic.training.settings import EngineSettings
from itemic.training.steps import Sizes

NOTHING: TokenForest = chain_forest(TokenRows.of([[0]], [[0.0]]))


class NextToken(LanguageObjective):
    """The weighted cross-entropy of each token of a forest, predicted from its parent, in nats.

    Args:
        lm: the model.
        learns: which of its weights learn, as :func:`itemic.training.language.learning.learning` gives them; None for
            all.
        kinds: what each token is, for losses by kind; None reports none.
        sources: names of the conversations' sources, for losses by source; a single one reports none.
        settings: label smoothing, dropout, scope and unlikelihood; the rest of it is the data's.
        engine: how it computes; precision is the loop's.
        block_tokens: forest tokens of a full block, for the log.
        items: names of the items, for ``settings.scope`` and ``settings.unlikelihood``.
    """

    totals = ("tokens", "row_tokens", "targets")

    def __init__(
        self,
        lm: PreTrainedModel,
        learns: Learning | None = None,
        *,
        kinds: TokenKinds | None = None,
        sources: Sequence[str] = (),
        settings: NextTokenSettings | None = None,
        engine: EngineSettings | None = None,
        block_tokens: int = 4096,
        items: Trie | None = None,
    ) -> None:
        told = settings or NextTokenSettings()
        super().__init__(lm, learns, dropout=told.dropout, engine=engine)
        self.settings = told
        self.kinds, self.sources = kinds, tuple(sources)
        self.block_tokens, self.items = block_tokens, items
        self.names = part_names(kinds, self.sources)

    @classmethod
    def of(
        cls,
        lm: PreTrainedModel,
        stage: Stage,
        learns: Learning | None = None,
        *,
        kinds: TokenKinds | None = None,
        sources: Sequence[str] = (),
        items: Trie | None = None,
    ) -> Self:
        """As a stage says.

        Raises:
            ValueError: ``stage.train.what`` and what learns don't fit each other.
        """
        learns = learns or Learning.all_of(lm)
        rows = learns.new_rows is not None
        every = any(weight is lm.get_input_embeddings().weight for weight in learns.named.values())
        nothing = stage.train.what == "embeddings" and not rows
        if (every or nothing) if stage.learns_rows else rows:
            raise ValueError(f"train {stage.train.what!r} and what learns don't fit each other")
        return cls(
            lm,
            learns,
            kinds=kinds,
            sources=sources,
            settings=stage.objective,
            engine=stage.engine,
            block_tokens=stage.data.planned_block,
            items=items,
        )

    def forward(self, block: TokenForest) -> Cost:
        """The cost of a forest, inside :meth:`stepping`."""
        mentions = None if self.items is None else Mentions.of(block, self.items)
        scope = unwanted = None
        if self.items is not None and mentions is not None:
            factor = self._unlikelihood(block)
            scope = item_scope(mentions, self.items) if self.settings.scope else None
            unwanted = None if factor is None else named_again(block, mentions, self.items, factor)
        found = forest_loss(
            self.lm,
            block,
            new_rows=self._rows(),
            chunk=self.engine.minibatch_size,
            label_smoothing=self.settings.label_smoothing,
            scope=scope,
            unwanted=unwanted,
        )
        return Cost(found.total, found.weight, loss_parts(block, found.losses, self.kinds, self.sources))

    def _unlikelihood(self, block: TokenForest) -> Float32 | None:
        """What naming an item again counts in the place of each token, float32 ``[T]``; None where it never does."""
        told = self.settings.unlikelihood
        if told is None:
            return None
        each = np.array([told.sources.get(name, told.weight) for name in self.sources], np.float32)
        if block.shares is None:
            return np.full(len(block), each[0] if len(each) else told.weight, np.float32) * (block.weight > 0)
        own: Float32 = each @ block.shares
        factor: Float32 = np.divide(own, block.weight, out=np.zeros_like(own), where=block.weight > 0)
        return factor

    def nothing(self) -> TokenForest:
        return NOTHING

    def rates(self, sizes: Sizes, seconds: float) -> dict[str, float]:
        """Tokens a second with and without sharing, how full blocks are, and the share of tokens with a loss."""
        tokens, rows, targets = (sizes.counts.get(name, 0) for name in self.totals)
        return {
            "tokens_per_second": round(tokens / seconds),
            "row_tokens_per_second": round(rows / seconds),
            "block_fill": round(tokens / max(sizes.blocks * self.block_tokens, 1), 4),
            "target_share": round(targets / max(tokens, 1), 4),
        }

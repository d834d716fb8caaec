"""The loss of the next token on forests, as an objective of the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from itemic.forest.build import TokenForest, chain_forest
from itemic.forest.context import forest_attention
from itemic.forest.rows import TokenRows
from itemic.forest.run import NewRows, forest_loss
from itemic.forest.support import agree_on, check_copy, check_supported
from itemic.model.layers import layers_of
from itemic.model.stored import stored_of
from itemic.training.language.breakdown import TokenKinds, loss_parts, part_names
from itemic.training.language.dropout import residual_dropout, without_own_dropout
from itemic.training.language.engine import compiled, lean_memory
from itemic.training.language.flops import ModelFlops
from itemic.training.language.lean import lean_norms
from itemic.training.language.learning import Learning
from itemic.training.language.new_rows import settle
from itemic.training.language.stage import NextTokenSettings, Stage
from itemic.training.objective import Cost, Objective
from itemic.training.optimizer import Named
from itemic.training.ranks import Ranks
from itemic.training.settings import EngineSettings
from itemic.training.steps import Sizes

NOTHING: TokenForest = chain_forest(TokenRows.of([[0]], [[0.0]]))


class NextToken(Objective):
    """The weighted cross-entropy of each token of a forest, predicted from its parent, in nats.

    A model and its loss are one module: the embeddings and the head, which the loss reads, are there when it is
    computed.

    Args:
        lm: the model.
        learns: which of its weights learn, as :func:`itemic.training.language.learning.learning` gives them; None for
            all.
        kinds: what each token is, for losses by kind; None reports none.
        sources: names of the conversations' sources, for losses by source; a single one reports none.
        settings: label smoothing and dropout; the rest of it is the data's.
        engine: how it computes; precision is the loop's.
        block_tokens: forest tokens of a full block, for the log.
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
    ) -> None:
        super().__init__()
        learns = learns or Learning.all_of(lm)
        self.lm, self.kinds, self.sources = lm, kinds, tuple(sources)
        self.settings, self.engine = settings or NextTokenSettings(), engine or EngineSettings()
        self.block_tokens = block_tokens
        self.names = part_names(kinds, self.sources)
        self._learns, self._decays = tuple(learns.named), frozenset(learns.decay)
        rows = learns.new_rows
        self.start = None if rows is None else rows.start
        self.input_rows = None if rows is None else rows.input
        self.output_rows = None if rows is None else rows.output
        self._flops = ModelFlops.of(lm)

    @classmethod
    def of(
        cls,
        lm: PreTrainedModel,
        stage: Stage,
        learns: Learning | None = None,
        *,
        kinds: TokenKinds | None = None,
        sources: Sequence[str] = (),
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
        )

    def forward(self, block: TokenForest) -> Cost:
        """The cost of a forest, inside :meth:`stepping`."""
        found = forest_loss(
            self.lm,
            block,
            new_rows=self._rows(),
            chunk=self.engine.minibatch_size,
            label_smoothing=self.settings.label_smoothing,
        )
        return Cost(found.total, found.weight, loss_parts(block, found.losses, self.kinds, self.sources))

    def nothing(self) -> TokenForest:
        return NOTHING

    def learning(self) -> Named:
        own = {"input_rows": self.input_rows, "output_rows": self.output_rows}
        named = dict(self.lm.named_parameters()) | {k: row for k, row in own.items() if row is not None}
        return {name: named[name] for name in self._learns}

    def decay(self) -> set[str]:
        return set(self._decays)

    def shards(self) -> Sequence[nn.Module]:
        return list(layers_of(self.lm)[1])

    def outside(self) -> Sequence[nn.Parameter]:
        """The embeddings' and the head's."""
        lm: Any = self.lm
        used = [lm.get_input_embeddings().weight, *lm.get_output_embeddings().parameters()]
        return list({id(weight): weight for weight in used}.values())

    def readable(self) -> bool:
        return stored_of(self.lm) is not None

    def read(self, name: str, begin: int, stop: int) -> Tensor:
        """From the model's folder; adapters, and rows that learn, are never on the meta device with it."""
        stored = stored_of(self.lm)
        assert stored is not None
        return stored.read(name.removeprefix("lm.").replace(".base_layer.", "."), begin, stop)

    def prove(self) -> None:
        check_supported(self.lm)

    def agree(self, ranks: Ranks) -> None:
        """How the model is reached by a forest, which a small forward pass tells."""
        agree_on(self.lm, ranks.share)

    def apart(self) -> Self:
        """A copy with weights of its own; the rows that learn no longer share their storage with the embeddings."""
        found = super().apart()
        check_copy(found.lm, self.lm)
        for name in ("input_rows", "output_rows"):
            row = getattr(self, name)
            setattr(found, name, row if row is None else nn.Parameter(row.detach().clone()))
        return found

    def empty(self) -> Self:
        found = super().empty()
        if not self.readable():  # else it is proved with its shards
            check_copy(found.lm, self.lm)
        return found

    def settle(self) -> None:
        if (rows := self._rows()) is not None:
            settle(self.lm, rows)

    def _rows(self) -> NewRows | None:
        if self.start is None or self.input_rows is None:
            return None
        return NewRows(self.start, self.input_rows, self.output_rows)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside the block a base's own dropout is off; see :mod:`itemic.training.language.dropout`."""
        with ExitStack() as stack:
            for context in (
                without_own_dropout(self.lm),
                residual_dropout(self.lm, self.settings.dropout, embeddings=self.start is None),
                lean_memory(self.lm, self.engine.gradient_checkpointing),
                lean_norms(self.lm, not self.engine.compile),
                compiled(self.lm, self.engine.compile),
            ):
                stack.enter_context(context)
            yield

    def stepping(self) -> AbstractContextManager[Any]:
        return forest_attention(self.lm)

    def flops(self, sizes: Sizes) -> float:
        counts = sizes.counts
        return self._flops(counts["tokens"], counts["parents"], counts["targets"], counts["pairs"])

    def rates(self, sizes: Sizes, seconds: float) -> dict[str, float]:
        """Tokens a second with and without sharing, how full blocks are, and the share of tokens with a loss."""
        tokens, rows, targets = (sizes.counts.get(name, 0) for name in self.totals)
        return {
            "tokens_per_second": round(tokens / seconds),
            "row_tokens_per_second": round(rows / seconds),
            "block_fill": round(tokens / max(sizes.blocks * self.block_tokens, 1), 4),
            "target_share": round(targets / max(tokens, 1), 4),
        }

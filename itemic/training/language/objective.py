"""What objectives of a language model share: the model, what of it learns, and how it computes over forests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from itemic.forest.context import forest_attention
from itemic.forest.run import NewRows
from itemic.forest.support import agree_on, check_copy, check_supported
from itemic.model.layers import layers_of
from itemic.model.stored import stored_of
from itemic.training.language.dropout import residual_dropout, without_own_dropout
from itemic.training.language.engine import compiled, lean_memory
from itemic.training.language.flops import ModelFlops
from itemic.training.language.lean import lean_norms
from itemic.training.language.learning import Learning
from itemic.training.language.new_rows import settle
from itemic.training.objective import Objective
from itemic.training.optimizer import Named
from itemic.training.ranks import Ranks
from itemic.training.settings import EngineSettings
from itemic.training.steps import Sizes


class LanguageObjective(Objective):
    """A model and its loss as one module: the embeddings and the head, which the loss reads, are there when it is
    computed.

    Args:
        lm: the model.
        learns: which of its weights learn, as :func:`itemic.training.language.learning.learning` gives them; None for
            all.
        dropout: share of the embeddings and of the layers' outputs that is zeroed in steps.
        engine: how it computes; precision is the loop's.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        learns: Learning | None = None,
        *,
        dropout: float = 0.0,
        engine: EngineSettings | None = None,
    ) -> None:
        super().__init__()
        learns = learns or Learning.all_of(lm)
        self.lm, self.dropout, self.engine = lm, dropout, engine or EngineSettings()
        self._learns, self._decays = tuple(learns.named), frozenset(learns.decay)
        rows = learns.new_rows
        self.start = None if rows is None else rows.start
        self.input_rows = None if rows is None else rows.input
        self.output_rows = None if rows is None else rows.output
        self._flops = ModelFlops.of(lm)

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
                residual_dropout(self.lm, self.dropout, embeddings=self.start is None),
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

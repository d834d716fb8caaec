"""How counts are weighed against a model: a small table, importable in an instant."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from itemic.settings import Count, Positive, settings


@settings(frozen=True)
class MemorySettings:
    """How the counts of training are weighed against the model, see :class:`itemic.evaluate.memory.Memory`.

    Attributes:
        window: how far apart two items may stand to count as a transition.
        prior: evidence, in transitions, that the model counts for.
        decay: weight of each further step back in the history.
        last: how many of the most recent items take part.
    """

    window: Count = 3
    prior: Positive = 20.0
    decay: Annotated[Positive, Field(le=1)] = 0.7
    last: Count = 10

    @property
    def words(self) -> str:
        return f"window {self.window}, prior {self.prior:g}, decay {self.decay:g}, last {self.last}"

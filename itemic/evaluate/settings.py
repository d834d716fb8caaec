"""How rankers are put together: small tables, importable in an instant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from itemic.settings import Count, Listed, NotNegative, Positive, Text, settings, wrong
from itemic.text import settings_repr


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


@settings(frozen=True, repr=False)
class BlendSettings:
    """Which rankers are mixed by their probabilities, see :class:`itemic.evaluate.blend.Blend`.

    Attributes:
        rankers: ``model`` (the trained one), ``teacher`` (where the recipe has one) and names of baselines; None for
            those whose ``weights`` are given, else for model, teacher and ridge.
        weights: of each of them, not negative; None chooses, in tenths, by NDCG@10 of at most 2,000 requests of
            the validation split.
    """

    rankers: Annotated[tuple[Text, ...], Listed, Field(min_length=1)] | None = None
    weights: dict[Text, NotNegative] | None = None

    __repr__ = settings_repr

    @field_validator("rankers")
    @classmethod
    def _once(cls, rankers: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = sorted({name for name in rankers or () if (rankers or ()).count(name) > 1})
        if twice:
            raise wrong(f"names {', '.join(twice)} more than once", rankers)
        return rankers

    @field_validator("weights")
    @classmethod
    def _each(cls, weights: dict[str, float] | None, info: ValidationInfo) -> dict[str, float] | None:
        if weights is None:
            return None
        rankers = info.data.get("rankers")
        if not any(weights.values()):
            raise wrong("needs a weight above 0", weights)
        if rankers is not None and set(rankers) != set(weights):
            raise wrong(f"is of {', '.join(weights)}, and rankers of {', '.join(rankers)}", weights)
        return weights

    def named(self, teacher: bool) -> tuple[str, ...]:
        """The rankers by name, in a recipe that has a ``teacher`` or none."""
        if self.rankers is not None:
            return self.rankers
        if self.weights is not None:
            return tuple(self.weights)
        return ("model", *(["teacher"] if teacher else []), "ridge")


@settings(frozen=True, repr=False)
class ThinkingSettings:
    """Thoughts that the model writes before it recommends, see :class:`itemic.evaluate.thinking.ThinkingRanker`.

    Attributes:
        count: thoughts of each request.
        max_tokens: of a thought. One that hasn't ended by then is cut off, closed and counted.
        temperature: of their drawing.
        top_p: of their drawing: the smallest set of tokens with this probability.
        merge: what an item's score is over the thoughts: the logarithm of its mean probability (``mass``), or the
            highest (``best``).
    """

    count: Count = 4
    max_tokens: Count = 64
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    merge: Literal["mass", "best"] = "mass"

    __repr__ = settings_repr

    @property
    def words(self) -> str:
        many = f"{self.count} thoughts" if self.count > 1 else "1 thought"
        drawn = f"temperature {self.temperature:g}, top-p {self.top_p:g}"
        merged = f", merged by {self.merge}" if self.count > 1 else ""
        return f"{many} of up to {self.max_tokens} tokens a request ({drawn}){merged}"

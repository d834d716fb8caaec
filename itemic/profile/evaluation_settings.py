"""How profiles are tested: a small table, importable without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from itemic.profile.turn_settings import Drawing
from itemic.settings import Count, Listed, Switch, Text, settings, wrong
from itemic.text import settings_repr

Told = Literal["titles", "facts", "paper"]
Rival = Literal["transitions", "popularity", "random"]
Level = Annotated[float, Field(strict=True, gt=0, lt=1)]
WISH = "This person is looking for {}."


@settings(frozen=True, repr=False)
class ProfileTests:
    """What is asked of profiles.

    Attributes:
        users: sessions of the split that are asked, chosen once by the seed, the same for everybody; None for all.
        k: the cuts of the metrics.
        drawing: how profiles are drawn: the first of a session's is what it is answered by, the second is held against
            it for consistency. What doesn't end counts as a failure. None for two of each as usual; in a run, as the
            writer's rollouts draw.
        histories: what the embedder reads in the place of profiles: ``titles`` of the history, ``facts`` (title, brand,
            category, price, rating), ``paper`` (all that LangPTune's prompt has).
        baselines: who else answers: ``transitions``, ``popularity``, ``random``.
        judge: whether profiles are judged beside what they find.
        places: how many places of a list count for steerability and consistency.
        wish: the sentence that is put in front of a profile to steer it, with ``{}`` for a category.
        items: a category is asked for where so many items that can be found have it.
        level: of the intervals.
        batch_size: texts per forward pass of the embedder.
    """

    users: Count | None = 1000
    k: Annotated[tuple[Count, ...], Listed] = (5, 10, 20)
    drawing: Drawing | None = None
    histories: Annotated[tuple[Told, ...], Listed] = ("titles", "paper")
    baselines: Annotated[tuple[Rival, ...], Listed] = ("transitions", "popularity", "random")
    judge: Switch = True
    places: Count = 10
    wish: Text = WISH
    items: Count = 10
    level: Level = 0.95
    batch_size: Count = 32

    __repr__ = settings_repr

    @field_validator("k")
    @classmethod
    def _rising(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if not k or list(k) != sorted(set(k)):
            raise wrong(f"is {list(k)}; give rising cuts such as [5, 10, 20]", k)
        return k

    @field_validator("histories", "baselines")
    @classmethod
    def _once(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise wrong(f"is {list(names)}; name each once", names)
        return names

    @field_validator("wish")
    @classmethod
    def _has_a_place(cls, wish: str) -> str:
        if wish.count("{}") != 1 or wish.replace("{}", "").strip("{} ") != wish.replace("{}", "").strip():
            raise wrong(f"is {wish!r}; write {{}} once, where the category's name is to stand", wish)
        return wish

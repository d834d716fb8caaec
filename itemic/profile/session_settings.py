"""Which sessions are made of a dataset: a small table, importable in an instant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from itemic.settings import Amount, Count, Listed, Share, Switch, settings, wrong
from itemic.text import settings_repr


@settings(frozen=True, repr=False)
class SessionSettings:
    """Which sessions are made of a dataset.

    Attributes:
        inputs: how many items a session shows.
        each: ``first``, the first items of a user and one session each, as LangPTune has them; or ``every``, each item
            that ``inputs`` others precede is a target once, and they are shown.
        least: the fewest items that a session shows where ``inputs`` aren't there, for ``every`` and for valid and test
            of the dataset's split; None for ``inputs``. ``first`` shows ``inputs`` items always.
        split: ``time``, by the times of the targets over all users; or ``dataset``, the split that the dataset has:
            its training prefixes, and before each of its targets of valid and test the ``inputs`` items right there.
        ratios: train, valid and test shares of the sessions under ``time``.
        known: leave out sessions of valid and test whose target isn't known in training.
        shortest_review: interactions whose review is shorter are left out before anything else, those without one
            among them (0: none is).
        longest_review: interactions whose review is longer are left out.
        longest_description: interactions with items whose description is longer are left out; the items stay in the
            catalogue.
    """

    inputs: Count = 4
    each: Literal["first", "every"] = "first"
    least: Annotated[Count | None, Field(validate_default=True)] = None
    split: Literal["time", "dataset"] = "time"
    ratios: Annotated[tuple[Share, Share, Share], Listed] = (0.8, 0.1, 0.1)
    known: Switch = True
    shortest_review: Amount = 0
    longest_review: Annotated[Count | None, Field(validate_default=True)] = None
    longest_description: Count | None = None

    __repr__ = settings_repr

    @field_validator("ratios")
    @classmethod
    def _shares_of_one(cls, ratios: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(ratios) - 1) > 1e-6:
            raise wrong(f"add up to {sum(ratios):g}, not to 1; give e.g. [0.8, 0.1, 0.1]", ratios)
        return ratios

    @field_validator("least")
    @classmethod
    def _no_more(cls, least: int | None, info: ValidationInfo) -> int | None:
        if least is not None and least > info.data.get("inputs", least):
            raise wrong(f"is {least}, more than the {info.data['inputs']} inputs", least)
        return least

    @field_validator("longest_review")
    @classmethod
    def _room(cls, longest: int | None, info: ValidationInfo) -> int | None:
        if longest is not None and longest < info.data.get("shortest_review", 0):
            raise wrong(f"is {longest}, less than the shortest, {info.data['shortest_review']}", longest)
        return longest

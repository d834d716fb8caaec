"""What somebody wants of a list beside their history: one small value, of which words and grammar are made alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, ValidationInfo, field_validator

from itemic.settings import Amount, Count, Listed, Share, Text, settings, wrong
from itemic.text import settings_repr

if TYPE_CHECKING:
    from itemic.control.labels import Labels
    from itemic.control.terms import Terms

How = Literal["at most", "at least", "about"]
_CLOSE = 1e-9  # .3 · 10 is a little below 3


def _keyed(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 3:
        return dict(zip(("label", "how", "portion"), value, strict=True))
    return value


@settings(frozen=True, repr=False)
class PartOf:
    """How much of a list has a label; a recipe may write it as ``[Drama, about, .5]``.

    Attributes:
        label: its name, see :class:`itemic.control.labels.Labels`.
        how: ``at most``, ``at least`` or ``about``: as near as whole numbers come, either of two that are as near.
        portion: of the list, from 0 to 1.
    """

    label: Text
    how: How
    portion: Share

    __repr__ = settings_repr

    def bounds(self, count: int) -> tuple[int, int]:
        """The least and the most items with the label in a list of so many.

        ``about`` .25 of 10 is 2 or 3, ``at most`` .25 of 10 is 0 to 2, ``at least`` .25 of 10 is 3 to 10.
        """
        exact = self.portion * count
        if self.how == "at most":
            return 0, math.floor(exact + _CLOSE)
        if self.how == "at least":
            return math.ceil(exact - _CLOSE), count
        return max(0, math.ceil(exact - 0.5 - _CLOSE)), min(count, math.floor(exact + 0.5 + _CLOSE))


@settings(frozen=True, repr=False)
class Want:
    """What is wanted of a list.

    Attributes:
        count: how many items.
        wanted: labels that items must have: of those of one column any, of each column one (as filters of a shop do:
            drama or comedy, and from Nike).
        unwanted: labels that no item may have.
        shares: how much of the list has a label.
        candidates: rows of the items that may come; None for all.
        avoid: rows of items that must not come; what the history holds must not anyway.
    """

    count: Count = 10
    wanted: Annotated[tuple[Text, ...], Listed] = ()
    unwanted: Annotated[tuple[Text, ...], Listed] = ()
    shares: Annotated[tuple[Annotated[PartOf, BeforeValidator(_keyed)], ...], Listed] = ()
    candidates: Annotated[tuple[Amount, ...] | None, Listed] = None
    avoid: Annotated[tuple[Amount, ...], Listed] = ()

    __repr__ = settings_repr

    @field_validator("unwanted")
    @classmethod
    def _consistent(cls, unwanted: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for place, label in enumerate(unwanted):
            if label in info.data.get("wanted", ()):
                raise wrong(f"{label!r} is wanted as well", unwanted, place)
        return unwanted

    @field_validator("candidates")
    @classmethod
    def _some(cls, candidates: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if candidates is not None and not candidates:
            raise wrong("is empty, so nothing may come; leave it out for all items", candidates)
        return candidates

    @property
    def plain(self) -> bool:
        """Whether it says nothing but how many."""
        return self == Want(count=self.count)

    def check(
        self,
        labels: Labels,
        history: npt.NDArray[np.integer] | Sequence[int] = (),
        *,
        shorter: bool = False,
        names: npt.NDArray[np.int64] | None = None,
    ) -> Terms:
        """What it comes to in a catalogue, after a history: which items may come, and how many of which.

        Args:
            labels: of the catalogue.
            history: rows that must not come.
            shorter: whether a list may have fewer items where so many can't be had, at the same shares. How many fewer
                is in ``Terms.short``.
            names: int64 ``[n]``, :attr:`itemic.sid.names.ItemNames.name_numbers`: items that share a name count as one,
                the one in the lowest row. None where all differ.

        Raises:
            ConfigError: a label isn't there or is ambiguous, or is wanted and unwanted.
            ConstraintError: nothing is left that may come, too few are, or shares can't be met; what stands in the way
                is named.
        """
        from itemic.control.terms import TermsOf  # it needs this class

        return TermsOf(labels, names=names, shorter=shorter)(self, history)

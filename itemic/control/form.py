"""How a list of items is written: numbered or not, and what stands between two items."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationInfo, field_validator

from itemic.settings import Switch, Text, settings, wrong
from itemic.text import settings_repr


@settings(frozen=True, repr=False)
class ListForm:
    """The form of a list.

    Attributes:
        numbered: whether each item has its number before it: ``1. … 2. …``.
        separator: what stands between two items.
    """

    numbered: Switch = True
    separator: Text = "\n"

    __repr__ = settings_repr

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str, info: ValidationInfo) -> str:
        if not separator and not info.data.get("numbered"):
            raise wrong("is empty, and nothing else stands between items", separator)
        return separator

    def before(self, place: int) -> str:
        """What stands before the item at that place, the first at 0: ``1. ``, then ``\\n2. ``."""
        number = f"{place + 1}. " if self.numbered else ""
        return (self.separator if place else "") + number

    def text(self, names: Sequence[str]) -> str:
        """The list of these: ``1. {Alien}\\n2. {Brazil}``."""
        return "".join(self.before(place) + name for place, name in enumerate(names))

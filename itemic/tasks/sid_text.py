"""Regular expressions for semantic IDs inside other text, in what Rust's and Python's dialects share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from itemic.sid.index import ItemIndex

CONTROL = r"<\|[^<>|]*\|>|</?think>"  # chat markers and other special tokens, of any tokenizer


@dataclass(frozen=True)
class SidPatterns:
    """How an index's tokens look.

    Attributes:
        sid: one whole semantic ID, of an item or not, its numbers unchecked.
        prefix: the beginning of one, at least one level and not all of them; None for an index of one level.
        token: any single token of the index, its number unchecked.
    """

    sid: str
    prefix: str | None
    token: str

    @classmethod
    def of(cls, index: ItemIndex) -> SidPatterns:
        form = index.token_format
        shapes = [_shape(form.code(level, 0, index.sizes)) for level in range(index.levels)]
        begin, end = (re.escape(mark or "") for mark in (form.begin, form.end))
        optional = "".join(f"(?:{shape}" for shape in shapes[1:-1]) + ")?" * len(shapes[1:-1])
        marks = [re.escape(mark) for mark in (form.begin, form.end) if mark]
        return cls(
            sid=begin + "".join(shapes) + end,
            prefix=f"{begin}{shapes[0]}{optional}" if index.levels > 1 else None,
            token="|".join([*marks, *dict.fromkeys(shapes)]),
        )


def _shape(token: str) -> str:
    """A token's text with its number left open."""
    return re.sub("[0-9]+", "[0-9]+", re.escape(token))

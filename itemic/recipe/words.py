"""What was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where a known word is near, else the known words."""
    choices = list(known)
    near = difflib.get_close_matches(word, choices, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(choices)}"

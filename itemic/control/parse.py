"""From the text of an answer to the items that it names. Names are read exactly; what is no item is counted as that."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from itemic.control.form import ListForm
from itemic.sid.names import ItemNames
from itemic.sid.titles import BEGIN, END, TitleNames

Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

UNKNOWN = -1  # of an entry that names no item
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("«", "»"))


@dataclass(frozen=True, eq=False)
class Parsed:
    """A list as it was read.

    Attributes:
        items: int32 ``[m]``, the row of each entry in order; -1 for one that names no item.
        entries: their texts.
        other: how many stretches of text are no entries of the list, such as a sentence before it.
    """

    items: Int32
    entries: list[str]
    other: int

    def __len__(self) -> int:
        return len(self.items)


def parse(
    text: str, names: ItemNames, form: ListForm | None = None, *, meant: Sequence[int] | Int32 | None = None
) -> Parsed:
    """Read an answer.

    A list is cut at its separators (blank lines aside). Under a numbered form an entry is what stands behind a number,
    which may also end in ``)``; other stretches are none of it. Else every stretch is an entry. An entry is an item
    where it is that item's name and nothing else, quotes around it aside; the marks of titles may be missing. Where it
    holds names among other words (``{Alien}, a classic``), these are entries, known or not. Nothing is matched by
    likeness: ``Cars`` is not ``Jaws``.

    Args:
        text: what was answered.
        names: of the catalogue.
        form: what was asked for; None for numbered lines.
        meant: rows, of which one is taken where items share a name; None takes the lowest row.
    """
    form = form or ListForm()
    items: list[int] = []
    entries: list[str] = []
    other = 0
    choose = _chooser(meant)
    for stretch in _stretches(text, form):
        entry = _behind_number(stretch) if form.numbered else stretch
        if entry is None:
            other += 1
            continue
        found = _entries(entry, names)
        entries += [one for one, _ in found]
        items += [choose(rows) for _, rows in found]
    return Parsed(np.array(items, np.int32), entries, other)


def _stretches(text: str, form: ListForm) -> list[str]:
    """The pieces between separators; a separator of blanks alone is any line end."""
    pieces = text.split(form.separator) if form.separator.strip() else text.splitlines()
    return [piece.strip() for piece in pieces if piece.strip()]


def _behind_number(text: str) -> str | None:
    match = re.fullmatch(r"\d+\s*[.)]\s*(.*)", text, re.DOTALL)
    return None if match is None else match[1].strip()


def _entries(entry: str, names: ItemNames) -> list[tuple[str, Int32]]:
    """The entry, or the names in it, and the rows that each names."""
    bare = entry
    for left, right in _QUOTES:
        if len(bare) >= 2 and bare[0] == left and bare[-1] == right:
            bare = bare[1:-1].strip()
            break
    unmarked = [f"{BEGIN}{one}{END}" for one in (entry, bare)] if names.kind == TitleNames.kind else []
    for one in (entry, bare, *unmarked):
        if len(rows := names.named(one)):
            return [(one, rows)]
    inside = [match[0] for match in _name(names.patterns.name).finditer(entry)]
    return [(one, names.named(one)) for one in inside] or [(entry, np.zeros(0, np.int32))]


@lru_cache(maxsize=16)
def _name(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _chooser(meant: Sequence[int] | Int32 | None) -> Callable[[Int32], int]:
    own = frozenset() if meant is None else frozenset(int(row) for row in meant)

    def choose(rows: Int32) -> int:
        if not len(rows):
            return UNKNOWN
        return next((int(row) for row in rows if int(row) in own), int(rows[0]))

    return choose

"""Names that are spelled in a tokenizer's own words, put into conversations with the tokens that the trie has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from itemic.forest.rows import TokenRows
from itemic.model.turns import Unit
from itemic.sid.names import ItemNames

HEAD, STRETCH, NAME = range(3)


@dataclass(frozen=True)
class Spelled:
    """Names that a tokenizer doesn't find in a text by itself.

    Attributes:
        names: what they are.
        rows: the token ids of each, by item row.
    """

    names: ItemNames
    rows: TokenRows


@dataclass
class CutAtNames:
    """Conversations cut at their names.

    Attributes:
        heads: for each conversation the units before its first name.
        stretches: all that stands after a first name and is none, one after the other.
        rows: the item row of each name, and whether it is the assistant's.
        order: all parts of all conversations: ``HEAD``, ``STRETCH`` or ``NAME``, and its number.
        counts: how many parts each conversation has.
    """

    heads: list[list[Unit]] = field(default_factory=list)
    stretches: list[Unit] = field(default_factory=list)
    rows: list[tuple[int, bool]] = field(default_factory=list)
    order: list[tuple[int, int]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, conversations: Sequence[list[Unit]], names: ItemNames) -> CutAtNames:
        """Cut lists of units."""
        cut = cls()
        for units in conversations:
            before = len(cut.order)
            cut.order.append((HEAD, len(cut.heads)))
            cut.heads.append([])
            for unit in units:
                cut._add(unit, names, before)
            cut.counts.append(len(cut.order) - before)
        return cut

    def _add(self, unit: Unit, names: ItemNames, before: int) -> None:
        """A unit of the last conversation, whose parts begin at ``before``."""
        text, ours = unit
        at = 0
        for start, stop, rows in names.mentions(text):
            self._add_text(text[at:start], ours, before)
            self.order.append((NAME, len(self.rows)))
            self.rows.append((int(rows[0]), ours))
            at = stop
        self._add_text(text[at:], ours, before)

    def _add_text(self, text: str, ours: bool, before: int) -> None:
        if not text:
            return
        if len(self.order) == before + 1:  # no name yet
            self.heads[-1].append((text, ours))
        else:
            self.order.append((STRETCH, len(self.stretches)))
            self.stretches.append((text, ours))

    def together(self, heads: TokenRows, stretches: TokenRows, spelled: TokenRows, only: bool) -> TokenRows:
        """One row per conversation.

        Args:
            heads: the tokens of the heads, with weights.
            stretches: those of the stretches.
            spelled: those of every item's name.
            only: whether nothing but names has weight.
        """
        assert heads.weights is not None
        parts = [
            TokenRows(heads.tokens, heads.offsets, heads.weights * np.float32(not only)),
            _weighted(stretches, [ours and not only for _, ours in self.stretches]),
            _weighted(spelled.take([row for row, _ in self.rows]), [ours for _, ours in self.rows]),
        ]
        shifts = np.cumsum([0, *(len(part) for part in parts)])
        places = np.array(self.order, np.int64).reshape(-1, 2)
        whole = TokenRows.concat(parts).take(shifts[places[:, 0]] + places[:, 1])
        ends = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        return TokenRows(whole.tokens, whole.offsets[ends], whole.weights)


def _weighted(rows: TokenRows, flags: Sequence[bool]) -> TokenRows:
    """Rows whose tokens all have weight, or none."""
    return TokenRows(rows.tokens, rows.offsets, np.repeat(np.array(flags, np.float32), rows.lengths))

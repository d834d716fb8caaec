"""Items told by the interactions themselves: one flat table, with the item's name in every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from itemic import schema as c
from itemic.data.readers import values
from itemic.data.readers.columns import ITEM, ITEM_ROLES, Columns, Names, choose_columns, plain
from itemic.data.readers.events import LINE
from itemic.data.readers.rows import BadRows
from itemic.data.readers.tables import Batch
from itemic.data.readers.tidy_events import Reading
from itemic.data.readers.tidy_items import TidyItems, tidy_items

# names that can't mean anything of the event: a bare "title" beside a rating is the review's
TELLING: Final[dict[str, tuple[str, ...]]] = {
    c.TITLE: (
        *("itemname", "itemtitle", "productname", "producttitle", "movietitle", "booktitle", "articletitle"),
        *("trackname", "songname", "artistname"),
    ),
    c.DESCRIPTION: ("itemdescription", "productdescription"),
    c.BRAND: ("itembrand", "productbrand", "brand", "brandname"),
    c.CATEGORIES: ("itemcategory", "productcategory", "itemcategories", "categorycode", "categorypath"),
}


class InlineItems:
    """Collects what rows of interactions say of items: of each item the first value of each column.

    Attributes:
        columns: who plays which part of an item, options and telling names alone; only the item where nothing does.
    """

    def __init__(self, events: Columns, header: Sequence[str], about: Names, where: str) -> None:
        """Of a table's header, where a table of items says nothing; empty where one does."""
        named = {ITEM: events.named[ITEM]}
        guessed = []
        for role in ITEM_ROLES[1:] if header else ():
            option = about.get(role)
            found = [name for name in events.others if plain(name) in TELLING.get(role, ())]
            if isinstance(option, str):
                named |= choose_columns(header, (role,), about, where).named
            elif option is None and len(found) == 1:
                named[role] = found[0]
                guessed.append(role)
        self.columns = Columns(named, tuple(guessed), ())
        self._parts: list[pl.DataFrame] = []

    def __bool__(self) -> bool:
        return len(self.columns.named) > 1

    def take(self, batch: Batch) -> None:
        """Take what some rows say."""
        item = self.columns.named[ITEM]
        frame = batch.frame.select(
            name for name in self.columns.named.values() if name in batch.frame.columns
        )
        frame = frame.with_columns(values.ids(frame[item]).alias(item), pl.Series(LINE, batch.lines))
        self._parts.append(_firsts(frame.filter(pl.col(item).is_not_null()), item))

    def tidy(self, where: str, reading: Reading, rows: BadRows) -> TidyItems:
        """The catalogue."""
        frame = _firsts(pl.concat(self._parts, how="diagonal_relaxed"), self.columns.named[ITEM])
        batch = Batch(frame.drop(LINE), frame[LINE].to_numpy())
        return tidy_items([(where, batch)], self.columns, reading, rows)


def _firsts(frame: pl.DataFrame, item: str) -> pl.DataFrame:
    return frame.group_by(item, maintain_order=True).agg(pl.all().drop_nulls().first())

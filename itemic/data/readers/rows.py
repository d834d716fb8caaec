"""Bad rows, and the catalogue that is read row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.readers.text import clean
from itemic.errors import ConfigError, DataError

POLICIES = ("error", "drop")
REMEDY = "Mend the source, or read it with on_bad_row: drop to leave such rows out and count them."
EXAMPLES = 5
CHUNK = 1 << 16
ITEM_SCHEMA: dict[str, Any] = {
    c.ITEM_ID: pl.String,
    c.TITLE: pl.String,
    c.DESCRIPTION: pl.String,
    c.BRAND: pl.String,
    c.CATEGORIES: pl.List(pl.String),
}


class BadRows:
    """What to do with a row that can't be used: raise at once, or count it and go on.

    Args:
        policy: ``"error"`` or ``"drop"``.
        missing_text: what becomes of items without text, see :mod:`itemic.data.readers.missing`.
    """

    def __init__(self, policy: str, missing_text: str = "keep") -> None:
        if policy not in POLICIES:
            raise ConfigError(f"on_bad_row is {policy!r}", f"Use one of {', '.join(POLICIES)}.")
        self.policy = policy
        self.missing_text = missing_text
        self.dropped: Counter[str] = Counter()
        self.examples: list[str] = []

    def report(self, kind: str, where: str, what: str, count: int = 1) -> None:
        """Tell of ``count`` bad rows of one kind, the first of which is at ``where``.

        Raises:
            DataError: under the policy ``"error"``.
        """
        if self.policy == "error":
            raise DataError(f"{where}: {what}", REMEDY)
        self.dropped[kind] += count
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{where}: {what}")

    def notes(self) -> dict[str, Any]:
        return {"on_bad_row": self.policy, "dropped": dict(self.dropped), "examples": self.examples}


class Catalogue:
    """Collects items. Ids are unique; the first item without a title is remembered.

    Args:
        rows: what to do with bad ones.
        file: the file's name for messages.
        wanted: if given, other items are passed over.
        markup: texts may hold HTML, which is taken out.
        more: names and polars types of the source's further columns.
    """

    def __init__(
        self,
        rows: BadRows,
        file: str,
        wanted: Container[str] | None = None,
        *,
        markup: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.file = file
        self.first_untitled = ""
        self.passed_over = 0
        self._rows = rows
        self._wanted = wanted
        self._markup = markup
        self._seen: set[str] = set()
        self._chunks: list[pl.DataFrame] = []
        self._open: list[tuple[Any, ...]] = []
        self._more = dict(more or {})

    def add(
        self,
        place: str,
        item_id: Any,
        title: Any = "",
        description: Any = "",
        brand: str = "",
        categories: Sequence[str] = (),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Take one item that stands at ``place`` of the file ("line 3"), with its values of the further columns."""
        where = f"{self.file}, {place}"
        key = "" if item_id is None else str(item_id).strip()
        if not key:
            return self._rows.report("missing item id", where, "the item has no id")
        if self._wanted is not None and key not in self._wanted:
            self.passed_over += 1
            return None
        if key in self._seen:
            return self._rows.report("duplicate item", where, f"item {key!r} is in the catalogue already")
        text = clean(title, markup=self._markup)
        if not text and not self.first_untitled:
            self.first_untitled = f"{where}: item {key!r}"
        self._seen.add(key)
        further = [(more or {}).get(name) for name in self._more]
        about = clean(description, markup=self._markup)
        self._open.append((key, text, about, brand, list(categories), *further))
        if len(self._open) >= CHUNK:
            self._flush()
        return None

    @property
    def taken(self) -> int:
        """How many items it holds."""
        return len(self._seen)

    def _flush(self) -> None:
        self._chunks.append(pl.DataFrame(self._open, schema=ITEM_SCHEMA | self._more, orient="row"))
        self._open = []

    def frame(self) -> pl.DataFrame:
        """The items in the order they came, columns ``schema.ITEM_COLUMNS`` and the further ones.

        Raises:
            DataError: there are none.
        """
        self._flush()
        items = pl.concat(self._chunks)
        if not len(items):
            raise DataError(f"{self.file} holds no usable item", "Check the file and the format.")
        return items

"""Which files of a source hold interactions, and which hold items."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from itemic.data.readers.columns import ITEM, USER, Names, fits, is_id, plain
from itemic.data.readers.source import Source
from itemic.data.readers.tables import ArrowTable, LinesTable, ParquetTable, Table, table_kind
from itemic.data.readers.text_table import Layout, TextTable
from itemic.errors import ConfigError, DataError

INTERACTION_WORDS = (
    *(
        "interaction",
        "event",
        "click",
        "rating",
        "purchase",
        "transaction",
        "order",
        "view",
        "log",
        "history",
        "visit",
    ),
    *(
        "listen",
        "play",
        "session",
        "behavior",
        "behaviour",
        "feedback",
        "review",
        "basket",
        "action",
        "impression",
    ),
)
ITEM_WORDS = (
    *(
        "item",
        "product",
        "movie",
        "book",
        "catalog",
        "article",
        "track",
        "song",
        "artist",
        "video",
        "news",
        "game",
    ),
    *("meta", "sku", "business", "recipe", "listing"),
)
TYPED: dict[str, Callable[[Source, str], Table]] = {
    "parquet": ParquetTable,
    "arrow": ArrowTable,
    "lines": LinesTable,
}
_NUMBER_OF_PART = r"[0-9a-f]{8}-[0-9a-f-]{20,}|\d+"


@dataclass(frozen=True)
class Tables:
    """The tables of a source.

    Attributes:
        interactions: one, or its parts in order.
        items: likewise; empty where there are none.
        users: likewise.
    """

    interactions: tuple[Table, ...]
    items: tuple[Table, ...]
    users: tuple[Table, ...] = ()


def open_table(source: Source, file: str, layout: Layout) -> Table:
    """A table by its file's ending; files with other endings are text, or JSON where they begin like it."""
    kind = table_kind(file) or ("lines" if "".join(source.head(file)).startswith("{") else "text")
    if kind == "text":
        return TextTable(source, file, layout)
    return TYPED[kind](source, file)


def find_tables(
    source: Source,
    layout: Layout,
    given: Names,
    interactions: str | None,
    items: str | bool | None,
    users: str | None = None,
) -> Tables:
    """The tables of interactions and of items: named by patterns, or told from columns and names of files.

    Args:
        source: the folder, file or files.
        layout: of text files.
        given: role → column, as options name them.
        interactions: a file, or a pattern of its parts, relative to the folder.
        items: likewise; False for none.
        users: likewise; only where it is named.

    Raises:
        DataError: there are no interactions, or several files may be meant.
    """
    people = () if users is None else _named(source, users, replace(layout, columns=None))
    theirs = {table.where for table in people}
    if interactions is not None:
        events = _named(source, interactions, layout)
    elif source.is_folder:
        events = _choose(
            source,
            layout,
            INTERACTION_WORDS,
            "interactions",
            lambda it: it.where not in theirs and _has_events(it, given),
        )
        if not events:
            raise DataError(
                f"{source.path} holds no table with a column of users and one of items; it has {_seen(source, layout)}",
                "Name the columns with the options user and item, or the file with interactions.",
            )
    else:
        events = tuple(open_table(source, file, layout) for file in source.files)
    layout = replace(layout, columns=None)
    if isinstance(items, str):
        return Tables(events, _named(source, items, layout), people)
    if items is False or not source.is_folder:
        return Tables(events, (), people)
    taken = {table.where for table in events} | theirs

    def is_catalogue(table: Table) -> bool:
        return table.where not in taken and _has_items(table, given)

    return Tables(events, _choose(source, layout, ITEM_WORDS, "items", is_catalogue), people)


def holds_interactions(source: Source) -> bool:
    """Whether a source has a table of interactions whose columns have usual names."""
    layout = Layout()
    return any(_has_events(table, {}) for file in _tables(source) if (table := _peek(source, file, layout)))


def _named(source: Source, pattern: str, layout: Layout) -> tuple[Table, ...]:
    inside = source.match(pattern)
    if inside:
        return tuple(open_table(source, file, layout) for file in inside)
    beside = source.beside(pattern)
    return tuple(open_table(beside, file, layout) for file in beside.files)


def _tables(source: Source) -> list[str]:
    return [file for file in source.files if table_kind(file) or not source.is_folder]


def _peek(source: Source, file: str, layout: Layout) -> Table | None:
    """A table, if its columns can be read; a folder may hold anything."""
    table = open_table(source, file, layout)
    try:
        return table if table.header else None
    except (DataError, ConfigError):
        return None


def _seen(source: Source, layout: Layout) -> str:
    """What there is instead of what was looked for."""
    seen = []
    for file in _tables(source)[:5]:
        try:
            seen.append(f"{file} ({', '.join(open_table(source, file, layout).header)})")
        except (DataError, ConfigError) as error:
            seen.append(f"{file} ({error.message})")
    return "; ".join(seen) or "no tables"


def _has_events(table: Table, given: Names) -> bool:
    return fits(table.header, (USER, ITEM), given)


def _has_items(table: Table, given: Names) -> bool:
    known = fits(table.header, (ITEM,), given) or any(is_id(name) for name in table.header)
    return known and len(table.header) > 1 and not fits(table.header, (USER,), given)


def _choose(
    source: Source, layout: Layout, words: Sequence[str], option: str, wanted: Callable[[Table], bool]
) -> tuple[Table, ...]:
    """The one table that fits, or its parts: files whose names differ in numbers alone.

    Raises:
        DataError: several files fit equally well.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Table]] = {}
    for file in _tables(source):
        table = _peek(source, file, layout)
        if table is not None and wanted(table):
            key = re.sub(_NUMBER_OF_PART, "", file), tuple(table.header)
            groups.setdefault(key, []).append(table)
    hinted = {key: group for key, group in groups.items() if any(word in plain(key[0]) for word in words)}
    found = list((hinted or groups).values())
    if len(found) > 1:
        names = ", ".join(group[0].where for group in found)
        raise DataError(
            f"{source.path} holds several files that may be the {option}: {names}",
            f"Name the right one with the option {option}.",
        )
    return tuple(found[0]) if found else ()

"""LETTER's layout: ``X.inter.json`` {user: [item, …]} in time order and ``X.item.json`` {item: {title, …}}.

The published semantic IDs that may stand beside them (``X.index.json``) are read by the ``sid`` room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.events import LINE, Events
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows, Catalogue
from itemic.data.readers.source import AGAIN, RepeatedKeys, Source
from itemic.data.readers.text import brand_of, category_path, unlisted
from itemic.errors import DataError

INTERACTIONS, ITEMS = "*.inter.json", "*.item.json"


def finds(source: Source) -> bool:
    return bool(source.match(INTERACTIONS) and source.match(ITEMS))


def read(source: Source, rows: BadRows, *, prefix: str | None = None) -> Dataset:
    """Read a pair of files.

    Args:
        source: the folder.
        rows: what to do with bad ones.
        prefix: which data set, where the folder holds several (``"Beauty"``).
    """
    inter_file = source.one(INTERACTIONS, prefix=prefix)
    item_file = source.one(ITEMS, prefix=prefix)
    catalogue = read_catalogue(source, item_file, rows)
    events = Events()
    pairs = entries(source, inter_file, "duplicate user", rows)
    users = add_sequences(pairs, source.where(inter_file), rows, events)
    return assemble(
        name=inter_file.rsplit("/", 1)[-1].removesuffix(INTERACTIONS[1:]),
        catalogue=catalogue,
        events=events,
        rows=rows,
        files={inter_file: users, item_file: catalogue.taken},
        notes={"format": "letter"},
    )


def read_catalogue(source: Source, file: str, rows: BadRows) -> Catalogue:
    """An ``X.item.json``: descriptions and categories may be texts, lists, or lists written as text."""
    catalogue = Catalogue(rows, source.where(file))
    for key, item in entries(source, file, "duplicate item", rows):
        if not isinstance(item, dict):
            rows.report("broken item", f"{source.where(file)}, key {key!r}", "the item is no object")
            continue
        catalogue.add(
            f"key {key!r}",
            key,
            item.get("title"),
            unlisted(item.get("description")),
            brand_of(item.get("brand")),
            category_path(item.get("categories")),
        )
    return catalogue


def entries(source: Source, file: str, kind: str, rows: BadRows) -> list[tuple[str, Any]]:
    """The pairs of a JSON object; keys that come twice are reported as ``kind`` and the first one stands.

    Raises:
        DataError: the file holds something else.
    """
    content = source.json(file)
    if not isinstance(content, dict):
        raise DataError(f"{source.where(file)} holds no JSON object", AGAIN)
    if isinstance(content, RepeatedKeys):
        for key in content.repeated:
            rows.report(kind, f"{source.where(file)}, key {key!r}", "the key comes twice")
    return list(content.items())


def add_sequences(pairs: Iterable[tuple[str, Any]], file: str, rows: BadRows, events: Events) -> int:
    """Users and their lists of item ids, oldest first, into ``events``; ``file`` is where they stand, for messages.

    Returns:
        How many users have a sequence.
    """
    users: list[str] = []
    histories: list[list[str]] = []
    for user, items in pairs:
        place = f"{file}, user {user!r}"
        if not isinstance(items, list) or any(not isinstance(item, int | str) for item in items):
            rows.report("broken sequence", place, "the value is no list of item ids")
        elif not items:
            rows.report("empty sequence", place, "the user has no items")
        else:
            users.append(user)
            histories.append([str(item) for item in items])
    frame = pl.DataFrame(
        {c.USER_ID: users, c.ITEM_ID: histories}, schema={c.USER_ID: pl.String, c.ITEM_ID: pl.List(pl.String)}
    ).explode(c.ITEM_ID)
    nothing = {c.RATING: None, c.TIMESTAMP: None, LINE: 0}
    events.add(frame.with_columns(**{name: pl.lit(value) for name, value in nothing.items()}), file)
    return len(users)


READER = Reader("letter", f"X{INTERACTIONS[1:]} and X{ITEMS[1:]}", finds, read)

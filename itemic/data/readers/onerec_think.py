"""The pair of files the OneRec-Think pipeline starts from.

``Beauty.pretrain.json`` {id: {title, description, categories, sid}} and ``sequential_data_processed.txt``,
one line a user: the user's id, then item ids in time order. Ids count from 1. The ``sid`` texts are read by
the ``sid`` room.
"""

from __future__ import annotations

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.events import LINE, Events
from itemic.data.readers.letter import read_catalogue
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import Lines, Source

ITEMS, SEQUENCES = "*.pretrain.json", "sequential_data*.txt"


def finds(source: Source) -> bool:
    return bool(source.match(ITEMS) and source.match(SEQUENCES))


def read(source: Source, rows: BadRows, *, prefix: str | None = None) -> Dataset:
    """Read the pair.

    Args:
        source: the folder.
        rows: what to do with bad ones.
        prefix: which data set, where the folder holds several (``"Beauty"``).
    """
    item_file = source.one(ITEMS, prefix=prefix)
    sequence_file = source.one(SEQUENCES)
    catalogue = read_catalogue(source, item_file, rows)
    events = Events()
    users: set[str] = set()
    for lines in source.batches(sequence_file):
        events.add(_events(lines, source.where(sequence_file), rows, users), source.where(sequence_file))
    return assemble(
        name=item_file.rsplit("/", 1)[-1].removesuffix(ITEMS[1:]),
        catalogue=catalogue,
        events=events,
        rows=rows,
        files={sequence_file: len(users), item_file: catalogue.taken},
        notes={"format": "onerec-think"},
    )


def _events(lines: Lines, file: str, rows: BadRows, users: set[str]) -> pl.DataFrame:
    """One row an event; ``users`` gains the users of these lines."""
    numbers: list[int] = []
    sequences: list[list[str]] = []
    for number, raw in lines:
        place = f"{file}, line {number}"
        try:
            user, *items = raw.decode().split()
        except UnicodeDecodeError as error:
            rows.report("broken line", place, str(error))
            continue
        except ValueError:
            continue  # a blank line
        if not items:
            rows.report("empty sequence", place, f"user {user!r} has no items")
        elif user in users:
            rows.report("duplicate user", place, f"user {user!r} has a line already")
        else:
            users.add(user)
            numbers.append(number)
            sequences.append([user, *items])
    frame = pl.DataFrame(
        {LINE: numbers, "_all": sequences}, schema={LINE: pl.UInt32, "_all": pl.List(pl.String)}
    )
    return frame.select(
        LINE,
        pl.col("_all").list.first().alias(c.USER_ID),
        pl.col("_all").list.slice(1).alias(c.ITEM_ID),
        pl.lit(None).alias(c.RATING),
        pl.lit(None).alias(c.TIMESTAMP),
    ).explode(c.ITEM_ID)


READER = Reader("onerec-think", f"X{ITEMS[1:]} and {SEQUENCES}", finds, read)

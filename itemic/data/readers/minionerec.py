"""MiniOneRec's layout: ``train``, ``valid`` and ``test`` CSV files of (history, next item) and
``X.item.json``.

Lists in the CSV files are Python literals. The users' sequences are rebuilt from the rows, and every event
carries the split whose target it was, so that the split rule ``published`` gives the source's own requests
back, with the longest history that a row shows (10 in the files that MiniOneRec publishes).
"""

from __future__ import annotations

import ast

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers.assemble import assemble
from itemic.data.readers.chains import Chains
from itemic.data.readers.delimited import csv_rows
from itemic.data.readers.events import Events
from itemic.data.readers.letter import read_catalogue
from itemic.data.readers.reader import Reader
from itemic.data.readers.rows import BadRows
from itemic.data.readers.source import Source
from itemic.data.settings import SplitRule
from itemic.errors import DataError

ITEMS = "*.item.json"
USER, HISTORY, TARGET = COLUMNS = ("user_id", "history_item_id", "item_id")


def finds(source: Source) -> bool:
    if not source.match(ITEMS):
        return False
    return any(HISTORY in head for file in _tables(source, None).values() for head in source.head(file))


def _tables(source: Source, prefix: str | None) -> dict[str, str]:
    """Split → its CSV file: in a folder of that name, or with the name in the file's."""
    found = {}
    for split in c.SPLITS:
        inside = source.match(f"{split}/*.csv") or source.match(f"*{split}*.csv")
        files = [file for file in inside if prefix is None or file.rsplit("/", 1)[-1].startswith(prefix)]
        if len(files) > 1:
            raise DataError(
                f"{source.path} holds several {split} tables: {', '.join(files)}",
                "Choose one with the option prefix, the start of its name.",
            )
        if files:
            found[split] = files[0]
    return found


def read(source: Source, rows: BadRows, *, prefix: str | None = None) -> Dataset:
    """Read the tables that are there.

    Args:
        source: the folder.
        rows: what to do with bad ones.
        prefix: which data set, where the folder holds several (``"Beauty"``).
    """
    tables = _tables(source, prefix)
    if not tables:
        raise DataError(
            f"{source.path} holds no train, valid or test CSV file", "Check the folder and the format."
        )
    item_file = source.one(ITEMS, prefix=prefix)
    catalogue = read_catalogue(source, item_file, rows)
    chains = Chains(rows)
    counts = {file: _add_rows(source, file, split, chains, rows) for split, file in tables.items()}
    events = Events()
    for file, frame in chains.frames().items():
        events.add(frame, file)
    return assemble(
        name=item_file.rsplit("/", 1)[-1].removesuffix(ITEMS[1:]),
        catalogue=catalogue,
        events=events,
        rows=rows,
        files={**counts, item_file: catalogue.taken},
        rule=SplitRule("published", history=chains.window),
        notes={"format": "minionerec"},
    )


def _add_rows(source: Source, file: str, split: str, chains: Chains, rows: BadRows) -> int:
    count, where = 0, source.where(file)
    for line, row in csv_rows(source, file, COLUMNS, rows):
        try:
            history = ast.literal_eval(row[HISTORY])
            if not isinstance(history, list) or not history:
                raise ValueError("no list of items")
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            rows.report(
                "broken line", f"{where}, line {line}", f"{HISTORY} {row[HISTORY][:80]!r} is no list: {error}"
            )
            continue
        chains.add(row[USER], [str(item) for item in history], row[TARGET], split, where, line)
        count += 1
    return count


READER = Reader(
    "minionerec", "X.item.json and CSV files with history_item_id, named or foldered by split", finds, read
)

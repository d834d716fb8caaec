"""OneRec-Think's pair of files, see :mod:`itemic.data.readers.onerec_think`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.writers.files import check_ids, dump, write_lines
from itemic.data.writers.lost import lost_columns, lost_split, lost_times
from itemic.data.writers.texts import category_text, safe
from itemic.data.writers.writer import Writer

KEPT = (c.ITEM_ID, c.TITLE, c.DESCRIPTION, c.CATEGORIES)


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """One line a user; the items' texts with their semantic IDs (``sid``) where there are some.

    Raises:
        DataError: an id has white space in it.
    """
    sequences = dataset.sequences
    check_ids(sequences.users, "user", "OneRec-Think", spaces=False)
    check_ids(dataset.item_ids, "item", "OneRec-Think", spaces=False)
    lines = (
        [user, *(dataset.item_ids[row] for row in sequences[i])] for i, user in enumerate(sequences.users)
    )
    write_lines(folder / "sequential_data_processed.txt", " ", lines)
    columns = zip(*(dataset.items[column].to_list() for column in KEPT), strict=True)
    records = {
        item: {c.TITLE: safe(title), c.DESCRIPTION: safe(text), c.CATEGORIES: category_text(path)}
        for item, title, text, path in columns
    }
    for item, sid in zip(records, sids or (), strict=False):
        records[item]["sid"] = sid
    dump(folder / f"{name}.pretrain.json", records)
    return [*lost_times(dataset), *lost_columns(dataset.items, KEPT), *lost_split(dataset)]


WRITER = Writer("onerec-think", write, "onerec")

"""MiniOneRec's folders ``train``, ``valid``, ``test``, ``index`` and ``info``, see
:mod:`itemic.data.readers.minionerec`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.split import CODES
from itemic.data.writers.files import dump, write_csv, write_lines
from itemic.data.writers.letter import item_records
from itemic.data.writers.lost import lost_columns, lost_times
from itemic.data.writers.texts import id_value, safe
from itemic.data.writers.writer import Writer

COLUMNS = ("user_id", "history_item_title", "item_title", "history_item_id", "item_id")
SID_COLUMNS = ("history_item_sid", "item_sid")


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """A row for every item of a sequence but its first: the history before it, cut as the split cuts it.

    The columns of semantic IDs and ``info/X.txt`` are written where there are semantic IDs.
    """
    (folder / "index").mkdir()
    dump(folder / "index" / f"{name}.item.json", item_records(dataset))
    titles = [safe(title) for title in dataset.items[c.TITLE]]
    header = COLUMNS if sids is None else COLUMNS + SID_COLUMNS
    for split in c.SPLITS:
        if (dataset.labels == CODES[split]).any():
            write_csv(folder / split / f"{name}.csv", header, _rows(dataset, split, titles, sids))
    if sids is not None:
        (folder / "info").mkdir()
        write_lines(folder / "info" / f"{name}.txt", "\t", zip(sids, titles, dataset.item_ids, strict=True))
    return [*lost_times(dataset), *lost_columns(dataset.items, c.ITEM_COLUMNS), *_lost_firsts(dataset)]


def _rows(
    dataset: Dataset, split: str, titles: list[str], sids: Sequence[str] | None
) -> Iterator[tuple[Any, ...]]:
    sequences = dataset.sequences
    ids = [id_value(item) for item in dataset.item_ids]
    owners = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    for stop in np.flatnonzero(dataset.labels == CODES[split]).tolist():
        user = int(owners[stop])
        start = int(sequences.offsets[user])
        if stop == start:
            continue
        if dataset.rule.history is not None:
            start = max(start, stop - dataset.rule.history)
        history, target = sequences.items[start:stop].tolist(), int(sequences.items[stop])
        row = (
            sequences.users[user],
            [titles[i] for i in history],
            titles[target],
            [ids[i] for i in history],
            ids[target],
        )
        yield row if sids is None else (*row, [sids[i] for i in history], sids[target])


def _lost_firsts(dataset: Dataset) -> list[str]:
    """Users of one item, which make no row, and first items that are no part of training."""
    sequences = dataset.sequences
    lengths = np.diff(sequences.offsets)
    single = int((lengths == 1).sum())
    held = int((dataset.labels[sequences.offsets[:-1][lengths > 1]] != CODES[c.TRAIN]).sum())
    lost = [f"{single} users of one item"] * bool(single)
    lost += [f"that the first items of {held} users are not of training"] * bool(held)
    return lost + ["the questions without an answer of leave-last-out"] * (
        dataset.rule.method == "leave-last-out"
    )


WRITER = Writer("minionerec", write, "minionerec", ("letter", "index/{name}.index.json"))

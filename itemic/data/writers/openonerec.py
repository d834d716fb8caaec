"""OpenOneRec's Parquet of conversations, which its training and :meth:`itemic.tasks.Conversations.open` read.

``train.parquet`` has one plain text a user, the semantic IDs of its training sequence; ``valid.parquet`` and
``test.parquet`` have one conversation a request: the semantic IDs of the history, and the target's as the answer.
``pid2sid.parquet`` beside them says which item has which semantic ID.

The rows' metadata (:mod:`itemic.data.readers.openonerec_rows`), ``items.parquet``, the catalogue as it is, and
``dataset.split.json``, the dataset's name and split, are for :mod:`itemic.data.readers.openonerec`, which makes the
same dataset of them; OpenOneRec's training reads none of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.readers import openonerec as reader
from itemic.data.readers import openonerec_rows as keys
from itemic.data.split import CODES, UNKNOWN
from itemic.data.writers.files import dump
from itemic.data.writers.lost import lost_columns
from itemic.data.writers.writer import Writer
from itemic.errors import ConfigError

ASK = "\nWhat comes next?"
SCHEMA = dict.fromkeys(c.CONVERSATION_COLUMNS, pl.String)
KEPT = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.RATING, c.SPLIT)
Places = npt.NDArray[np.int64]
FURTHER = {keys.TIMESTAMPS: c.TIMESTAMP, keys.RATINGS: c.RATING}


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """The conversations, what reads them as a dataset again, and ``X.json``, the list of files to train on that
    OpenOneRec's configuration names.

    Raises:
        ConfigError: there are no semantic IDs, of which these files consist.
    """
    if sids is None:
        raise ConfigError("OpenOneRec's files consist of semantic IDs", "Give the dataset's index as well.")
    further = _further(dataset)
    _write(folder / "train.parquet", _texts(dataset, sids, further), f"{name}.{c.TRAIN}")
    dump(folder / f"{name}.json", ["train.parquet"])
    for split in (c.VALID, c.TEST):
        questions = list(_questions(dataset, split, sids, further))
        if questions:
            _write(folder / f"{split}.parquet", questions, f"{name}.{split}")
    dataset.items.write_parquet(folder / reader.ITEMS)
    dump(folder / reader.ABOUT, {reader.SPLIT: dataset.rule.to_json(), reader.NAME: dataset.name})
    return [*lost_columns(dataset.interactions, KEPT), *_lost_labels(dataset)]


def _further(dataset: Dataset) -> dict[str, list[Any]]:
    """What is known of each interaction, by its key in the metadata."""
    columns = {key: dataset.interactions[column] for key, column in FURTHER.items()}
    return {key: found.to_list() for key, found in columns.items() if found.null_count() < len(found)}


def _texts(
    dataset: Dataset, sids: Sequence[str], further: Mapping[str, list[Any]]
) -> Iterator[dict[str, Any]]:
    train, starts = dataset.train, dataset.sequences.offsets
    for i, user in enumerate(train.users):
        rows = train[i].tolist()
        if rows:
            text = "".join(sids[row] for row in rows)
            places = slice(int(starts[i]), int(starts[i]) + len(rows))
            metadata = _metadata(dataset, user, i, c.TRAIN, rows)
            metadata |= {key: values[places] for key, values in further.items()}
            yield {c.SEGMENTS: [_part(text)], c.METADATA: metadata}


def _questions(
    dataset: Dataset, split: str, sids: Sequence[str], further: Mapping[str, list[Any]]
) -> Iterator[dict[str, Any]]:
    owners, stops = _targets(dataset, split)
    if not len(owners):
        return
    requests = dataset.split(split)
    for i, (user, owner, stop) in enumerate(
        zip(requests.users, owners.tolist(), stops.tolist(), strict=True)
    ):
        rows, target = requests.history(i).tolist(), int(requests.targets[i])
        shown = "".join(sids[row] for row in rows)
        turns = [{"role": "user", "content": [_part(shown + ASK)]}]
        metadata = _metadata(dataset, user, owner, split, rows)
        if target != UNKNOWN:
            turns.append({"role": "assistant", "content": [_part(sids[target])]})
            metadata[keys.TARGET] = [dataset.item_ids[target]]
            places = slice(stop, stop + 1)
            if opening := _opening(dataset, owner, stop):
                metadata[keys.OPENING] = opening
                places = slice(stop - 1, stop + 1)
            metadata |= {key: values[places] for key, values in further.items()}
        yield {c.MESSAGES: turns, c.METADATA: metadata}


def _targets(dataset: Dataset, split: str) -> tuple[Places, Places]:
    """Of each request: the user's number, and the place of the target among all interactions (int64 ``[R]``); of
    requests without targets, the end of the user's sequence."""
    starts, ends = dataset.sequences.offsets[:-1], dataset.sequences.offsets[1:]
    if dataset.rule.method == "leave-last-out" and split == c.TEST:
        return np.arange(len(ends)), ends
    stops = np.flatnonzero(dataset.labels == CODES[split])
    owners = np.searchsorted(ends, stops, "right")
    asked = stops > starts[owners]  # nothing is asked about a user's first item
    return owners[asked], stops[asked]


def _opening(dataset: Dataset, owner: int, stop: int) -> str | None:
    """The split of a user's first item, if that is none of training and the history shows nothing else."""
    first = int(dataset.sequences.offsets[owner])
    label = c.SPLITS[dataset.labels[first]]
    return label if stop == first + 1 and label != c.TRAIN else None


def _metadata(dataset: Dataset, user: str, order: int, split: str, rows: Sequence[int]) -> dict[str, Any]:
    items = [dataset.item_ids[row] for row in rows]
    return {keys.GROUP: keys.USER + user, keys.ORDER: order, keys.ITEMS: items, keys.SPLIT: split}


def _lost_labels(dataset: Dataset) -> list[str]:
    """Users of one item that is none of training, which make no row; and labels that the split doesn't go by."""
    offsets = dataset.sequences.offsets
    single = offsets[:-1][np.diff(offsets) == 1]
    held = int((dataset.labels[single] != CODES[c.TRAIN]).sum())
    lost = [f"{held} users of one item that is not of training"] * bool(held)
    published = dataset.rule.method == "published" or dataset.interactions[c.SPLIT].is_null().all()
    return lost + ["the source's own split"] * (not published)


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _write(file: Path, rows: Iterable[dict[str, Any]], source: str) -> None:
    """Rows of lists and objects as JSON texts, with a source and names that are the same every time."""
    table = [
        {c.UUID: str(uuid5(NAMESPACE_URL, f"{source}/{number}")), c.SOURCE: source}
        | {column: json.dumps(value, ensure_ascii=False) for column, value in row.items()}
        for number, row in enumerate(rows)
    ]
    pl.DataFrame(table, schema=SCHEMA).write_parquet(file)


WRITER = Writer("openonerec", write, "onerec", ("openonerec", "pid2sid.parquet"))

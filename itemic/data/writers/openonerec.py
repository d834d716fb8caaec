"""OpenOneRec's Parquet of conversations, which its training and :meth:`itemic.tasks.Conversations.open` read.

``train.parquet`` has one plain text a user, the semantic IDs of its training sequence; ``valid.parquet`` and
``test.parquet`` have one conversation a request: the semantic IDs of the history, and the target's as the answer.
``pid2sid.parquet`` beside them says which item has which semantic ID.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.split import CODES, UNKNOWN
from itemic.data.writers.files import dump
from itemic.data.writers.lost import lost_columns, lost_times
from itemic.data.writers.writer import Writer
from itemic.errors import ConfigError

ASK = "\nWhat comes next?"
SCHEMA = dict.fromkeys(c.CONVERSATION_COLUMNS, pl.String)


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """The conversations, and ``X.json``, the list of files to train on that OpenOneRec's configuration names.

    Raises:
        ConfigError: there are no semantic IDs, of which these files consist.
    """
    if sids is None:
        raise ConfigError("OpenOneRec's files consist of semantic IDs", "Give the dataset's index as well.")
    _write(folder / "train.parquet", _texts(dataset, sids), f"{name}.{c.TRAIN}")
    dump(folder / f"{name}.json", ["train.parquet"])
    for split in (c.VALID, c.TEST):
        questions = list(_questions(dataset, split, sids))
        if questions:
            _write(folder / f"{split}.parquet", questions, f"{name}.{split}")
    return [*lost_times(dataset), *lost_columns(dataset.items, (c.ITEM_ID,))]


def _texts(dataset: Dataset, sids: Sequence[str]) -> Iterator[dict[str, Any]]:
    train = dataset.train
    for i, user in enumerate(train.users):
        rows = train[i].tolist()
        if rows:
            text = "".join(sids[row] for row in rows)
            items = [dataset.item_ids[row] for row in rows]
            metadata = {"group": f"user:{user}", "items": items, "split": c.TRAIN}
            yield {c.SEGMENTS: [_part(text)], c.METADATA: metadata}


def _questions(dataset: Dataset, split: str, sids: Sequence[str]) -> Iterator[dict[str, Any]]:
    if dataset.rule.method != "leave-last-out" and not (dataset.labels == CODES[split]).any():
        return
    requests = dataset.split(split)
    for i, user in enumerate(requests.users):
        rows, target = requests.history(i).tolist(), int(requests.targets[i])
        shown = "".join(sids[row] for row in rows)
        turns = [{"role": "user", "content": [_part(shown + ASK)]}]
        items = [dataset.item_ids[row] for row in rows]
        metadata = {"group": f"user:{user}", "items": items, "split": split}
        if target != UNKNOWN:
            turns.append({"role": "assistant", "content": [_part(sids[target])]})
            metadata["target"] = [dataset.item_ids[target]]
        yield {c.MESSAGES: turns, c.METADATA: metadata}


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

"""LETTER's pair ``X.inter.json`` and ``X.item.json``, see :mod:`itemic.data.readers.letter`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.writers.files import dump
from itemic.data.writers.lost import lost_columns, lost_split, lost_times
from itemic.data.writers.texts import category_text, id_value, safe
from itemic.data.writers.writer import Writer


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """Sequences of numbers where the ids are numbers; the semantic IDs are a file of their own."""
    sequences = dataset.sequences
    ids = [id_value(item) for item in dataset.item_ids]
    histories = {user: [ids[row] for row in sequences[i]] for i, user in enumerate(sequences.users)}
    dump(folder / f"{name}.inter.json", histories)
    dump(folder / f"{name}.item.json", item_records(dataset))
    return [*lost_times(dataset), *lost_columns(dataset.items, c.ITEM_COLUMNS), *lost_split(dataset)]


def item_records(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """``{item: {title, description, brand, categories}}``."""
    columns = (dataset.items[column].to_list() for column in c.ITEM_COLUMNS)
    return {
        item: {
            c.TITLE: safe(title),
            c.DESCRIPTION: safe(description),
            c.BRAND: safe(brand),
            c.CATEGORIES: category_text(path),
        }
        for item, title, description, brand, path in zip(*columns, strict=True)
    }


WRITER = Writer("letter", write, "minionerec", ("letter", "{name}.index.json"))

"""RecBole's atomic files, see :mod:`itemic.data.readers.recbole`, and the settings that load them.

Under leave-one-out, RecBole's own way for sequences, there is one ``X.inter``; under any other split three of them,
``X.train.inter``, ``X.valid.inter`` and ``X.test.inter``. RecBole sorts by time: where the dataset knows the order
alone, a column ``position`` stands for it, which the settings name as the time's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.split import CODES
from itemic.data.writers.files import check_ids, write_lines
from itemic.data.writers.lost import lost_columns, lost_history
from itemic.data.writers.texts import safe
from itemic.data.writers.writer import Writer

POSITION = "position"
ITEM_TYPES = {
    c.ITEM_ID: "token",
    c.TITLE: "token_seq",
    c.DESCRIPTION: "token_seq",
    c.BRAND: "token",
    c.CATEGORIES: "token_seq",
}


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """Times in seconds, or positions where not every interaction has one; ratings where there are some.

    Raises:
        DataError: an id has tabs or line ends in it.
    """
    check_ids(dataset.sequences.users, "user", "RecBole", spaces=True)
    check_ids(dataset.item_ids, "item", "RecBole", spaces=True)
    events = _events(dataset)
    header = [
        f"{column}:{'token' if column in (c.USER_ID, c.ITEM_ID) else 'float'}" for column in events.columns
    ]
    whole = dataset.rule.method == "leave-one-out"
    splits = [split for split in c.SPLITS if (dataset.labels == CODES[split]).any()]
    for split in [""] if whole else splits:
        part = events if whole else events.filter(dataset.labels == CODES[split])
        file = folder / f"{name}{split and '.'}{split}.inter"
        write_lines(file, "\t", [header, *part.iter_rows()])
    write_lines(folder / f"{name}.item", "\t", _items(dataset.items))
    settings = _settings(events.columns, None if whole else splits)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    kept = (*events.columns, c.SPLIT)
    lost = [*lost_columns(dataset.interactions, kept), *lost_columns(dataset.items, c.ITEM_COLUMNS)]
    if dataset.rule.method == "leave-last-out":
        lost.append("the questions without an answer of leave-last-out")
    return lost + lost_history(dataset)


def _events(dataset: Dataset) -> pl.DataFrame:
    """All interactions as texts: ids, ratings if there are any, and what RecBole sorts by."""
    table = dataset.interactions
    columns = [pl.col(c.USER_ID), pl.col(c.ITEM_ID)]
    if table[c.RATING].null_count() < len(table):
        columns.append(pl.col(c.RATING).cast(pl.String).fill_null(""))
    if table[c.TIMESTAMP].null_count():
        columns.append(pl.int_range(pl.len()).over(c.USER_ID).cast(pl.String).alias(POSITION))
    else:
        columns.append(_seconds(pl.col(c.TIMESTAMP)).alias(c.TIMESTAMP))
    return table.select(columns)


def _seconds(milliseconds: pl.Expr) -> pl.Expr:
    """Seconds, with a fraction where there is one."""
    rest = milliseconds % 1000
    fraction = pl.concat_str(pl.lit("."), rest.cast(pl.String).str.pad_start(3, "0"))
    whole = (milliseconds // 1000).cast(pl.String)
    return pl.concat_str(whole, pl.when(rest > 0).then(fraction).otherwise(pl.lit("")))


def _items(items: pl.DataFrame) -> Iterator[list[str]]:
    yield [f"{column}:{kind}" for column, kind in ITEM_TYPES.items()]
    for item, title, description, brand, path in items.select(c.ITEM_COLUMNS).iter_rows():
        names = ", ".join(_quoted(safe(name)) for name in path)
        yield [item, _field(title), _field(description), _field(brand), names]


def _field(text: str) -> str:
    """RecBole's loader takes a quote that begins a field for one that ends elsewhere."""
    line = safe(text)
    return f"&quot;{line[1:]}" if line.startswith('"') else line


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _settings(columns: Sequence[str], splits: Sequence[str] | None) -> dict[str, Any]:
    """RecBole's settings, in which files and evaluation are those of the dataset."""
    usual = {"group_by": "user", "order": "TO", "mode": "full"}
    settings: dict[str, Any] = {
        "field_separator": "\t",
        "load_col": {"inter": list(columns), "item": list(ITEM_TYPES)},
    }
    if POSITION in columns:
        settings["TIME_FIELD"] = POSITION
    if splits is not None:
        settings["benchmark_filename"] = list(splits)
    settings["eval_args"] = usual if splits is not None else {"split": {"LS": "valid_and_test"}, **usual}
    return settings


WRITER = Writer("recbole", write)

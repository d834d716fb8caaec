"""RecBole's atomic files, see :mod:`itemic.data.readers.recbole`, and the settings that load them.

Under leave-one-out, RecBole's own way for sequences, there is one ``X.inter``; under any other split three of them,
``X.train.inter``, ``X.valid.inter`` and ``X.test.inter``. RecBole sorts by time: where the dataset knows the order
alone, a column ``position`` stands for it, which the settings name as the time's.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    c.TAGS: "token_seq",
}
TEXTS = (c.TITLE, c.DESCRIPTION, c.BRAND)


def write(dataset: Dataset, folder: Path, name: str, sids: Sequence[str] | None) -> list[str]:
    """Times in seconds, or positions where not every interaction has one; ratings where there are some, tags and
    further columns of numbers. Texts of one's own columns are lost: RecBole's loader would stumble over their quotes.

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
    items = _items(dataset.items)
    header = [f"{column}:{ITEM_TYPES.get(column, 'float')}" for column in items.columns]
    write_lines(folder / f"{name}.item", "\t", [header, *items.iter_rows()])
    settings = _settings(events.columns, items.columns, None if whole else splits)
    if dataset.users is not None:
        settings["load_col"]["user"] = _write_users(dataset.users, folder / f"{name}.user")
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    kept = (*events.columns, c.SPLIT)
    lost = [*lost_columns(dataset.interactions, kept), *lost_columns(dataset.items, items.columns)]
    if dataset.rule.method == "leave-last-out":
        lost.append("the questions without an answer of leave-last-out")
    return lost + lost_history(dataset)


def _write_users(users: pl.DataFrame, file: Path) -> list[str]:
    """All that is known of users, and the names of the columns; texts are tokens, and lists are sequences."""
    kinds = {name: _user_type(name, dtype) for name, dtype in users.schema.items()}
    rows = [
        [_user_field(value) for value in row]
        for row in users.with_columns(pl.col(pl.Boolean).cast(pl.String)).iter_rows()
    ]
    write_lines(file, "\t", [[f"{name}:{kind}" for name, kind in kinds.items()], *rows])
    return list(kinds)


def _user_type(name: str, dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List):
        return "float_seq" if dtype.inner.is_numeric() else "token_seq"
    return "float" if dtype.is_numeric() and name != c.USER_ID else "token"


def _user_field(value: Any) -> str:
    if isinstance(value, list):
        return " ".join("_".join(_field(str(each)).split()) for each in value)
    return "" if value is None else _field(str(value))


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
    return table.select(columns + _numbers(table, c.INTERACTION_COLUMNS))


def _numbers(table: pl.DataFrame, known: Sequence[str]) -> list[pl.Expr]:
    """Further columns of numbers as texts, empty where there is none."""
    names = [name for name, dtype in table.schema.items() if dtype.is_numeric() and name not in known]
    return [pl.col(name).cast(pl.String).fill_null("") for name in names]


def _seconds(milliseconds: pl.Expr) -> pl.Expr:
    """Seconds, with a fraction where there is one."""
    rest = milliseconds % 1000
    fraction = pl.concat_str(pl.lit("."), rest.cast(pl.String).str.pad_start(3, "0"))
    whole = (milliseconds // 1000).cast(pl.String)
    return pl.concat_str(whole, pl.when(rest > 0).then(fraction).otherwise(pl.lit("")))


def _items(items: pl.DataFrame) -> pl.DataFrame:
    """All that is known of items, as texts."""
    texts = [pl.Series(name, [_field(text) for text in items[name]]) for name in TEXTS]
    lists = [_labels(items[name]) for name in (c.CATEGORIES, c.TAGS) if name in items.columns]
    numbers = items.select(_numbers(items, c.ITEM_COLUMNS))
    return pl.DataFrame([items[c.ITEM_ID], *texts, *lists, *numbers])


def _field(text: str) -> str:
    """RecBole's loader takes a quote that begins a field for one that ends elsewhere."""
    line = safe(text)
    return f"&quot;{line[1:]}" if line.startswith('"') else line


def _labels(lists: pl.Series) -> pl.Series:
    """Lists of names as quoted names with commas between them."""
    return pl.Series(
        lists.name, [", ".join(_quoted(safe(name)) for name in names or []) for names in lists.to_list()]
    )


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _settings(columns: Sequence[str], items: Sequence[str], splits: Sequence[str] | None) -> dict[str, Any]:
    """RecBole's settings, in which files and evaluation are those of the dataset."""
    usual = {"group_by": "user", "order": "TO", "mode": "full"}
    settings: dict[str, Any] = {
        "field_separator": "\t",
        "load_col": {"inter": list(columns), "item": list(items)},
    }
    if POSITION in columns:
        settings["TIME_FIELD"] = POSITION
    if splits is not None:
        settings["benchmark_filename"] = list(splits)
    settings["eval_args"] = usual if splits is not None else {"split": {"LS": "valid_and_test"}, **usual}
    return settings


WRITER = Writer("recbole", write, users=True)

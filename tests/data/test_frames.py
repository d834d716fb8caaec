"""Datasets of tables in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import itemic
from itemic import schema as c
from itemic.errors import ConfigError, DataError
from tests.cases import case

EVENTS = {
    "user": ["u", "u", "v"],
    "item": ["a", "b", "a"],
    "time": [1_600_000_001, 1_600_000_000, 1_600_000_000],
}
ITEMS = {"id": ["a", "b"], "title": ["A", None], "tags": [["x", "y"], None], "year": [1, None]}
KINDS: dict[str, Any] = {
    "polars": pl.DataFrame,
    "lazy": pl.LazyFrame,
    "arrow": lambda table: pl.DataFrame(table).to_arrow(),
    "columns": dict,
    "rows": lambda table: pl.DataFrame(table).to_dicts(),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_table(kind: Any) -> None:
    dataset = itemic.dataset(kind(EVENTS), kind(ITEMS), name="mine")
    assert dataset.name == "mine"
    assert dataset.interactions[c.ITEM_ID].to_list() == ["b", "a", "a"]
    assert dataset.interactions[c.TIMESTAMP].to_list() == [
        1_600_000_000_000,
        1_600_000_001_000,
        1_600_000_000_000,
    ]
    assert dataset.items.select(c.ITEM_ID, c.TITLE, c.TAGS, "year").rows() == [
        ("a", "A", ["x", "y"], 1),
        ("b", "", [], None),
    ]


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    events = pandas.DataFrame(EVENTS, index=["r1", "r2", "r3"])
    events["time"] = pandas.to_datetime(events["time"], unit="s", utc=True)
    dataset = itemic.dataset(events, pandas.DataFrame({"id": ["a", "b"], "title": ["A", "B"]}))
    assert dataset.interactions.equals(itemic.dataset(EVENTS).interactions)


def test_frames_without_times() -> None:
    dataset = itemic.dataset(**json.loads((case("frames") / "frames.json").read_text(encoding="utf-8")))
    assert dataset.sequences.timestamps is None
    assert [dataset.item_ids[row] for row in dataset.sequences[0]] == ["a", "b", "c", "d"]
    assert dataset.items[c.TITLE].to_list() == ["A", "B", "C", "D"]
    assert len(dataset.split("test")) == 1


def test_a_file_and_its_table_make_the_same_dataset(tmp_path: Path) -> None:
    pl.DataFrame(EVENTS).write_parquet(tmp_path / "events.parquet")
    read = itemic.read("table", tmp_path)
    made = itemic.dataset(pl.read_parquet(tmp_path / "events.parquet"))
    assert made.interactions.equals(read.interactions)
    assert made.items.equals(read.items)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ({"user": ["u"]}, "interactions has no column that looks like the item; it has user"),
        ({"user": ["u", None], "item": ["a", "b"]}, "interactions, line 2: user is empty"),
        ({"user": ["u"], "item": [[1]]}, "the column 'item' holds List"),
        ({"user": ["u"], "item": ["a"], "time": ["soon"]}, "time is 'soon', which is no time"),
        ({"user": ["u"], "item": ["a", "b"]}, "interactions can't be made a table"),
        ({"user": [], "item": []}, "no interactions are left"),
    ],
)
def test_faults(events: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        itemic.dataset(events)


def test_wrong_arguments_are_errors_of_ours() -> None:
    with pytest.raises(ConfigError, match="not a table"):
        itemic.dataset("clicks.csv")
    with pytest.raises(ConfigError, match="no option colour"):
        itemic.dataset(EVENTS, colour="red")
    with pytest.raises(ConfigError, match="missing_text"):
        itemic.dataset(EVENTS, missing_text="ignore")
    with pytest.raises(DataError, match="item 'b' has no title"):
        itemic.dataset(EVENTS, ITEMS, missing_text="error")

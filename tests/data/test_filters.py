"""Filters: cases by hand, and the k-core against a slow loop."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.cli.app import call
from itemic.data import Dataset, FilterRule, SplitRule, apply_filters, read
from itemic.data.filters import k_core
from itemic.errors import ConfigError, DataError
from itemic.recipe import dump_recipe, load_recipe, read_resolved
from tests.runs import RECIPE

from .test_split import make

Events = list[tuple[str, int]]


def left(dataset: Dataset) -> dict[str, list[int]]:
    table = dataset.interactions
    found: dict[str, list[int]] = {}
    for user, item in zip(table["user_id"], table["item_id"], strict=True):
        found.setdefault(user, []).append(int(item))
    return found


@pytest.fixture
def dataset() -> Dataset:
    made = make({"a": [1, 2, 2, 1, 3], "b": [2, 4]}, SplitRule(), [10, 20, 20, 30, 30, 10, 40])
    ratings = pl.Series("rating", [5, 3, 4, None, 4, 1, 5], dtype=pl.Float32)
    return replace(made, interactions=made.interactions.with_columns(ratings))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (FilterRule(), {"a": [1, 2, 2, 1, 3], "b": [2, 4]}),
        (FilterRule(min_rating=4), {"a": [1, 2, 3], "b": [4]}),
        (FilterRule(duplicates="keep-first"), {"a": [1, 2, 3], "b": [2, 4]}),
        (FilterRule(duplicates="keep-last"), {"a": [2, 1, 3], "b": [2, 4]}),
        (FilterRule(duplicates="drop-consecutive"), {"a": [1, 2, 1, 3], "b": [2, 4]}),
        (FilterRule(start="1970-01-01T00:00:00.020"), {"a": [2, 2, 1, 3], "b": [4]}),
        (FilterRule(end="1970-01-01T00:00:00.030"), {"a": [1, 2, 2], "b": [2]}),
        (FilterRule(max_history=2), {"a": [1, 3], "b": [2, 4]}),
        (FilterRule(user_k_core=3), {"a": [1, 2, 2, 1, 3]}),
        (FilterRule(item_k_core=2), {"a": [1, 2, 2, 1], "b": [2]}),
        (FilterRule(user_k_core=2, item_k_core=2), {"a": [1, 2, 2, 1]}),
        (FilterRule(user_k_core=2, item_k_core=2, max_history=1), {"a": [1]}),
    ],
)
def test_each_rule(dataset: Dataset, rule: FilterRule, expected: dict[str, list[int]]) -> None:
    assert left(apply_filters(dataset, rule)) == expected


def test_ties_by_item_id() -> None:
    dataset = make({"a": [3, 1, 2], "b": [5, 4]}, SplitRule(), [10, 10, 20, 7, 7])
    assert left(apply_filters(dataset, FilterRule(ties="item-id"))) == {"a": [1, 3, 2], "b": [4, 5]}
    assert left(apply_filters(dataset, FilterRule())) == {"a": [3, 1, 2], "b": [5, 4]}


def test_counts_of_each_step_are_noted(dataset: Dataset) -> None:
    filtered = apply_filters(dataset, FilterRule(min_rating=3, duplicates="keep-first", user_k_core=2))
    (notes,) = filtered.notes["filters"]
    assert notes["rule"]["user_k_core"] == 2
    assert notes["steps"] == [
        {"rule": "before", "users": 2, "items": 4, "interactions": 7},
        {"rule": "min_rating", "users": 2, "items": 4, "interactions": 5},
        {"rule": "duplicates", "users": 2, "items": 4, "interactions": 4},
        {"rule": "k_core", "users": 1, "items": 3, "interactions": 3},
    ]


def test_items_without_interactions_go_or_stay(dataset: Dataset) -> None:
    gone = apply_filters(dataset, FilterRule())
    assert gone.items["item_id"].to_list() == ["1", "2", "3", "4"]
    assert gone.notes["filters"][0]["cold_items_dropped"] == 6
    kept = apply_filters(dataset, FilterRule(drop_cold_items=False))
    assert kept.items.equals(dataset.items)


def test_filters_one_after_the_other_are_all_noted(dataset: Dataset) -> None:
    twice = apply_filters(apply_filters(dataset, FilterRule(user_k_core=2)), FilterRule(max_history=3))
    assert [notes["rule"]["max_history"] for notes in twice.notes["filters"]] == [None, 3]


def test_nothing_left_is_an_error_with_the_counts(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"leave no interactions of dataset \(before: 7; k_core: 0\)"):
        apply_filters(dataset, FilterRule(user_k_core=50))


def test_what_the_source_lacks_is_an_error() -> None:
    bare = make({"a": [1, 2]}, SplitRule())
    with pytest.raises(DataError, match="no ratings"):
        apply_filters(bare, FilterRule(min_rating=1))
    with pytest.raises(DataError, match="no times"):
        apply_filters(bare, FilterRule(start="2016-10"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"duplicates": "some"},
        {"ties": "random"},
        {"user_k_core": -1},
        {"max_history": 0},
        {"start": "yesterday"},
        {"start": "2018-01", "end": "2017-01"},
    ],
)
def test_rules_that_make_no_sense_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FilterRule(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        (2015, datetime(2015, 1, 1)),
        ("2015", datetime(2015, 1, 1)),
        ("2015-03", datetime(2015, 3, 1)),
        ("2015-3-7", datetime(2015, 3, 7)),
        ("2015/03/07", datetime(2015, 3, 7)),
        (20150307, datetime(2015, 3, 7)),
        ("2015-03-07", datetime(2015, 3, 7)),
        (" 2015-03-07T10:20 ", datetime(2015, 3, 7, 10, 20)),
        ("2015-03-07 10:20:30.5", datetime(2015, 3, 7, 10, 20, 30, 500_000)),
        ("2015-03-07T10:20:30Z", datetime(2015, 3, 7, 10, 20, 30)),
        ("2015-03-07T10:20:30+02:00", datetime(2015, 3, 7, 8, 20, 30)),
        (date(2015, 3, 7), datetime(2015, 3, 7)),
        (datetime(2015, 3, 7, 10, tzinfo=timezone(timedelta(hours=-1))), datetime(2015, 3, 7, 11)),
        (1425686400, datetime(2015, 3, 7)),
        (1425686400000, datetime(2015, 3, 7)),
    ],
)
def test_every_form_of_a_date(given: object, moment: datetime) -> None:
    expected = round(moment.replace(tzinfo=UTC).timestamp() * 1000)
    rule = FilterRule(start=given)  # type: ignore[arg-type]
    assert rule.window == (expected, None)
    assert json.loads(json.dumps(rule.to_json())) == rule.to_json()


@pytest.mark.parametrize(
    "form", ["1996-10-01", "1996-10", "1996", "'1996-10-01'", "1996-10-01T00:00:00Z", "844128000"]
)
def test_every_form_of_a_date_on_the_command_line_and_in_recipes(form: str, tmp_path: Path) -> None:
    rows = "".join(
        f"u\t{item}\t{time}\n" for item, time in (("a", 800_000_000), ("b", 900_000_000), ("c", 900_000_001))
    )
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.inter").write_text(f"user_id:token\titem_id:token\ttimestamp:float\n{rows}")
    output = tmp_path / "made"
    command = ["data", "import", str(tmp_path / "raw"), "-o", str(output), "-f", f"start={form}"]
    assert call([*command, "--split", "leave-last-out"]) == 0
    assert Dataset.load(output).interactions["item_id"].to_list() == ["b", "c"]
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.replace("  simulate", f"  filters: {{start: {form}}}\n  simulate"))
    data = load_recipe(recipe).data
    assert data is not None
    rule = data.filters
    assert rule is not None
    assert rule.window[0] == FilterRule(start=form.strip("'")).window[0]
    assert read_resolved_again(tmp_path, recipe) == data


def read_resolved_again(folder: Path, recipe: Path) -> object:
    (folder / "resolved.yaml").write_text(dump_recipe(load_recipe(recipe)))
    return read_resolved(folder / "resolved.yaml").data


def test_windows_are_in_utc() -> None:
    assert FilterRule(start="2016-10", end="2018-11-01T02:00:00+02:00").window == (
        1_475_280_000_000,
        1_541_030_400_000,
    )


def slow_k_core(events: Events, user_k: int, item_k: int) -> Events:
    """Take out one offending user or item at a time."""
    while True:
        for place, least in ((0, user_k), (1, item_k)):
            names = [event[place] for event in events]
            poor = sorted({str(name) for name in names if names.count(name) < least})
            if poor:
                events = [event for event in events if str(event[place]) != poor[0]]
                break
        else:
            return events


@given(
    events=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 6)), min_size=1, max_size=40),
    user_k=st.integers(0, 4),
    item_k=st.integers(0, 4),
)
def test_k_core_against_a_slow_loop(events: Events, user_k: int, item_k: int) -> None:
    users = np.array(["abcdef".index(user) for user, _ in events])
    items = np.array([item for _, item in events])
    kept = k_core(users, items, user_k, item_k)
    assert [event for event, stays in zip(events, kept, strict=True) if stays] == slow_k_core(
        events, user_k, item_k
    )


def test_five_core_data_is_five_core_and_more_is_less(shared: Path) -> None:
    dataset = read("letter", shared / "scientific")
    same = apply_filters(dataset, FilterRule(user_k_core=5, item_k_core=5))
    assert same.interactions.equals(dataset.interactions)
    fewer = apply_filters(dataset, FilterRule(user_k_core=6, item_k_core=5))
    counts = (
        fewer.interactions.group_by("user_id").len()["len"],
        fewer.interactions.group_by("item_id").len()["len"],
    )
    assert counts[0].min() >= 6  # type: ignore[operator]
    assert counts[1].min() >= 5  # type: ignore[operator]
    assert len(fewer.interactions) < len(dataset.interactions)
    assert set(fewer.items["item_id"]) == set(fewer.interactions["item_id"])

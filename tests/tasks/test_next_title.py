"""Task F against a plain loop over task C's histories, and what gives it away."""

from __future__ import annotations

import json

import polars as pl
import pytest

from itemic import schema as c
from itemic.tasks import build_conversations, make_task, validate
from tests.tasks.helpers import make_dataset, make_index, make_items, messages, metadata, small


@pytest.mark.parametrize("most", [None, 2])
def test_rows_are_those_of_a_plain_loop(most: int | None) -> None:
    dataset, index = small()
    task = make_task("F", max_items=most)
    titles = dataset.items[c.TITLE].to_list()
    expected = set()
    for user in range(len(dataset.train)):
        items = dataset.train[user].tolist()
        for place in range(1, len(items)):
            if items[place] in (7, 8):  # without a title, and with one that must be cleaned
                continue
            history = items[max(0, place - (most or place)) : place]
            text = task.wordings[0] + "".join(index.text(item) for item in history)
            expected.add((f"user:{dataset.train.users[user]}", text, titles[items[place]]))
    frame = task.build(dataset, index)
    rows = {
        (about["group"], *messages(row)[1:])
        for row, about in zip(frame[c.MESSAGES], metadata(frame), strict=True)
        if about["target"] not in (["i7"], ["i8"])
    }
    assert rows == expected


def test_an_item_that_nothing_names_is_no_target() -> None:
    items = make_items().with_columns(
        pl.when(pl.col(c.ITEM_ID) == "i5").then(pl.lit("")).otherwise(name).alias(name)
        for name in (c.TITLE, c.DESCRIPTION, c.BRAND)
    )
    bare = pl.when(pl.col(c.ITEM_ID) == "i5").then(pl.lit([], pl.List(pl.String))).otherwise(c.CATEGORIES)
    dataset = make_dataset(
        {"u": [1, 5, 2, 3]}, items.with_columns(bare.alias(c.CATEGORIES)), method="leave-last-out"
    )
    (about,) = metadata(make_task("F").build(dataset, make_index()))
    assert about["target"] == ["i2"]


def test_a_title_that_follows_in_the_test_part_alone_is_a_leak() -> None:
    """u has items 2 and 3 in training, and 3 right after 2 only as the target of test."""
    dataset, index = make_dataset({"u": [3, 2, 1, 2, 3], "v": [5, 6, 7, 9]}), make_index()
    rows = build_conversations(dataset, index, [{"task": "F"}]).read()
    assert validate(rows, dataset, index, max_target_share=1.0).ok
    bad = rows[0].to_dicts()[0]
    turns = json.loads(bad[c.MESSAGES])
    turns[1]["content"] = make_task("F").wordings[0] + index.text(2)
    turns[2]["content"] = dataset.items[c.TITLE][3]
    about = json.loads(bad[c.METADATA]) | {"target": ["i3"]}
    bad |= {c.MESSAGES: json.dumps(turns), c.METADATA: json.dumps(about), c.UUID: "planted"}
    found = validate(
        pl.concat([rows, pl.DataFrame([bad], schema=rows.schema)]), dataset, index, max_target_share=1.0
    )
    (fault,) = found.faults
    assert (fault.check, fault.row) == ("leakage", len(rows))
    assert "follow another" in fault.detail

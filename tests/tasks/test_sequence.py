"""Task sequence: how histories are cut into segments."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.errors import ConfigError
from itemic.tasks import make_task
from itemic.tasks.catalogue import Catalogue
from tests.tasks.helpers import make_dataset, make_index


def slow_segments(items: list[int], size: int, overlap: int) -> list[list[int]]:
    """Segments from the end of a history backwards, each sharing ``overlap`` items with the next."""
    segments, stop = [], len(items)
    while True:
        segments.insert(0, items[max(stop - size, 0) : stop])
        if stop - size <= 0:
            return segments
        stop -= size - overlap


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=12), min_size=1, max_size=4),
    st.integers(2, 6),
    st.data(),
)
def test_segments_cover_the_history(users: list[list[int]], size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    dataset = make_dataset({str(number): items for number, items in enumerate(users)})
    index = make_index()
    rows = make_task("sequence", max_items=size, overlap=overlap).build(dataset, index)
    parts = [json.loads(segments) for segments in rows[c.SEGMENTS]]
    found = ["".join(part["text"] for part in segment) for segment in parts]
    wanted = []
    for user in range(len(dataset.train)):
        own = []
        for segment in slow_segments(dataset.train[user].tolist(), size, overlap):
            text = "".join(index.text(item) for item in segment)
            if text not in own:
                own.append(text)
        wanted += own
    assert sorted(found) == sorted(wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=12), min_size=1, max_size=4),
    st.integers(2, 6),
    st.integers(0, 3),
    st.data(),
)
def test_every_item_is_predicted_once(
    users: list[list[int]], size: int, cuts: int, data: st.DataObject
) -> None:
    """What carries loss, put together again, is the history of each user in each set of cuts; segments keep
    within their size and begin with the items that the segment before ended with."""
    overlap = data.draw(st.integers(0, size - 1))
    # all items of a user differ, so that no segment is left out as a repetition
    dataset = make_dataset({str(number): list(range(len(items))) for number, items in enumerate(users)})
    index = make_index()
    rows = make_task("sequence", max_items=size, overlap=overlap, cuts=cuts).build(dataset, index)
    length = len(index.text(0))
    said: dict[str, list[str]] = {}
    for segments, metadata in rows.select(c.SEGMENTS, c.METADATA).iter_rows():
        *context, value = [part["text"] for part in json.loads(segments)]
        assert [part.get("loss") for part in json.loads(segments)] == [False] * len(context) + [None]
        assert len("".join(context) + value) <= size * length
        before = said.setdefault(json.loads(metadata)["group"], [])
        if before:
            assert "".join(context) == "".join(before)[-overlap * length :] * bool(overlap)
        before.append(value)
    histories = sorted(
        "".join(index.text(item) for item in dataset.train[user]) for user in range(len(dataset.train))
    )
    assert sorted("".join(values) for values in said.values()) == sorted(histories * max(1, cuts))


def test_random_cuts_differ() -> None:
    dataset = make_dataset({str(number): list(range(6)) * 3 for number in range(5)})
    task = make_task("sequence", max_items=4, overlap=1, cuts=3)
    plan = task.planned(Catalogue(make_index()), dataset.train, seed=0)
    sets = [plan.filter(pl.col("group") // 5 == number) for number in range(3)]
    lengths = [(part["stop"] - part["start"]).to_list() for part in sets]
    assert lengths[0] != lengths[1] != lengths[2]
    assert {length for part in lengths for length in part} == {2, 3, 4}
    again = task.planned(Catalogue(make_index()), dataset.train, seed=0)
    assert plan.equals(again)


def test_cuts_must_be_a_number_of_sets() -> None:
    with pytest.raises(ConfigError, match="cuts is -1"):
        make_task("sequence", cuts=-1)


def test_overlap_must_leave_room() -> None:
    with pytest.raises(ConfigError, match="overlap is 3"):
        make_task("sequence", max_items=3, overlap=3)


def test_beginnings_are_prompts_of_their_own() -> None:
    index = make_index()
    dataset = make_dataset({"a": [1, 2, 3, 4, 5, 6], "b": [7, 8, 9], "c": [3]})
    usual = make_task("sequence", max_items=4).build(dataset, index)
    more = make_task("sequence", max_items=4, beginnings=2).build(dataset, index)
    wanted = []
    for user in range(len(dataset.train)):
        items = dataset.train[user].tolist()
        wanted += [(dataset.train.users[user], items[:n], items[n]) for n in (1, 2) if n < len(items)]
    found = []
    for segments, metadata in more.select(c.SEGMENTS, c.METADATA).iter_rows():
        said, about = json.loads(segments), json.loads(metadata)
        row = {"text": [part["text"] for part in said], "loss": [part.get("loss", True) for part in said]}
        found.append((about["group"], row))
    said = {str(row) for row in usual[c.SEGMENTS]}
    assert said < {str(row) for row in more[c.SEGMENTS]}
    assert len(more) == len(usual) + len(wanted)
    for user, shown, target in wanted:
        text = ["".join(index.text(item) for item in shown), index.text(target)]
        assert (f"user:{user}", {"text": text, "loss": [False, True]}) in found


def test_beginnings_must_leave_room() -> None:
    for number in (-1, 4):
        with pytest.raises(ConfigError, match=f"beginnings is {number}"):
            make_task("sequence", max_items=4, beginnings=number)

"""Task C against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.tasks import make_task
from itemic.tasks.windows import distinct_windows, window_starts
from tests.tasks.helpers import make_dataset, make_index, messages, metadata, small

HISTORIES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1
)


def start_of(length: int, most: int | None, window: str) -> int:
    """By hand: the first allowed start from which at most ``most`` items are left."""
    if most is None:
        return 0
    allowed = range(length + 1) if window == "sliding" else range(0, 10 * length + 1, max(1, most // 2))
    return next(start for start in allowed if length - start <= most)


@settings(max_examples=60, deadline=None)
@given(
    HISTORIES,
    st.sets(st.sampled_from([1, 2, 3, 5, "all"]), min_size=1),
    st.sampled_from([None, 1, 2, 3, 4, 5]),
    st.sampled_from(["sliding", "blocks"]),
)
def test_rows_are_those_of_a_plain_loop(
    sequences: dict[str, list[int]], windows: set[int | str], most: int | None, window: str
) -> None:
    dataset, index = make_dataset(sequences), make_index()
    task = make_task("C", windows=tuple(windows), max_items=most, window=window)
    expected = set()
    for user in range(len(dataset.train)):
        items = dataset.train[user].tolist()
        for target in range(1, len(items)):
            for size in windows:
                start = start_of(target, most, window) if size == "all" else max(0, target - int(size))
                if size != "all" and "all" in windows and int(size) >= target:
                    continue
                history = "".join(index.text(item) for item in items[start:target])
                group = f"user:{dataset.train.users[user]}"
                expected.add((group, task.wordings[0] + history, index.text(items[target])))
    frame = task.build(dataset, index)
    said = [messages(row)[1:] for row in frame[c.MESSAGES]]
    rows = [(about["group"], *texts) for about, texts in zip(metadata(frame), said, strict=True)]
    assert len(rows) == len(set(rows))
    assert set(rows) == expected


@given(st.integers(0, 60), st.one_of(st.none(), st.integers(1, 20)), st.sampled_from(["sliding", "blocks"]))
def test_window_starts(length: int, most: int | None, window: str) -> None:
    assert window_starts(np.array([length]), most, window).tolist() == [start_of(length, most, window)]


def test_blocks_keep_sharing_where_sliding_windows_end_it() -> None:
    starts = {kind: window_starts(np.arange(1, 60), 10, kind) for kind in ("sliding", "blocks")}
    assert len(set(starts["sliding"])) == 50
    assert len(set(starts["blocks"])) == 11


@settings(max_examples=100, deadline=None)
@given(HISTORIES, st.data())
def test_distinct_windows_are_those_of_a_set(sequences: dict[str, list[int]], data: st.DataObject) -> None:
    train = make_dataset(sequences).train
    user = np.repeat(np.arange(len(train)), 4)
    bounds = []
    for u in user:
        low, high = int(train.offsets[u]), int(train.offsets[u + 1])
        bounds.append(sorted((data.draw(st.integers(low, high)), data.draw(st.integers(low, high)))))
    start, stop = np.array(bounds).T
    seen, expected = set(), []
    for u, (low, high) in zip(user, bounds, strict=True):
        key = (u, tuple(train.items[low:high]))
        expected.append(key not in seen)
        seen.add(key)
    assert distinct_windows(train, user, start, stop).tolist() == expected


@pytest.mark.parametrize(
    ("kind", "expected"), [("sid", "{a}{b}"), ("sid+title", "{a} {x}\n{b} {y}"), ("title", "{x}\n{y}")]
)
def test_what_stands_for_an_item(kind: str, expected: str) -> None:
    dataset, index = small()
    task = make_task("C", history_text=kind)
    titles = dataset.items["title"]
    names = {"a": index.text(2), "b": index.text(3), "x": titles[2], "y": titles[3]}
    asked = task.prompt(index, [2, 3], dataset).messages[1]["content"]
    assert asked == task.wordings[0] + expected.format(**names)


def test_thoughts_name_categories_and_the_answer_stays_what_it_is() -> None:
    dataset, index = make_dataset({"a": [9, 1, 12, 25, 38, 0, 0]}, method="leave-last-out"), make_index()
    task = make_task("C", windows=["all"], thoughts="categories")
    answers = [messages(row)[2] for row in task.build(dataset, index)[c.MESSAGES]]
    assert (
        answers[0]
        == f"<think>\nLatest: (no category). Next: Shop > Body > soap.\n</think>\n\n{index.text(1)}"
    )
    assert answers[3].startswith("<think>\nLatest: soap, cream, oil. Next: Shop > Hair > brush.\n</think>")
    assert [task.parse(answer, index) for answer in answers] == [1, 12, 25, 38, 0]
    plain = make_task("C", windows=["all"])
    assert task.prompt(index, [1, 2], dataset) == plain.prompt(index, [1, 2], dataset)
    assert plain.parse("<think>\n\n</think>\n\n" + index.text(5), index) == 5


def test_validation_takes_thoughts_for_what_they_are() -> None:
    from itemic.tasks import validate

    dataset, index = small()
    rows = make_task("C", thoughts="categories").build(dataset, index)
    report = validate(rows, dataset, index)
    assert not report.faults, report


def test_split_points_may_be_the_last_alone() -> None:
    dataset, index = make_dataset({"a": [1, 2, 3, 4, 5, 6]}, method="leave-last-out"), make_index()
    task = make_task("C", split_points="last", windows=["all"])
    (row,) = task.build(dataset, index)[c.MESSAGES]
    assert messages(row)[2] == index.text(5)
    assert messages(row)[1].count("sid_begin") == 4


def test_evaluation_cuts_long_histories_as_training_does() -> None:
    index = make_index()
    task = make_task("C", max_items=4, window="blocks")
    asked = task.prompt(index, list(range(9))).messages[1]["content"]
    assert asked == task.wordings[0] + "".join(index.text(item) for item in range(6, 9))

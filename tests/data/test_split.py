"""Splits: cases worked out by hand, and what holds for any data under any rule."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.data import Dataset, SplitRule
from itemic.errors import ConfigError, DataError

History = list[int]


def make(
    sequences: dict[str, History],
    rule: SplitRule,
    times: list[int] | None = None,
    split: list[str | None] | None = None,
    items: int = 10,
) -> Dataset:
    users = [user for user, sequence in sequences.items() for _ in sequence]
    rows = [str(item) for sequence in sequences.values() for item in sequence]
    table = pl.DataFrame(
        {"user_id": users, "item_id": rows, "timestamp": times, "rating": None, "split": split},
        schema={
            "user_id": pl.String,
            "item_id": pl.String,
            "timestamp": pl.Int64,
            "rating": pl.Float32,
            "split": pl.String,
        },
    )
    ids = [str(item) for item in range(items)]
    catalogue = pl.DataFrame(
        {"item_id": ids, "title": ids, "description": "", "brand": "", "categories": [["a"]] * items}
    )
    return Dataset(catalogue, table, rule=rule)


def train_of(dataset: Dataset) -> dict[str, History]:
    return {user: dataset.train[i].tolist() for i, user in enumerate(dataset.train.users)}


def ask(dataset: Dataset, name: str) -> list[tuple[str, History, int]]:
    requests = dataset.split(name)
    return [
        (user, requests.history(i).tolist(), int(requests.targets[i]))
        for i, user in enumerate(requests.users)
    ]


THREE = {"a": [1, 2, 3, 4], "b": [5, 6], "c": [7, 8, 9]}


def test_leave_one_out() -> None:
    dataset = make(THREE, SplitRule("leave-one-out"))
    assert train_of(dataset) == {"a": [1, 2], "b": [5, 6], "c": [7]}
    assert ask(dataset, "valid") == [("a", [1, 2], 3), ("c", [7], 8)]
    assert ask(dataset, "test") == [("a", [1, 2, 3], 4), ("c", [7, 8], 9)]


def test_leave_last_out() -> None:
    dataset = make(THREE, SplitRule("leave-last-out"))
    assert train_of(dataset) == {"a": [1, 2, 3], "b": [5], "c": [7, 8]}
    assert ask(dataset, "valid") == [("a", [1, 2, 3], 4), ("b", [5], 6), ("c", [7, 8], 9)]
    assert ask(dataset, "test") == [("a", [1, 2, 3, 4], -1), ("b", [5, 6], -1), ("c", [7, 8, 9], -1)]


def test_temporal() -> None:
    # targets by time: a2@10, c8@20, b6@30, a3@40, c9@50, a4@60 → 4 train, 1 valid, 1 test
    times = [0, 10, 40, 60, 5, 30, 1, 20, 50]
    dataset = make(THREE, SplitRule("temporal", ratios=(0.67, 0.17, 0.16)), times)
    assert train_of(dataset) == {"a": [1, 2, 3], "b": [5, 6], "c": [7, 8]}
    assert ask(dataset, "valid") == [("c", [7, 8], 9)]
    assert ask(dataset, "test") == [("a", [1, 2, 3], 4)]


def test_temporal_takes_whole_shares() -> None:
    # 10 targets, .8 + .1 in floats is .9000000000000001 or .8999…: still 8, 1 and 1
    dataset = make({"a": [0, *range(10)]}, SplitRule("temporal"), list(range(11)))
    assert len(train_of(dataset)["a"]) == 9
    assert (len(ask(dataset, "valid")), len(ask(dataset, "test"))) == (1, 1)


def test_published() -> None:
    labels = ["train", "train", "valid", "test", "train", "test", "train", "valid", "valid"]
    dataset = make(THREE, SplitRule("published"), split=labels)
    assert train_of(dataset) == {"a": [1, 2], "b": [5], "c": [7]}
    assert ask(dataset, "valid") == [("a", [1, 2], 3), ("c", [7], 8), ("c", [7, 8], 9)]
    assert ask(dataset, "test") == [("a", [1, 2, 3], 4), ("b", [5], 6)]


def test_a_target_without_history_is_no_request() -> None:
    dataset = make({"a": [1, 2], "b": [3]}, SplitRule("published"), split=["train", "test", "test"])
    assert ask(dataset, "test") == [("a", [1], 2)]
    assert train_of(dataset) == {"a": [1], "b": []}


def test_history_is_cut_to_the_most_recent() -> None:
    dataset = make(THREE, SplitRule("leave-one-out", history=2))
    assert ask(dataset, "test") == [("a", [2, 3], 4), ("c", [7, 8], 9)]
    assert ask(dataset.with_split(SplitRule(history=None)), "test")[0] == ("a", [1, 2, 3], 4)


def test_what_can_t_be_split_says_why() -> None:
    with pytest.raises(DataError, match="needs a time"):
        make(THREE, SplitRule("temporal")).split("test")
    with pytest.raises(DataError, match="no published split"):
        make(THREE, SplitRule("published")).split("test")
    with pytest.raises(DataError, match="the valid split is empty under leave-one-out"):
        make({"a": [1, 2]}, SplitRule("leave-one-out")).split("valid")
    with pytest.raises(DataError, match="user 'b' has a training event after"):
        make(THREE, SplitRule("published"), split=["train"] * 4 + ["test", "train"] + ["train"] * 3).split(
            "test"
        )
    with pytest.raises(ConfigError, match="unknown split 'dev'"):
        make(THREE, SplitRule()).split("dev")


@pytest.mark.parametrize(
    "arguments",
    [{"method": "random"}, {"history": 0}, {"ratios": (0.5, 0.6, 0.1)}, {"ratios": (1.2, -0.1, -0.1)}],
)
def test_rules_that_make_no_sense_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SplitRule(**arguments)  # type: ignore[arg-type]


def test_a_rule_survives_json() -> None:
    rule = SplitRule("temporal", None, (0.7, 0.2, 0.1))
    assert SplitRule.from_json(rule.to_json()) == rule


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    lengths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=8))
    sequences = {f"u{i}": [draw(st.integers(0, 9)) for _ in range(n)] for i, n in enumerate(lengths)}
    times: list[int] = []
    for n in lengths:
        times += sorted(draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)))
    labels: list[str | None] = []
    for n in lengths:
        first, second = sorted((draw(st.integers(0, n)), draw(st.integers(0, n))))
        labels += ["train"] * first + ["valid"] * (second - first) + ["test"] * (n - second)
    method = draw(st.sampled_from(["leave-one-out", "leave-last-out", "temporal", "published"]))
    history = draw(st.sampled_from([None, 1, 3, 50]))
    ratios = draw(st.sampled_from([(0.8, 0.1, 0.1), (0.4, 0.3, 0.3)]))
    return make(sequences, SplitRule(method, history, ratios), times, labels)


@given(datasets())
def test_training_never_sees_a_target_and_histories_end_right_before_it(dataset: Dataset) -> None:
    whole, train = dataset.sequences, dataset.train
    assert list(train.users) == list(whole.users)
    place_of = {user: i for i, user in enumerate(whole.users)}
    asked: dict[str, list[int]] = {user: [] for user in whole.users}
    for name in ("valid", "test"):
        try:
            requests = dataset.split(name)
        except DataError:
            continue
        for i, user in enumerate(requests.users):
            sequence = whole[place_of[user]].tolist()
            unknown = requests.targets[i] == -1
            # targets follow training one by one; a sequence's first item has no history: never asked for
            first = max(len(train[place_of[user]]), 1)
            position = len(sequence) if unknown else first + len(asked[user])
            assert unknown or sequence[position] == requests.targets[i]
            shown = requests.history(i).tolist()
            limit = dataset.rule.history or len(sequence)
            assert shown == sequence[max(0, position - limit) : position]
            assert len(shown) > 0
            if not unknown:
                asked[user].append(position)
    for i, user in enumerate(whole.users):
        kept = train[i].tolist()
        assert kept == whole[i].tolist()[: len(kept)]
        assert not [position for position in asked[user] if position < len(kept)]
        # nobody is forgotten: all that is no training is asked for, save a first item
        if dataset.rule.method != "leave-last-out":
            assert asked[user] == list(range(max(len(kept), 1), len(whole[i])))


@given(datasets())
def test_every_interaction_has_one_label_and_counts_add_up(dataset: Dataset) -> None:
    labels = dataset.labels
    assert len(labels) == len(dataset.interactions)
    assert len(dataset.train.items) == int((labels == 0).sum())
    for i in range(len(dataset.sequences)):
        mine = labels[dataset.sequences.offsets[i] : dataset.sequences.offsets[i + 1]]
        assert (np.diff(mine) >= 0).all()


@given(datasets())
def test_temporal_splits_no_earlier_target_later(dataset: Dataset) -> None:
    dataset = dataset.with_split(SplitRule("temporal"))
    times, labels = dataset.sequences.timestamps, dataset.labels
    assert times is not None
    targets = np.ones(len(times), bool)
    targets[dataset.sequences.offsets[:-1]] = False
    for low, high in ((0, 1), (1, 2), (0, 2)):
        before, after = times[targets & (labels == low)], times[targets & (labels == high)]
        assert not len(before) or not len(after) or before.max() <= after.min()

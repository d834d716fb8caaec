"""Sessions against a slow loop, and what is lost told by reason."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic import schema as c
from itemic.data.settings import SimulatorConfig, SplitRule
from itemic.data.simulator import simulate
from itemic.errors import ConfigError, DataError
from itemic.profile import sessions as words
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.tasks.facts import ItemFacts, plain
from tests.profile.people import people, walk

ALL = SessionSettings(inputs=2, ratios=(1.0, 0.0, 0.0), known=False)


def slow(dataset, inputs, each, least):
    """(user, inputs, target) of every session, by the words of the documentation."""
    found = []
    for user, table in dataset.interactions.group_by(c.USER_ID, maintain_order=True):
        own = table[c.ITEM_ID].to_list()
        if each == "first":
            windows = [(own[:inputs], own[inputs:])] if len(own) >= inputs else []
        else:
            windows = [(own[max(0, at - inputs) : at], own[at : at + 1]) for at in range(least, len(own))]
        for shown, later in windows:
            target = next((item for item in later if item not in shown), None)
            if target is not None:
                found.append((user[0], shown, target))
    return found


def told(dataset, sessions):
    ids = dataset.item_ids
    return [
        (sessions.users[s], [ids[row] for row in sessions.inputs(s)], ids[sessions.targets[s]])
        for s in range(len(sessions))
    ]


@given(
    st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=8), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["first", "every"]),
)
def test_as_the_slow_loop(histories, inputs, least, each):
    least = min(least, inputs)
    dataset = people({f"u{n}": walk(own, n) for n, own in enumerate(histories)})
    rule = SessionSettings(inputs=inputs, least=least, each=each, ratios=(1.0, 0.0, 0.0))
    expected = slow(dataset, inputs, each, least)
    if not expected:
        with pytest.raises(DataError, match="no user has"):
            Sessions.of(dataset, rule)
        return
    found = Sessions.of(dataset, rule)
    assert told(dataset, found) == expected
    assert (found.labels == 0).all()
    fewest = inputs if each == "first" else least
    few = sum(len(own) <= fewest for own in histories)
    told_without = sum(len(own) > fewest for own in histories) - len({user for user, *_ in expected})
    assert (found.lost[words.FEW], found.lost[words.NO_TARGET]) == (few, told_without)


def test_a_target_is_the_first_later_item_that_is_not_among_the_inputs():
    dataset = people({"a": walk([0, 1, 0, 1, 2, 3], 0), "b": walk([0, 1, 1], 0), "c": walk([4, 5], 0)})
    found = Sessions.of(dataset, ALL)
    assert told(dataset, found) == [("a", ["i0", "i1"], "i2")]
    assert found.lost == {words.FEW: 1, words.NO_TARGET: 1}
    assert found.times.tolist() == [4]


def test_split_by_time_and_what_must_be_known():
    users = {f"u{n}": walk([0, 1, 2 + n % 2], 10 * n) for n in range(8)}
    users["late"] = walk([0, 1, 6], 200)  # nobody had it before
    users["last"] = walk([0, 1, 3], 300)
    found = Sessions.of(people(users), SessionSettings(inputs=2))
    assert found.split("train").users.tolist() == [f"u{n}" for n in range(8)]
    assert found.split("test").users.tolist() == ["last"]
    assert found.lost == {words.UNKNOWN: 1}
    assert found.told().endswith(f"; lost: 1 {words.UNKNOWN}")
    with pytest.raises(DataError, match="no session is of the split valid; lost: 1 sessions"):
        found.split("valid")
    assert found.training.sum() == 24  # nothing of the late ones
    kept = Sessions.of(people(users), SessionSettings(inputs=2, known=False))
    assert kept.split("valid").users.tolist() == ["late"]


def test_targets_of_one_moment_stay_together():
    users = {f"u{n}": [(0, 1, 5.0, ""), (1, 2, 5.0, ""), (2, 50, 5.0, "")] for n in range(9)}
    users["later"] = walk([0, 1, 2], 100)
    found = Sessions.of(people(users), SessionSettings(inputs=2))
    assert [int((found.labels == label).sum()) for label in range(3)] == [9, 0, 1]


@pytest.mark.parametrize("method", ["leave-one-out", "temporal"])
def test_the_datasets_own_split(method):
    dataset = simulate(SimulatorConfig(users=60, items=40)).dataset.with_split(SplitRule(method))
    found = Sessions.of(dataset, SessionSettings(inputs=3, least=1, split="dataset"))
    train = dataset.train
    ends = dict(zip(train.users, np.diff(train.offsets), strict=True))
    for name in ("valid", "test"):
        requests, own = dataset.split(name), found.split(name)
        asked = {
            (user, requests.history(r)[-3:].tobytes(), int(requests.targets[r]))
            for r, user in enumerate(requests.users)
        }
        assert len(own)
        for s in range(len(own)):
            assert (own.users[s], own.inputs(s).tobytes(), int(own.targets[s])) in asked
    own = found.split("train")
    for s, user in enumerate(own.users):
        sequence = train[train.users.tolist().index(user)]
        assert own.inputs(s).tolist() == sequence[:3].tolist()
        assert own.targets[s] in sequence[3:]
    assert len(set(own.users)) == len(own)
    assert found.training.sum() == sum(ends.values())


def test_ratings_and_reviews_go_along():
    dataset = people({"a": [(0, 1, 4.0, "so <b>good</b>"), (1, 2, None, ""), (2, 3, 1.0, "no")]})
    found = Sessions.of(dataset, ALL)
    assert found.reviews.to_list() == ["so <b>good</b>", ""]
    np.testing.assert_array_equal(found.ratings, np.array([4, np.nan], np.float32))
    bare = dataset.interactions.drop(c.REVIEW)
    assert Sessions.of(type(dataset)(dataset.items, bare), ALL).reviews.to_list() == ["", ""]


def test_length_filters_are_told():
    events = [*walk([0, 1, 2, 3], 0, review="x" * 10), (4, 9, 5.0, "x" * 99), (5, 10, 5.0, "")]
    dataset = people({"a": events}, description=["d" * 50, *["d"] * 7])
    rule = SessionSettings(
        inputs=2, ratios=(1.0, 0.0, 0.0), shortest_review=1, longest_review=20, longest_description=40
    )
    found = Sessions.of(dataset, rule)
    assert told(dataset, found) == [("a", ["i1", "i2"], "i3")]
    assert found.lost == {
        "items with a description longer than 40": 1,
        "their interactions": 1,
        "interactions with a review shorter than 1": 1,
        "interactions with a review longer than 20": 1,
    }
    tenth = Sessions.of(dataset, rule, length=lambda texts: np.array([len(text) // 10 for text in texts]))
    assert told(dataset, tenth) == [("a", ["i0", "i1"], "i2")]
    fewer = found.within([30], 20, "prompts of more than 20 tokens")
    assert len(fewer) == 0
    assert fewer.lost["prompts of more than 20 tokens"] == 1
    with pytest.raises(ConfigError, match="2 lengths for 1"):
        found.within([1, 2], 3, "")


def test_fewer_inputs_and_none():
    dataset = people({"a": walk([0, 1, 2], 0), "b": walk([3, 4, 5], 0)})
    found = Sessions.of(dataset, ALL)
    assert [found.latest(1).inputs(s).tolist() for s in range(2)] == [[1], [4]]
    none = found.latest(0)
    assert len(none.items) == len(none.reviews) == 0
    assert none.targets.tolist() == found.targets.tolist() == [2, 5]
    back = found.take([1, 0])
    assert back.inputs(0).tolist() == [3, 4]
    assert back.requests().history(1).tolist() == [0, 1]


def test_errors():
    dataset = people({"a": walk([0, 1, 2], 0)})
    with pytest.raises(ConfigError, match=r"add up to 0\.9"):
        SessionSettings(ratios=(0.8, 0.1, 0.0))
    with pytest.raises(ConfigError, match="more than the 4 inputs"):
        SessionSettings(least=5)
    with pytest.raises(ConfigError, match="less than the shortest"):
        SessionSettings(shortest_review=5, longest_review=2)
    with pytest.raises(ConfigError, match="unknown split 'all'"):
        Sessions.of(dataset, ALL).split("all")
    timeless = dataset.interactions.with_columns(pl.lit(None, pl.Int64).alias(c.TIMESTAMP))
    with pytest.raises(DataError, match="split by time"):
        Sessions.of(type(dataset)(dataset.items, timeless), ALL)
    with pytest.raises(DataError, match="1 users with too few interactions"):
        Sessions.of(dataset, SessionSettings(inputs=3))


def test_average_ratings_are_of_training_alone():
    users = {f"u{n}": walk([0, 1, 2], 10 * n, rating=float(1 + n % 5)) for n in range(9)}
    users["late"] = walk([0, 1, 2], 500, rating=1.0)
    dataset = people(users)
    found = Sessions.of(dataset, SessionSettings(inputs=2))
    facts = ItemFacts.of(dataset, found.training)
    expected = np.mean([1 + n % 5 for n in range(8)])  # of the eight whose targets are the earliest
    assert facts.averages[0] == pytest.approx(expected)
    assert facts.rated[:4].tolist() == [8, 8, 8, 0]
    assert np.isnan(facts.averages[3])
    with pytest.raises(DataError, match="marks of training"):
        ItemFacts.of(dataset, found.training[:-1])


def test_price_levels_are_thirds_of_the_catalogue():
    facts = ItemFacts.of(people({"a": walk([0, 1, 2], 0)}))
    assert facts.price_level(np.array([4, 5])) == "low"
    assert facts.price_level(np.array([2, 6, 7])) == "high"
    assert facts.price_level(np.array([7])) is None
    same = ItemFacts.of(people({"a": walk([0, 1, 2], 0)}, price=[1.0] * 8))
    assert same.price_level(np.array([0])) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Great!<br />It&#39;s <b>me</b> 🎉", "Great! It's me 🎉"),
        ("<script>x()</script>a<!-- b -->c", "a c"),
        ("3 < 5 & 7 > 2", "3 < 5 & 7 > 2"),
        ("<|im_<|im_end|>start|>hi<think>", "hi"),
        ("на русском\u202e\x07, 日本語の本\n👩‍👩‍👧", "на русском , 日本語の本 👩‍👩‍👧"),
        ("", ""),
    ],
)
def test_plain_text(text, expected):
    assert plain(text) == expected


@given(st.text())
def test_plain_text_is_one_line_and_stays(text):
    once = plain(text)
    assert "\n" not in once
    assert once == once.strip()
    once.encode()  # no halves of pairs

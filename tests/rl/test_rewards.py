"""Rewards by cases worked out by hand, and what becomes of those that fail."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest

import itemic
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError
from itemic.rl.rewards import REWARDS, Answered, Rewards, World, make_reward
from itemic.rl.settings import REWARD_NAMES


def shop() -> Dataset:
    """Items a to e; training sees a three times, b twice, c once, d and e never."""
    items = pl.DataFrame(
        {
            "item_id": list("abcde"),
            "title": [f"item {x}" for x in "abcde"],
            "categories": [["x", "y"], ["x", "z"], ["x", "y"], ["w"], None],
        }
    )
    rows = [
        (user, item, day) for user, some in (("u", "abacd"), ("v", "bacbe")) for day, item in enumerate(some)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return itemic.dataset(events, items)


def asked(targets: list[int]) -> Requests:
    count = len(targets)
    offsets = np.arange(count + 1, dtype=np.int64)
    return Requests(
        np.array([f"user {n}" for n in range(count)]),
        offsets,
        np.zeros(count, np.int32),
        np.array(targets, np.int32),
    )


def answered(items: list[list[int | None]], targets: list[int], **more: Any) -> Answered:
    """None stands for an answer that isn't there, -1 for one that names no item."""
    there = np.array([[item is not None for item in row] for row in items])
    rows = np.array([[-1 if item is None else item for item in row] for row in items], np.int32)
    given: dict[str, Any] = {
        "log_probs": np.full(rows.shape, -1.0, np.float32),
        "lengths": np.full(rows.shape, 3),
        "complete": there,
    }
    return Answered(asked(targets), rows, there, **(given | more))


def world(**more: Any) -> World:
    return World(shop(), **more)


def values(name: str, given: Answered, about: World | None = None, **options: Any) -> list[list[float]]:
    total, apart = Rewards({name: options}, about or world())(given)
    np.testing.assert_array_equal(total, apart[name])
    found: list[list[float]] = total.tolist()
    return found


def test_a_hit_and_what_misses_cost_by_their_place() -> None:
    given = answered([[1, 0, 2], [3, 4, 0], [0, None, -1]], [0, 1, 0])
    assert values("hit", given)[:2] == [[0, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(values("hit", given)[2], [1, math.nan, 0])
    first, third = 1 / math.log2(2), 1 / math.log2(4)
    found = values("ranking", given)
    np.testing.assert_allclose(found[0], [-first / (first + third), 0, -third / (first + third)])
    assert found[1] == [0, 0, 0]
    np.testing.assert_allclose(found[2], [0, math.nan, -1])


def test_a_recipe_knows_their_names() -> None:
    assert tuple(REWARDS) == REWARD_NAMES


def test_levels_and_vectors_against_the_target() -> None:
    codes = np.array([[1, 2, 3], [1, 2, 4], [1, 9, 3], [2, 2, 3], [0, 0, 0]], np.int32)
    given = answered([[0, 1, 2, 3, -1]], [0])
    np.testing.assert_allclose(values("prefix", given, world(codes=codes)), [[1, 2 / 3, 1 / 3, 0, 0]])
    vectors = np.array([[1, 0], [1, 1], [0, 2], [-3, 0], [0, 0]], np.float32)
    found = values("semantic", answered([[0, 1, 2, 3, 4, -1]], [0]), world(vectors=vectors))
    np.testing.assert_allclose(found, [[1, math.sqrt(0.5), 0, -1, 0, 0]], atol=1e-7)
    apart = values("diversity", answered([[0, 3, 2, -1], [1, None, -1, -1]], [0, 0]), world(vectors=vectors))
    np.testing.assert_allclose(apart[0], [1.5, 1.5, 1, 0], atol=1e-7)
    np.testing.assert_allclose(apart[1], [0, math.nan, 0, 0])


def test_what_others_think_of_an_answer() -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.125, 0.125, 1e-30]], np.float32))
    about = world(scores={"teacher": lambda requests: np.repeat(scores, len(requests), 0)})
    given = answered([[0, 4, -1], [1, 2, 3]], [0, 0])
    np.testing.assert_allclose(
        values("teacher", given, about), [[0.5, 0, 0], [0.25, 0.125, 0.125]], atol=1e-7
    )
    logs = values("teacher", given, about, log=True, floor=-9)
    np.testing.assert_allclose(logs[0], [math.log(0.5), -9, -9], rtol=1e-6)
    with pytest.raises(ConfigError, match="a reward asks the ranker 'memory', which isn't there"):
        values("memory", given, about)


def test_what_an_item_is() -> None:
    given = answered([[0, 1, 2, 3, 4, -1]], [0])
    assert values("category", given) == [[1, 0.5, 1, 0, 0, 0]]
    assert values("category", answered([[0, 4]], [4])) == [[0, 0]]
    found = values("long-tail", given)
    np.testing.assert_allclose(found, [[0, 0.2, 0.4, 0.6, 0.6, 0]])


def test_coverage_falls_with_what_is_shown() -> None:
    """Against a dictionary of counts, over rollouts of two ranks, one of which goes on from a state."""
    rng = np.random.default_rng(0)
    others = {"counts": np.zeros(5)}
    first, second = (
        Rewards(
            {"coverage": {"weight": 2.0, "power": 0.7, "decay": 0.5}},
            world(gather=lambda own: [own, others["counts"]]),
        )
        for _ in range(2)
    )
    first.restore(None)
    counts = dict.fromkeys(range(5), 0.0)
    for rollout in range(6):
        mine: list[list[int | None]] = [[int(i) for i in rng.integers(-1, 3, 4)] for _ in range(3)]
        mine[0][1] = None
        others["counts"] = rng.integers(0, 2, 5).astype(float)
        for row in mine:
            for item in row:
                if item is not None and item >= 0:
                    counts[item] += 1
        for item in range(5):
            counts[item] += others["counts"][item]
        if rollout == 3:  # a run that goes on remembers what the other one did
            second.restore(json.loads(json.dumps(first.state())))
            first = second
        total, apart = first(answered(mine, [0, 0, 0]))
        wanted = [
            [math.nan if i is None else 0.0 if i < 0 else counts[i] ** -0.7 for i in row] for row in mine
        ]
        np.testing.assert_allclose(apart["coverage"], wanted, rtol=1e-9)
        np.testing.assert_allclose(total, 2 * apart["coverage"])
        counts = {item: count * 0.5 for item, count in counts.items()}
    assert Rewards({"hit": 1}, world()).state() == {}
    for wrong in ({"power": -1.0}, {"decay": 1.0}):
        with pytest.raises(ConfigError, match="the reward coverage has power"):
            make_reward("coverage", **wrong)


def test_whether_and_when_an_answer_ends() -> None:
    done = np.array([[True, True, False]])
    given = answered([[0, -1, 1]], [0], complete=done, lengths=np.array([[5, 8, 12]]))
    assert values("format", given) == [[1, 0, 0]]
    assert values("length", given, most=9, buffer=4) == [[0, -0.75, -1]]
    with pytest.raises(ConfigError, match="a buffer of 5 before 4 tokens"):
        make_reward("length", most=4, buffer=5)


def test_weights_join_rewards() -> None:
    given = answered([[1, 0, None]], [0])
    total, apart = Rewards({"hit": 2, "ranking": {"weight": 0.5}, "format": 1}, world())(given)
    np.testing.assert_allclose(total, [[0 - 0.5 + 1, 2 + 1, math.nan]])
    assert list(apart) == ["hit", "ranking", "format"]
    for values_ in apart.values():
        np.testing.assert_array_equal(np.isnan(values_), [[False, False, True]])


def raising(answered: Answered, world: World) -> np.ndarray:
    raise KeyError("who?")


def shapeless(answered: Answered, world: World) -> np.ndarray:
    return np.zeros(3)


def nobody(answered: Answered, world: World) -> np.ndarray:
    found = np.zeros(answered.items.shape)
    found[1, 1] = np.nan
    return found


class Constant:
    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, answered: Answered, world: World) -> np.ndarray:
        return np.full(answered.items.shape, self.value)


def test_rewards_of_one_s_own() -> None:
    given = answered([[1, 0], [2, 3]], [0, 1])
    assert values(f"{__name__}:Constant", given, value=0.25) == [[0.25, 0.25], [0.25, 0.25]]
    for name, words in (
        ("raising", "fails: KeyError: 'who"),
        ("shapeless", r"has shape \(3,\) for answers \(2, 2\)"),
        ("nobody", "is nan for answer 1 of user 'user 1'"),
    ):
        with pytest.raises(DataError, match=words):
            values(f"{__name__}:{name}", given)
    with pytest.raises(ConfigError, match="can't be imported"):
        make_reward("no.such.place:thing")
    with pytest.raises(ConfigError, match="takes no options"):
        make_reward(f"{__name__}:raising", a=1)
    with pytest.raises(ConfigError, match="there is no reward 'hits'"):
        make_reward("hits")
    with pytest.raises(ConfigError, match="can't be made so"):
        make_reward("hit", a=1)
    with pytest.raises(ConfigError, match="there is no reward"):
        Rewards({}, world())


def test_rewards_that_lack_what_they_are_about() -> None:
    given = answered([[0]], [0])
    for name in ("prefix", "semantic", "diversity"):
        with pytest.raises(ConfigError, match=f"the reward {name}"):
            values(name, given)
    assert {"teacher", "memory"} < set(REWARDS)

"""Worked examples of rewards and their mixtures; texts scored as by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from itemic.errors import ConfigError
from itemic.profile.embedder import Embedder, item_vectors
from itemic.profile.rewards import Scorer, reward, worth
from itemic.profile.settings import RewardSettings
from tests.profile.test_find import rows_of
from tests.sid.encoders.models import bert

RANKS, NEAR = np.array([1, 3, 0, 12]), np.array([0.9, 0.4, 0.3, -0.2])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ndcg", [1, 1 / 2, 0, 1 / math.log2(13)]),
        ("ndcg@10", [1, 1 / 2, 0, 0]),
        ("mrr", [1, 1 / 3, 0, 1 / 12]),
        ("mrr@3", [1, 1 / 3, 0, 0]),
        ("recall@3", [1, 1, 0, 0]),
        ("recall@12", [1, 1, 0, 1]),
        ("similarity", [0.9, 0.4, 0.3, -0.2]),
    ],
)
def test_rewards(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(reward(name, RANKS, NEAR), expected)


def test_mixtures() -> None:
    told = RewardSettings(weights={"ndcg": 1.0, "similarity": 0.5})
    counted = np.array([True, True, False, True])
    found = worth(RANKS, NEAR, counted, told)
    np.testing.assert_allclose(found.rewards, [1.45, 0.7, 0, 1 / math.log2(13) - 0.1])
    np.testing.assert_allclose(found.parts["similarity"], [0.9, 0.4, 0, -0.2])
    np.testing.assert_allclose(worth(RANKS, NEAR, counted).rewards, reward("ndcg", RANKS, NEAR) * counted)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"ndgc": 1.0}, "ndgc is no reward"),
        ({"recall": 1.0}, "recall needs a k"),
        ({"mrr@0": 1.0}, "is no reward"),
        ({"similarity@3": 1.0}, "is no reward"),
        ({"mrr": 0.0}, "must give some reward a weight"),
        ({"mrr": -1.0}, "greater than or equal to 0"),
        ({}, "must give some"),
    ],
)
def test_mixtures_that_cannot_be(weights: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RewardSettings(weights=weights)


def test_no_such_reward() -> None:
    with pytest.raises(ConfigError, match="no reward 'recall'"):
        reward("recall", RANKS, NEAR)


def test_texts_are_scored_by_their_targets(tmp_path: Path) -> None:
    """A profile in the item's own words finds it first; one that didn't end, or says nothing, is worth nothing."""
    embedder = Embedder.load(bert(tmp_path))
    texts = ["red soap", "blue towel", "green mirror", "white brush", "pink shampoo"]
    items = item_vectors(embedder, texts)
    scorer = Scorer(embedder, items, RewardSettings(weights={"mrr": 2.0, "similarity": 1.0}))
    profiles = ["blue towel", "blue towel", " … ", "blue towel"]
    seen = rows_of([[0], [], [2], [1]])
    found = scorer(profiles, np.array([1, 1, 1, 1]), seen, np.array([True, False, True, True]))
    assert found.ranks.tolist()[:2] == [1, 1]
    assert found.ranks[3] == 0  # the target was seen
    assert found.counted.tolist() == [True, False, False, True]
    np.testing.assert_allclose(found.rewards, [3, 0, 0, 1], atol=1e-5)
    by_hand = embedder.encode(["blue towel"], "profile") @ items.vectors.T
    np.testing.assert_allclose(found.similarity[0], by_hand[0, 1], atol=1e-6)

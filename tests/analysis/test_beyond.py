"""Figures beyond accuracy of whole rankings."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from itemic import schema as c
from itemic.analysis import beyond as module
from itemic.analysis.beyond import beyond
from itemic.analysis.evidence import Evidence, gather
from itemic.data.dataset import Dataset
from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.stream import rank_all
from itemic.metrics import ndcg
from tests.evaluate.helpers import random_dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    plain = random_dataset(300)
    path = [["All", f"part {row % 5}"] for row in range(len(plain.items))]
    return replace(plain, items=plain.items.with_columns(pl.Series(c.CATEGORIES, path)))


def evidence_of(dataset: Dataset, kind: type) -> Evidence:
    ranking = rank_all(kind(dataset), dataset.split("test"), dataset.item_ids)
    return gather(ranking, dataset, k=10)


def test_figures_equal_slow_loops(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 70)  # several chunks
    monkeypatch.setattr(module, "LEAST", 20)
    evidence = evidence_of(dataset, Transitions)
    found = beyond(evidence)
    train = [set(dataset.train[user].tolist()) for user in range(len(dataset.train))]
    had = np.array([sum(row in one for one in train) for row in range(len(dataset.items))])
    rows = [[i for i in one if i >= 0] for one in evidence.top.tolist()]
    novel = [np.mean([-np.log2(max(had[i], 1) / len(train)) for i in one]) for one in rows]
    assert found["novelty@10"] == pytest.approx(np.mean(novel))
    apart = [np.mean([(i - j) % 5 != 0 for i, j in combinations(one, 2)]) for one in rows]
    assert found["diversity@10"] == pytest.approx(np.mean(apart))
    assert found["coverage@10"] == len(set().union(*rows)) / len(dataset.items)
    quality, part = ndcg(evidence.ranks, 10), evidence.requests.targets % 5
    means = [quality[part == one].mean() for one in range(5)]
    assert found["ndcg@10 gap by category"] == pytest.approx(max(means) - min(means))
    assert "ndcg@10 gap by history length" in found


def test_popularity_is_neither_novel_nor_calibrated(dataset: Dataset) -> None:
    one, other = (beyond(evidence_of(dataset, kind)) for kind in (Transitions, Popularity))
    assert one["novelty@10"] > other["novelty@10"]
    assert one["popularity@10"] < other["popularity@10"]
    assert one["coverage@10"] > other["coverage@10"]
    assert one["serendipity@10"] > other["serendipity@10"]


def test_what_nothing_has_is_left_out() -> None:
    found = beyond(evidence_of(random_dataset(40), Popularity))
    assert "novelty@10" in found
    assert not [name for name in found if "category" in name or "gap" in name]

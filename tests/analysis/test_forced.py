"""Targets that the search lost: forced through the model, against a search that loses nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from itemic.analysis import DETECTORS, Thresholds, analyze, gather
from itemic.analysis.forced import force
from itemic.data.dataset import Dataset
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.evaluate.recommend import ModelRanker
from itemic.evaluate.stream import rank_all
from itemic.model import Model, new_model
from itemic.sid.index import ItemIndex

WIDE = 60  # beams, no fewer than items: nothing is lost


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    config = SimulatorConfig(users=60, items=60, categories=6, brands=6, shortest=4, longest=8)
    return simulate(config, seed=0).dataset


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    rows = np.arange(60)
    codes = np.stack([rows % 4, rows // 4 % 4, rows // 16], axis=1).astype(np.int32)
    index = ItemIndex(dataset.item_ids, codes, (4, 4, 4))
    return new_model("qwen3-nano", index, dataset.items["title"].to_list(), seed=0)


def test_targets_have_the_scores_of_a_search_without_loss(model: Model, dataset: Dataset) -> None:
    narrow, wide = (ModelRanker(model, task="sequence", beams=beams) for beams in (4, WIDE))
    test = dataset.split("test")
    items, scores = wide.rank(test, WIDE)
    evidence = gather(rank_all(narrow, test, dataset.item_ids, k=4), dataset, k=3)
    # whoever asks an odd question wants the best that the narrow search lacks
    lost = [
        next(item for item in row if item not in own) for row, own in zip(items, evidence.items, strict=True)
    ]
    targets = np.where(np.arange(len(test)) % 2, lost, test.targets).astype(np.int32)
    test = replace(test, targets=targets)
    evidence = replace(evidence, requests=test)
    forced = force(narrow, evidence)
    asked = evidence.ranks == 0
    assert np.isnan(forced[~asked]).all()
    exact = np.array([row[items[at] == test.targets[at]][0] for at, row in enumerate(scores)])
    assert forced[asked] == pytest.approx(exact[asked], abs=1e-4)
    found = DETECTORS["pruned_by_beam"].find(replace(evidence, forced=forced), Thresholds())
    truth = asked & (exact > evidence.scores[:, 2] + 1e-6)
    assert found.flags.tolist() == truth.tolist()
    assert truth.any()
    said, _ = analyze(replace(evidence, forced=forced), detectors=["pruned_by_beam"])
    assert said.causes[0].bad == truth.sum()


def test_a_sample_is_asked_where_there_are_many(model: Model, dataset: Dataset) -> None:
    ranker = ModelRanker(model, task="sequence", beams=4)
    evidence = gather(rank_all(ranker, dataset.split("test"), dataset.item_ids, k=4), dataset, k=3)
    forced = force(ranker, evidence, most=7)
    assert (~np.isnan(forced)).sum() == 7
    assert np.array_equal(forced, force(ranker, evidence, most=7), equal_nan=True)


def test_targets_that_are_left_out_with_the_history_have_no_score(model: Model, dataset: Dataset) -> None:
    ranker = ModelRanker(model, task="sequence", beams=4)
    test = dataset.split("test")
    test = replace(test, targets=np.array([test.history(row)[0] for row in range(len(test))], np.int32))
    ranking = rank_all(ranker, dataset.split("test"), dataset.item_ids, k=4, exclude_history=True)
    evidence = replace(gather(ranking, dataset, k=3), requests=test)
    assert np.isnan(force(ranker, evidence)).all()

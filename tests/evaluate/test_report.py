from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.data.settings import SplitRule
from itemic.errors import ArtifactError, ConfigError, DataError, IndexMismatchError
from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.ranking import Ranking, RankingWriter
from itemic.evaluate.report import UNLABELLED, Report, score
from itemic.evaluate.stream import rank_all
from tests.evaluate.helpers import random_dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset(150)


@pytest.fixture(scope="module")
def ranking(dataset: Dataset) -> Ranking:
    return rank_all(Transitions(dataset), dataset.split("test"), dataset.item_ids, k=20, part_size=40)


def test_equals_scikit_learn_over_the_whole_catalogue(dataset: Dataset) -> None:
    test, n = dataset.split("test"), len(dataset.item_ids)
    ranker = Transitions(dataset)
    items, scores = ranker.rank(test, n)
    by_item = np.take_along_axis(scores, np.argsort(items, axis=1), axis=1)
    report = score(rank_all(ranker, test, dataset.item_ids, k=n), k=[1, 5, 10])
    relevance = np.eye(n)[test.targets]
    for k in (5, 10):
        exact = ndcg_score(relevance, by_item, k=k)
        assert report.item[f"ndcg@{k}"].value == pytest.approx(exact, abs=0.002)  # ties are averaged there
    top = np.argsort(-by_item, axis=1, kind="stable")[:, 0]
    assert report.item["hr@1"].value == pytest.approx((top == test.targets).mean(), abs=0.01)


def test_hand_computed(tmp_path: Path) -> None:
    requests = Requests(
        np.array(["a", "b", "c", "a"], object),
        np.array([0, 1, 3, 10, 11]),
        np.zeros(11, np.int32),
        np.array([0, 1, 2, -1], np.int32),
    )
    # items 0 and 3 share a semantic ID
    writer = RankingWriter(
        tmp_path, "mine", requests, list("wxyz"), 2, sids=["<0>", "<1>", "<2>", "<0>"], part_size=3
    )
    writer.write(0, np.array([[3, 0], [1, 2], [0, 3]], np.int32), np.zeros((3, 2), np.float32))
    writer.write(1, np.array([[1, -1]], np.int32), np.zeros((1, 2), np.float32))
    report = score(writer.ranking, k=[1, 2])
    assert (report.requests, report.scored) == (4, 3)
    assert report.item["hr@1"].value == pytest.approx(1 / 3)
    assert report.item["mrr@2"].value == pytest.approx((1 / 2 + 1) / 3)
    assert report.item["ndcg@2"].value == pytest.approx((1 / np.log2(3) + 1) / 3)
    assert report.sid["hr@1"].value == pytest.approx(2 / 3)
    assert report.exposure["coverage@1"] == 0.75
    assert report.exposure["coverage@2"] == 1
    assert report.exposure["validity@2"] == 7 / 8
    assert [(part.name, part.requests) for part in report.slices["history length"]] == [
        ("1–4", 2),
        ("5–9", 1),
    ]
    assert report.slices["history length"][0].metrics["hr@2"] == 1
    assert "1 requests have no known target" in report.notes[0]


def test_parts_do_not_change_the_report(dataset: Dataset, ranking: Ranking) -> None:
    whole = rank_all(Transitions(dataset), dataset.split("test"), dataset.item_ids, k=20, part_size=1000)
    assert score(whole, dataset) == score(ranking, dataset)


def test_slices_are_parts_of_the_whole(dataset: Dataset, ranking: Ranking) -> None:
    report = score(ranking, dataset)
    assert report.split == "test"
    for slices in report.slices.values():
        assert sum(part.requests for part in slices) == report.scored
        mean = sum(part.requests * part.metrics["ndcg@10"] for part in slices) / report.scored
        assert mean == pytest.approx(report.item["ndcg@10"].value)


def test_intervals_hold_the_mean_and_follow_the_seed(ranking: Ranking) -> None:
    report = score(ranking)
    assert all(each.low <= each.value <= each.high for each in report.item.values())
    assert score(ranking, seed=1).item["hr@10"].low != pytest.approx(report.item["hr@10"].low, abs=1e-9)


def test_without_sids_there_is_no_sid_level(ranking: Ranking) -> None:
    assert score(ranking).sid == {}


def test_distinct_sids_agree_with_the_item_level(dataset: Dataset) -> None:
    sids = [f"<{item}>" for item in dataset.item_ids]
    report = score(
        rank_all(Popularity(dataset), dataset.split("valid"), dataset.item_ids, sids=sids), dataset
    )
    assert report.split == "valid"
    assert report.sid == report.item


def test_leave_last_out_has_predictions_and_no_metrics(dataset: Dataset) -> None:
    late = dataset.with_split(SplitRule("leave-last-out"))
    ranking = rank_all(Popularity(late), late.split("test"), late.item_ids)
    report = score(ranking, late)
    assert report.notes == [UNLABELLED]
    assert (report.item, report.scored, report.requests, report.split) == ({}, 0, 150, "test")
    assert report.exposure["coverage@10"] > 0


def test_a_report_survives_its_file(ranking: Ranking, dataset: Dataset, tmp_path: Path) -> None:
    report = score(ranking, dataset, k=[5, 10])
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report
    (tmp_path / "report.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match=r"report\.json is not a report"):
        Report.load(tmp_path / "report.json")


def test_the_best_reachable_is_shown_unless_the_data_was_filtered(dataset: Dataset, ranking: Ranking) -> None:
    def best(requests: int) -> dict[str, float]:
        stored = {"leave-one-out": {"test": {"requests": requests, "metrics": {"ndcg@10": 0.9}}}}
        marked = Dataset(
            dataset.items, dataset.interactions, "x", dataset.rule, {"simulation": {"best": stored}}
        )
        return score(ranking, marked).best

    assert best(len(ranking)) == {"ndcg@10": 0.9}
    assert best(len(ranking) + 1) == {}


def test_faults_say_what_to_do(ranking: Ranking, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="between 1 and 20"):
        score(ranking, k=[50])
    other = random_dataset(5, items=7)
    with pytest.raises(
        IndexMismatchError, match=f"of catalogue {dataset.catalogue}, .* of {other.catalogue}"
    ):
        score(ranking, other)
    RankingWriter(tmp_path, "mine", dataset.split("test"), dataset.item_ids, 20)
    with pytest.raises(ArtifactError, match="lacks"):
        score(Ranking.load(tmp_path))

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from itemic.analysis import gather
from itemic.analysis.evidence import labels_of
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import score
from itemic.evaluate.stream import rank_all
from tests.evaluate.helpers import random_dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset(150)


def ranking_of(dataset: Dataset, requests: Requests, exclude: bool = False) -> Ranking:
    ranker = Transitions(dataset)
    return rank_all(ranker, requests, dataset.item_ids, k=20, part_size=40, exclude_history=exclude)


def test_reads_what_the_report_measures(dataset: Dataset) -> None:
    ranking = ranking_of(dataset, dataset.split("test"))
    evidence = gather(ranking, dataset, k=5)
    report = score(ranking, dataset, k=[5])
    assert (evidence.split, len(evidence)) == ("test", report.scored)
    assert 1 - evidence.bad.mean() == pytest.approx(report.item["hr@5"].value)
    assert (evidence.top.shape, evidence.items.shape) == ((150, 5), (150, 20))
    for row in (0, 77):
        assert evidence.history[[row]].sum() == evidence.lengths[row]


def test_reading_leaves_the_requests_as_they_are(dataset: Dataset) -> None:
    evidence = gather(ranking_of(dataset, dataset.split("test")), dataset)
    before = evidence.requests.items.copy(), evidence.requests.offsets.copy()
    evidence.history @ np.ones(40)
    assert (evidence.requests.items == before[0]).all()
    assert (evidence.requests.offsets == before[1]).all()


@pytest.mark.parametrize("exclude", [False, True])
def test_knows_whether_histories_were_left_out(dataset: Dataset, exclude: bool) -> None:
    assert gather(ranking_of(dataset, dataset.split("test"), exclude), dataset).excluded == exclude


def test_requests_without_a_target_are_left_out() -> None:
    dataset = random_dataset(30)
    labelled = dataset.with_split(replace(dataset.rule, method="leave-last-out"))
    with pytest.raises(ConfigError, match="no target"):
        gather(ranking_of(labelled, labelled.split("test")), labelled)
    assert gather(ranking_of(labelled, labelled.split("valid")), labelled).split == "valid"


def test_what_does_not_fit_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    ranking = ranking_of(dataset, dataset.split("test"))
    with pytest.raises(ConfigError, match="k = 21"):
        gather(ranking, dataset, k=21)
    with pytest.raises(IndexMismatchError, match="other items"):
        gather(ranking, random_dataset(30, items=41))
    with pytest.raises(DataError, match="no split"):
        gather(ranking, random_dataset(150, seed=1))
    with pytest.raises(IndexMismatchError, match="index of 3 items"):
        gather(ranking, dataset, codes=np.zeros((3, 2), np.int32))


def test_labels_are_the_most_special_shared_step_of_a_path(dataset: Dataset) -> None:
    paths = [["All", "Toys", "Cars"], ["All", "Toys", "Cars"], ["All", "Toys", "Dolls"], [], ["All"]]
    labels, names = labels_of(
        replace(dataset, items=dataset.items.head(5).with_columns(categories=pl.Series(paths)))
    )
    assert labels is not None
    said = [
        [names[at] for at in labels.indices[labels.indptr[row] : labels.indptr[row + 1]]] for row in range(5)
    ]
    assert said == [["All > Toys > Cars"], ["All > Toys > Cars"], ["All > Toys"], [], ["All"]]


def test_labels_are_tags_where_there_are_any(dataset: Dataset) -> None:
    tags = pl.Series("tags", [["Drama"], ["Comedy", "Drama"], None], pl.List(pl.String))
    labels, names = labels_of(replace(dataset, items=dataset.items.head(3).with_columns(tags)))
    assert labels is not None
    assert names == ["Comedy", "Drama"]
    assert labels.toarray().tolist() == [[False, True], [True, True], [False, False]]


def test_popularity_alone_is_read_as_well(dataset: Dataset) -> None:
    ranking = rank_all(Popularity(dataset), dataset.split("test"), dataset.item_ids, k=10)
    assert gather(ranking, dataset).name == "popularity"

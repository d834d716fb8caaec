"""Item kNN against its definition in loops, and against scikit-learn's neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.evaluate import ItemKNN, Popularity, counting
from itemic.evaluate.item_knn import similarities
from tests.evaluate.helpers import make_dataset, random_dataset
from tests.evaluate.test_baselines import requests

ITEMS = 40


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset(60, ITEMS, seed=3)


def columns(dataset: Dataset) -> np.ndarray:
    """Which user had which item in training, ``[n, U]``."""
    had = np.zeros((ITEMS, len(dataset.train)))
    for user in range(len(dataset.train)):
        had[dataset.train[user], user] = 1
    return had


def slow_similarities(dataset: Dataset, neighbours: int, shrinkage: float) -> np.ndarray:
    """The definition, pair by pair."""
    had, found = columns(dataset), np.zeros((ITEMS, ITEMS))
    for i in range(ITEMS):
        for j in range(ITEMS):
            both = (had[i] * had[j]).sum()
            if i != j and both:
                found[i, j] = both / ((had[i].sum() * had[j].sum()) ** 0.5 + shrinkage)
        order = np.argsort(-found[i], kind="stable")
        found[i, order[neighbours:]] = 0
    return found


@pytest.mark.parametrize("neighbours", [1, 5, 100])
@pytest.mark.parametrize("shrinkage", [0.0, 7.0])
def test_similarities_are_their_definition(
    dataset: Dataset, neighbours: int, shrinkage: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = slow_similarities(dataset, neighbours, shrinkage)
    for cells in (counting.CELLS, 50):  # of one chunk, or of many
        monkeypatch.setattr(counting, "CELLS", cells)
        found = similarities(dataset.train, ITEMS, neighbours, shrinkage)
        np.testing.assert_allclose(found.toarray(), truth, rtol=1e-12)


def test_the_neighbours_are_those_of_scikit_learn(dataset: Dataset) -> None:
    """Without shrinkage the similarity is the plain cosine."""
    had = columns(dataset)
    known = had.any(axis=1)
    theirs = NearestNeighbors(metric="cosine", algorithm="brute").fit(had[known])
    distance, _ = theirs.kneighbors(n_neighbors=6)
    ours = similarities(dataset.train, ITEMS, 6, 0.0).toarray()[known]
    np.testing.assert_allclose(np.sort(ours, axis=1)[:, ::-1][:, :6], 1 - distance, atol=1e-12)


@pytest.mark.parametrize("exclude", [False, True])
def test_the_ranking_is_the_mixture_of_the_neighbours(dataset: Dataset, exclude: bool) -> None:
    ranker = ItemKNN(dataset, neighbours=7, shrinkage=2.0, decay=0.6, last=3, prior=0.2)
    similar, share = slow_similarities(dataset, 7, 2.0), Popularity(dataset).share
    rows = [[1, 2, 3, 4], [5], [7, 7, 30], []]
    items, scores = ranker.rank(requests(rows), ITEMS + 2, exclude_history=exclude)
    for number, row in enumerate(rows):
        total, truth = 0.0, np.zeros(ITEMS)
        for back, item in enumerate(row[::-1][:3]):
            truth += 0.6**back * (similar[item] + 0.2 * share) / (similar[item].sum() + 0.2)
            total += 0.6**back
        truth = truth / total if row else share
        assert truth.sum() == pytest.approx(1)
        allowed = [item for item in range(ITEMS) if not (exclude and item in row)]
        found = items[number][: len(allowed)]
        assert sorted(found) == allowed
        assert (items[number][len(allowed) :] == -1).all()
        assert np.exp(scores[number, : len(allowed)]) == pytest.approx(truth[found], rel=1e-5)
        assert np.exp(scores[number, : len(allowed)]) == pytest.approx(
            np.sort(truth[allowed])[::-1], rel=1e-5
        )


def test_order_and_repetition_in_training_change_nothing() -> None:
    names = [f"i{row}" for row in range(ITEMS)]
    tail = ["i38", "i39"]
    one = make_dataset({"u": ["i1", "i2", "i3", *tail], "v": ["i2", "i3", *tail]}, names)
    two = make_dataset({"u": ["i3", "i1", "i2", "i1", *tail], "v": ["i3", "i2", *tail]}, names)
    first, second = (ItemKNN(each).counts.toarray() for each in (one, two))
    np.testing.assert_allclose(first, second)
    assert first[1].any()
    assert not first[38].any()  # only ever a target


@pytest.mark.parametrize(
    "wrong", [{"neighbours": 0}, {"shrinkage": -1.0}, {"decay": 0.0}, {"last": 0}, {"prior": 0.0}]
)
def test_numbers_that_make_no_sense(dataset: Dataset, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"item kNN with[\s\S]*Give"):
        ItemKNN(dataset, **wrong)  # type: ignore[arg-type]

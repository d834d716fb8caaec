"""EASE against the problem that it solves: ridge regression of each item on the others, by scikit-learn."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge as RidgeRegression

import itemic
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, IndexMismatchError
from itemic.evaluate import counting, linear
from itemic.evaluate.linear import Ease, Ridge, item_weights, successor_weights, words_of

WORDS = ["red", "green", "blue", "round", "square", "wooden", "iron"]


def shop(users: int = 60, items: int = 25, text: bool = True) -> Dataset:
    rng = np.random.default_rng(0)
    titles = [" ".join(rng.choice(WORDS, 3)) for _ in range(items)]
    names = [f"i{n:02d}" for n in range(items)]
    table = pl.DataFrame({"item_id": names, "title": titles if text else [None] * items})
    rows = [
        (f"u{user}", names[item], day)
        for user in range(users)
        for day, item in enumerate(rng.choice(items, rng.integers(3, 9), p=rng.dirichlet(np.ones(items))))
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return itemic.dataset(events, table.with_columns(pl.col("title").cast(pl.String)))


def matrix(dataset: Dataset) -> np.ndarray:
    found = np.zeros((len(dataset.train), len(dataset.item_ids)))
    for user in range(len(dataset.train)):
        low, high = dataset.train.offsets[user : user + 2]
        found[user, dataset.train.items[low:high]] = 1
    return found


@pytest.mark.parametrize("text", [0.0, 5.0])
def test_each_column_is_a_ridge_regression_on_the_others(
    text: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_ROWS", 7)
    dataset = shop()
    words = words_of(dataset)
    np.testing.assert_allclose(np.linalg.norm(words.toarray(), axis=1), 1, rtol=1e-6)
    found = item_weights(dataset.train, words * np.float32(text**0.5), 3.0)
    rows = np.concatenate([matrix(dataset), text**0.5 * words.toarray().T])
    for item in range(len(found)):
        others = np.delete(np.arange(len(found)), item)
        wanted = RidgeRegression(alpha=3.0, fit_intercept=False).fit(rows[:, others], rows[:, item]).coef_
        np.testing.assert_allclose(found[others, item], wanted, atol=1e-4)
        assert found[item, item] == 0


@pytest.mark.parametrize("text", [0.0, 5.0])
def test_successors_are_the_solution_of_their_equations(text: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against numpy in float64, with counts made pair by pair."""
    monkeypatch.setattr(linear, "_ROWS", 7)
    dataset = shop()
    words = words_of(dataset) * np.float32(text**0.5)
    found = successor_weights(dataset.train, words, 3.0, 2)
    train, alike = dataset.train, (words @ words.T).toarray().astype(np.float64)
    followed = np.zeros(alike.shape)
    for user in range(len(train)):
        low, high = train.offsets[user : user + 2]
        items = train.items[low:high].tolist()
        for place, item in enumerate(items):
            for distance, other in enumerate(items[place + 1 : place + 3], 1):
                followed[item, other] += 1 / distance
    had = matrix(dataset)
    wanted = np.linalg.solve(had.T @ had + alike + 3.0 * np.eye(len(alike)), followed + alike)
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert not np.allclose(found, found.T, atol=1e-2)
    ranker = Ridge(dataset, window=2, regularization=3, text=text)
    np.testing.assert_array_equal(ranker.weights, found)
    assert "window 2" in repr(ranker)
    assert ranker.config != Ridge(dataset, window=3, regularization=3, text=text).config


def test_scores_are_probabilities_of_what_the_history_proposes(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = shop()
    ranker = Ease(dataset, regularization=2, decay=0.5, last=3, temperature=0.1)
    asked = dataset.split("test")
    found = ranker.scores(asked).astype(np.float64)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)
    for row in range(0, len(asked), 7):
        history = asked.history(row)[::-1][:3]
        weights = np.array([1, 0.5, 0.25])[: len(history)]
        plain = (weights / weights.sum()) @ ranker.weights[history] / 0.1
        np.testing.assert_allclose(found[row], plain - np.log(np.exp(plain).sum()), atol=1e-4)
    monkeypatch.setattr(counting, "CELLS", 100)  # several parts
    for exclude in (False, True):
        items, values = ranker.rank(asked, 30, exclude)
        for row in range(len(asked)):
            allowed = np.ones(len(dataset.item_ids), bool)
            allowed[asked.history(row)] = not exclude
            order = np.argsort(-np.where(allowed, found[row], -np.inf), kind="stable")[: allowed.sum()]
            np.testing.assert_allclose(found[row][items[row, : len(order)]], found[row][order], atol=1e-5)
            np.testing.assert_allclose(values[row, : len(order)], found[row][order], atol=1e-5)
            assert (items[row, len(order) :] == -1).all()
            assert np.isneginf(values[row, len(order) :]).all()


def test_without_a_history_or_words() -> None:
    dataset = shop(text=False)
    ranker = Ease(dataset)
    nobody = Requests(np.array(["x"]), np.array([0, 0]), np.zeros(0, np.int32), np.array([1], np.int32))
    np.testing.assert_allclose(ranker.scores(nobody)[0], np.log(ranker.popularity.share), rtol=1e-5)
    plain = item_weights(dataset.train, sparse.csr_array((25, 0), dtype=np.float32), 80.0)
    np.testing.assert_array_equal(ranker.weights, plain)
    assert "text 5" in repr(ranker)


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = shop()
    for options in ({"text": -1}, {"regularization": 0}, {"temperature": 0}, {"decay": 0}, {"last": 0}):
        with pytest.raises(ConfigError, match="EASE with"):
            Ease(dataset, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ridge with window 0"):
        Ridge(dataset, window=0)
    with pytest.raises(ConfigError, match="a ranking of 0 items"):
        Ease(dataset).rank(dataset.split("test"), 0)
    with pytest.raises(IndexMismatchError):
        Ease(dataset).rank(shop(items=24).split("test"), 1)
    monkeypatch.setattr(linear, "MOST_ITEMS", 20)
    with pytest.raises(ConfigError, match="all pairs of 25 items"):
        Ease(dataset)

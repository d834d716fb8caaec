from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate import counting as module
from itemic.evaluate.baselines import ItemKNN, LastItem, Popularity, Transitions
from itemic.metrics import hit_rate, ranks_of
from tests.evaluate.helpers import make_dataset, scientific

ITEMS = list("abcdefg")
SEQUENCES = {"u": list("abcabd"), "v": list("abce"), "w": list("cabf"), "x": list("gfa")}


def slow_transitions(
    dataset: Dataset, history: np.ndarray, window: int, decay: float, last: int, prior: float
) -> np.ndarray:
    """The definition, in loops: a probability for each item."""
    n = len(dataset.item_ids)
    train = dataset.train
    popularity = np.ones(n)
    counts = np.zeros((n, n))
    for user in range(len(train)):
        row = train[user]
        for place, item in enumerate(row):
            popularity[item] += 1
            for distance in range(1, window + 1):
                if place + distance < len(row):
                    counts[item, row[place + distance]] += 1 / distance
    popularity /= popularity.sum()
    total, mixture = 0.0, np.zeros(n)
    for back, item in enumerate(history[::-1][:last]):
        mixture += decay**back * (counts[item] + prior * popularity) / (counts[item].sum() + prior)
        total += decay**back
    return mixture / total


def requests(histories: list[list[int]]) -> Requests:
    lengths = np.array([len(row) for row in histories])
    return Requests(
        np.array([str(number) for number in range(len(histories))], object),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([item for row in histories for item in row], np.int32),
        np.full(len(histories), -1, np.int32),
    )


def test_popularity_counts_training_alone() -> None:
    dataset = make_dataset({"u": list("aab"), "v": list("aacc"), "w": list("bbbbbdd")}, list("abcd"))
    # train: a | aa | bbbbb; d is only ever a target
    items, scores = Popularity(dataset).rank(dataset.split("test"), 6)
    assert items[0].tolist() == [1, 0, 2, 3, -1, -1]
    assert np.exp(scores[0, :4]) == pytest.approx([6 / 12, 4 / 12, 1 / 12, 1 / 12])
    assert np.isneginf(scores[0, 4:]).all()


@pytest.mark.parametrize("options", [(1, 0.5, 1, 1.0), (3, 0.7, 2, 0.5), (5, 0.9, 10, 20.0)])
@pytest.mark.parametrize("exclude", [False, True])
def test_transitions_equal_their_definition(options: tuple[int, float, int, float], exclude: bool) -> None:
    dataset = make_dataset(SEQUENCES, ITEMS)
    window, decay, last, prior = options
    ranker = Transitions(dataset, window=window, decay=decay, last=last, prior=prior)
    test = dataset.split("test")
    items, scores = ranker.rank(test, len(ITEMS), exclude_history=exclude)
    for number in range(len(test)):
        truth = slow_transitions(dataset, test.history(number), *options)
        allowed = [i for i in range(len(ITEMS)) if not exclude or i not in test.history(number)]
        found = items[number][items[number] >= 0]
        assert sorted(found) == allowed
        assert np.exp(scores[number, : len(found)]) == pytest.approx(truth[found], rel=1e-5)
        assert np.exp(scores[number, : len(found)]) == pytest.approx(np.sort(truth[allowed])[::-1], rel=1e-5)


histories = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=1, max_size=9)


@given(histories, st.integers(1, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_ranker_keeps_the_promises_of_a_ranking(rows: list[list[int]], k: int, exclude: bool) -> None:
    dataset = make_dataset(SEQUENCES, ITEMS)
    asked = requests(rows)
    for ranker in (Popularity(dataset), Transitions(dataset), ItemKNN(dataset)):
        items, scores = ranker.rank(asked, k, exclude_history=exclude)
        assert items.shape == scores.shape == (len(rows), k)
        assert items.dtype == np.int32
        assert scores.dtype == np.float32
        assert (np.sort(-scores, axis=1) == -scores).all()
        for row, found in zip(rows, items, strict=True):
            real = found[found >= 0]
            assert len(set(real)) == len(real)
            assert len(real) == min(k, len(ITEMS) - len(set(row)) if exclude else len(ITEMS))
            assert not (exclude and set(real) & set(row))


def test_chunks_do_not_change_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(SEQUENCES, ITEMS)
    test = dataset.split("test")
    rankers = (Popularity(dataset), Transitions(dataset), ItemKNN(dataset))
    whole = [ranker.rank(test, 4, exclude_history=True) for ranker in rankers]
    monkeypatch.setattr(module, "CELLS", 8)
    for ranker, (items, scores) in zip(rankers, whole, strict=True):
        again = ranker.rank(test, 4, exclude_history=True)
        assert (again[0] == items).all()
        assert np.allclose(again[1], scores)


def test_a_planted_target_changes_nothing() -> None:
    """Only `Dataset.train` may be read: other targets, the same ranking."""
    planted = {user: [*row[:-2], "e", "e"] for user, row in SEQUENCES.items()}
    histories = requests([[0], [1, 2]])
    for kind in (Popularity, Transitions, ItemKNN):
        before = kind(make_dataset(SEQUENCES, ITEMS)).rank(histories, 7)
        after = kind(make_dataset(planted, ITEMS)).rank(histories, 7)
        assert (before[0] == after[0]).all()


def test_bad_arguments_are_refused() -> None:
    dataset = make_dataset(SEQUENCES, ITEMS)
    with pytest.raises(ConfigError):
        Transitions(dataset, window=0)
    with pytest.raises(ConfigError):
        Popularity(dataset).rank(dataset.split("test"), 0)


def test_scientific_figures(shared: Path) -> None:
    """Leave-one-out, the whole catalogue: about .023 for popularity, .086 and more for transitions."""
    dataset = scientific(shared)
    test = dataset.split("test")

    def measured(ranker: Popularity | Transitions) -> float:
        return float(hit_rate(ranks_of(ranker.rank(test, 10)[0], test.targets), 10).mean())

    assert measured(Popularity(dataset)) == pytest.approx(0.0231, abs=0.0005)
    assert measured(Transitions(dataset, window=1, last=1)) == pytest.approx(0.0898, abs=0.001)
    assert measured(Transitions(dataset)) > 0.10


def test_the_last_item_chain_looks_at_nothing_else() -> None:
    dataset = make_dataset(SEQUENCES, ITEMS)
    requests = dataset.split("test")
    last = Requests(
        requests.users,
        np.arange(len(requests) + 1),
        requests.items[requests.offsets[1:] - 1],
        requests.targets,
    )
    whole, alone = LastItem(dataset).rank(requests, 7), LastItem(dataset).rank(last, 7)
    assert (whole[0] == alone[0]).all()
    assert not (Transitions(dataset).rank(requests, 7)[0] == whole[0]).all()

"""Blends against the sum of whole distributions: plain forward passes, dense counts, a teacher's scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.decode import BeamSearch
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.evaluate import (
    Blend,
    ItemKNN,
    Memory,
    MemorySettings,
    ModelRanker,
    Popularity,
    Transitions,
    choose_blend,
    choose_memory,
    mixture,
)
from itemic.evaluate.blend_choice import simplex
from itemic.evaluate.mixture import Mixture, Mixtures
from itemic.metrics import ndcg, ranks_of
from itemic.model import Model
from tests.evaluate.helpers import make_dataset, random_dataset
from tests.evaluate.test_baselines import requests
from tests.evaluate.test_memory import ITEMS, chances, dataset, model, slow_memory
from tests.teacher.helpers import tiny

__all__ = ["dataset", "model"]  # fixtures
histories = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=4)
weighted = st.lists(st.sampled_from([0.0, 0.2, 1.0, 3.0]), min_size=4, max_size=4).filter(any)


def scorers_of(dataset: Dataset) -> list[Popularity | Transitions | ItemKNN]:
    return [Popularity(dataset), Transitions(dataset), ItemKNN(dataset, neighbours=4)]


def dense(dataset: Dataset, asked: Requests) -> list[np.ndarray]:
    return [np.exp(each.scores(asked).astype(np.float64)) for each in scorers_of(dataset)]


def without(chance: np.ndarray, rows: list[list[int]], exclude: bool) -> np.ndarray:
    """Probabilities ``[R, n]`` among the items that may come."""
    if not exclude:
        return chance
    found = chance.copy()
    for request, row in enumerate(rows):
        found[request, row] = 0
    return found / np.maximum(found.sum(axis=1, keepdims=True), 1e-30)


def assert_best(
    truth: np.ndarray, allowed: np.ndarray, items: np.ndarray, scores: np.ndarray, k: int
) -> None:
    """The ``k`` best of the allowed items, by value; the items are those that have the values."""
    best = np.sort(truth[allowed])[::-1][:k]
    found = items[: len(best)]
    assert len(set(found)) == len(found)
    assert (items[len(best) :] == -1).all()
    assert np.isneginf(scores[len(best) :]).all()
    assert allowed[found].all()
    np.testing.assert_allclose(truth[found], best, rtol=2e-4)
    np.testing.assert_allclose(np.exp(scores[: len(best)]), best, rtol=2e-4)


def test_scores_are_those_that_rankings_have(dataset: Dataset) -> None:
    asked = requests([[1, 2, 3], [], [4, 4, 5]])
    for ranker in scorers_of(dataset):
        scores = ranker.scores(asked)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-5)
        items, ranked = ranker.rank(asked, ITEMS)
        np.testing.assert_allclose(
            np.take_along_axis(scores, items.astype(np.int64), axis=1), ranked, rtol=1e-5, atol=1e-6
        )


@settings(max_examples=40, deadline=None)
@given(histories, weighted, st.integers(1, ITEMS + 3), st.booleans())
def test_without_a_language_model_it_is_the_sum_over_the_catalogue(
    dataset: Dataset, rows: list[list[int]], weights: list[float], k: int, exclude: bool
) -> None:
    asked, teacher = requests(rows), tiny(item_ids=dataset.item_ids)
    blend = Blend([*scorers_of(dataset), teacher], weights)
    items, scores = blend.rank(asked, k, exclude_history=exclude)
    parts = [*dense(dataset, asked), np.exp(teacher.scores(asked).astype(np.float64))]
    parts = [without(part, rows, exclude) for part in parts]
    share = np.array(weights) / sum(weights)
    for number, row in enumerate(rows):
        truth = sum(weight * part[number] for weight, part in zip(share, parts, strict=True))
        allowed = np.ones(ITEMS, bool)
        allowed[row] &= not exclude
        assert_best(truth, allowed, items[number], scores[number], k)


@settings(max_examples=12, deadline=None)
@given(histories, weighted, st.integers(1, 12), st.integers(1, 8), st.booleans(), st.booleans())
def test_with_a_language_model_and_memory(
    dataset: Dataset,
    model: Model,
    rows: list[list[int]],
    weights: list[float],
    k: int,
    beams: int,
    exclude: bool,
    remembers: bool,
) -> None:
    """Whatever the beams find, an item that reaches the list by its own probability and the others' is in it."""
    asked, found = requests(rows), MemorySettings(window=2, prior=4.0, decay=0.7, last=5)
    for width in (beams, 40):
        prior = ModelRanker(model, beams=width)
        blend = Blend([prior, *scorers_of(dataset)], weights)
        ranker = Memory(dataset, blend, found) if remembers else blend
        items, scores = ranker.rank(asked, k, exclude_history=exclude)
        chance = chances(model, prior, asked)
        share = np.array(weights) / sum(weights)
        parts = [without(part, rows, exclude) for part in dense(dataset, asked)]
        rest = sum(w * part for w, part in zip(share[1:], parts, strict=True))
        by_beams = prior.rank(asked, width, exclude_history=exclude)[0]
        for number, row in enumerate(rows):
            mixed = (
                share[0] * chance[number]
                + np.asarray(rest if share[1:].any() else np.zeros_like(chance))[number]
            )
            truth, counted = slow_memory(dataset, np.array(row), mixed, found)
            if not remembers:
                truth, counted = mixed, np.zeros(ITEMS, bool)
            allowed = np.ones(ITEMS, bool)
            allowed[row] &= not exclude
            known = counted.copy()
            if share[0]:
                known[by_beams[number][by_beams[number] >= 0]] = True
            if share[1:].any():
                others = np.where(allowed, np.asarray(rest)[number], -1)
                cut = np.sort(others)[::-1][min(max(k, width), ITEMS) - 1]
                known |= (others >= cut * (1 - 1e-6)) & (others > 0)
            assert_best(truth, allowed & known, items[number], scores[number], k)


def test_several_mixtures_from_one_search(
    dataset: Dataset, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As each alone, and prompts are searched once."""
    asked, prior = dataset.split("test"), ModelRanker(model, beams=6)
    blend = Blend([prior, *scorers_of(dataset)], [0.4, 0.1, 0.3, 0.2])
    memory, both = Memory(dataset, prior), Memory(dataset, blend)
    alone = [each.rank(asked, 5, True) for each in (prior, memory, blend, both)]
    searched: list[int] = []
    search = BeamSearch._search
    monkeypatch.setattr(
        BeamSearch, "_search", lambda self, p, *a: (searched.append(len(p)), search(self, p, *a))[1]
    )
    mixtures = [
        Mixture(others=(0.0,) * 3, counts=memory.counts),
        blend.mixture(),
        both.mixture,
    ]
    by_model, others = Mixtures(prior, blend.scorers, mixtures, ITEMS).rank(asked, 5, True)
    assert sum(searched) == len(asked)
    for (items, scores), (wanted, values) in zip([by_model, *others], alone, strict=True):
        assert (items == wanted).mean() > 0.99  # batches differ
        np.testing.assert_allclose(scores, values, rtol=1e-3, atol=1e-3)


def test_chunks_change_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dataset.split("test")
    blend = Memory(dataset, Blend(scorers_of(dataset), [1, 1, 1]))
    whole = blend.rank(asked, 7, True)
    monkeypatch.setattr(mixture, "CELLS", 3 * ITEMS)
    again = blend.rank(asked, 7, True)
    assert (whole[0] == again[0]).all()
    np.testing.assert_array_equal(whole[1], again[1])


def test_of_equals_the_lower_row_comes_first(dataset: Dataset) -> None:
    flat = make_dataset({"u": ["i1", "i2", "i3"]}, dataset.item_ids)  # nothing but one item was ever seen
    items, _ = Blend([Popularity(flat)], [2.0]).rank(requests([[4]]), 4)
    assert items.tolist() == [[1, 0, 2, 3]]


def test_all_weights_in_tenths() -> None:
    for size, steps, count in ((1, 10, 1), (2, 10, 11), (3, 10, 66), (4, 3, 20)):
        found = simplex(size, steps)
        assert found.shape == (count, size)
        assert len(np.unique(found, axis=0)) == count
        np.testing.assert_allclose(found.sum(axis=1), 1)
        np.testing.assert_allclose(found * steps, np.round(found * steps), atol=1e-9)
        assert found[0].tolist() == [1, *[0] * (size - 1)]


@pytest.mark.parametrize("exclude", [False, True])
def test_weights_are_chosen_by_what_blends_reach(dataset: Dataset, model: Model, exclude: bool) -> None:
    """Against the blends themselves, asked one by one."""
    rankers, valid = [ModelRanker(model, beams=ITEMS), *scorers_of(dataset)[1:]], dataset.split("valid")
    choice = choose_blend(dataset, rankers, exclude_history=exclude, steps=4)
    reached = {}
    for weights in simplex(3, 4):
        items, _ = Blend(rankers, weights).rank(valid, 10, exclude)
        reached[tuple(weights)] = float(ndcg(ranks_of(items, valid.targets), 10).mean())
    assert choice.requests == len(valid)
    assert choice.tried == len(reached) == 15
    assert choice.ndcg == pytest.approx(max(reached.values()))
    assert reached[tuple(choice.weights.values())] == pytest.approx(choice.ndcg)
    for place, ranker in enumerate(rankers):
        assert choice.alone[ranker.name] == pytest.approx(reached[tuple(np.eye(3)[place])])
    few = [choose_blend(dataset, rankers[1:], requests=9, seed=seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]


def test_memory_is_chosen_for_a_blend_too(dataset: Dataset, model: Model) -> None:
    valid = dataset.split("valid")
    blend = Blend([ModelRanker(model, beams=8), *scorers_of(dataset)], [1, 1, 1, 1])
    grid = [MemorySettings(w, p, d, n) for w, p, d, n in [(1, 1, 1, 1), (2, 9, 0.5, 4), (4, 0.3, 0.8, 9)]]
    choice = choose_memory(dataset, blend, grid=grid)
    reached = [
        ndcg(ranks_of(Memory(dataset, blend, s).rank(valid, 10)[0], valid.targets), 10).mean() for s in grid
    ]
    assert choice.ndcg == pytest.approx(max(reached))
    assert choice.settings == grid[int(np.argmax(reached))]
    alone = ndcg(ranks_of(blend.rank(valid, 10)[0], valid.targets), 10).mean()
    assert choice.alone == pytest.approx(alone)


def test_config_tells_weights_and_rankers_apart(dataset: Dataset) -> None:
    one, two = (Blend(scorers_of(dataset), weights).config for weights in ([1, 1, 2], [2, 1, 1]))
    assert one["blend"] == {"popularity": 0.25, "transitions": 0.25, "item kNN": 0.5}
    assert one != two
    assert (
        one
        != Blend([Popularity(dataset), Transitions(dataset, window=2), ItemKNN(dataset)], [1, 1, 2]).config
    )


def test_faults(dataset: Dataset, model: Model) -> None:
    popular, chain = Popularity(dataset), Transitions(dataset)
    for rankers, weights, text in (
        ([], [], "blend of 0"),
        ([popular], [1, 2], "1 rankers with 2 weights"),
        ([popular, chain], [-1, 2], "weights"),
        ([popular, chain], [0, 0], "weights"),
        ([popular, chain], [np.nan, 1], "weights"),
        ([popular, Popularity(dataset)], [1, 1], "names popularity, popularity"),
        ([ModelRanker(model), ModelRanker(model, name="b")], [1, 1], "2 language models"),
    ):
        with pytest.raises(ConfigError, match=text):
            Blend(rankers, weights)  # type: ignore[arg-type]
    blend = Blend([popular, chain], [1, 1])
    with pytest.raises(ConfigError, match="gives no probabilities"):
        Blend([popular, blend], [1, 1])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="ranking of 0"):
        blend.rank(dataset.split("test"), 0)
    with pytest.raises(DataError, match="item row 99"):
        blend.rank(requests([[99]]), 3)
    with pytest.raises(IndexMismatchError):
        blend.rank(random_dataset(9, 8).split("test"), 3)
    with pytest.raises(ConfigError, match="0 requests"):
        choose_blend(dataset, [popular], requests=0)
    only_test = make_dataset({"u": ["i1", "i2"], "v": ["i3", "i4"]}, dataset.item_ids)
    with pytest.raises(ConfigError, match=r"a blend is chosen on the validation split[\s\S]*evaluate\.blend"):
        choose_blend(only_test, [popular])

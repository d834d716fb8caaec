"""A model with memory against the mixture's definition over the whole catalogue: loops, and the plain model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.decode import BeamSearch
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.evaluate import Memory, MemorySettings, ModelRanker, choose_memory, rank_all
from itemic.metrics import ndcg, ranks_of
from itemic.model import Model, new_model
from itemic.sid.index import ItemIndex
from tests.evaluate.helpers import make_dataset, random_dataset
from tests.evaluate.test_baselines import requests

ITEMS = 30
SETTINGS = st.builds(
    MemorySettings,
    window=st.integers(1, 4),
    prior=st.sampled_from([0.5, 5.0, 40.0]),
    decay=st.sampled_from([0.5, 1.0]),
    last=st.integers(1, 5),
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset(40, ITEMS)


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    """Random weights that prefer some items by far, and three items with one semantic ID."""
    rows = np.arange(ITEMS)
    codes = np.stack([rows % 4, rows // 4 % 4, rows // 16], axis=1).astype(np.int32)
    codes[[20, 29]] = codes[3]
    index = ItemIndex(dataset.item_ids, codes, (4, 4, 2))
    shape = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16}
    model = new_model("qwen3-pico", index, ["Item"], seed=0, intermediate_size=32, vocab_size=300, **shape)
    with torch.no_grad():
        model.lm.get_input_embeddings().weight.mul_(12)
    model.lm.eval()
    return model


def chances(model: Model, ranker: ModelRanker, asked: Requests) -> np.ndarray:
    """The probability of each item after each prompt, ``[R, n]``, by plain forward passes over whole answers."""
    found = np.zeros((len(asked), ITEMS))
    answers = np.stack([model.item_rows[row] for row in range(ITEMS)]).astype(np.int64)
    shared = np.array([(answers == answers[row]).all(axis=1).sum() for row in range(ITEMS)])
    codes = np.arange(1, answers.shape[1] - 1)  # begin and end are forced
    for number, prompt in enumerate(ranker.ask(asked).prompts):
        tokens = np.concatenate([np.tile(np.asarray(prompt, np.int64), (ITEMS, 1)), answers], axis=1)
        with torch.no_grad():
            logits = model.lm(torch.from_numpy(tokens)).logits.double().log_softmax(-1).numpy()
        at = len(prompt) - 1 + codes
        found[number] = np.exp(logits[np.arange(ITEMS)[:, None], at, answers[:, codes]].sum(axis=1)) / shared
    return found


def slow_memory(
    dataset: Dataset, history: np.ndarray, chance: np.ndarray, found: MemorySettings
) -> tuple[np.ndarray, np.ndarray]:
    """The mixture in loops, ``[n]``, and which items were counted after any of the last ones."""
    counts = np.zeros((ITEMS, ITEMS))
    for user in range(len(dataset.train)):
        row = dataset.train[user]
        for place, item in enumerate(row):
            for distance in range(1, min(found.window, len(row) - place - 1) + 1):
                counts[item, row[place + distance]] += 1 / distance
    total, mixture, seen = 0.0, np.zeros(ITEMS), np.zeros(ITEMS, bool)
    for back, item in enumerate(history[::-1][: found.last]):
        weight = found.decay**back
        mixture += weight * (counts[item] + found.prior * chance) / (counts[item].sum() + found.prior)
        seen |= counts[item] > 0
        total += weight
    return (mixture / total if total else chance), seen


histories = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(histories, SETTINGS, st.integers(1, ITEMS + 5), st.integers(1, 12), st.booleans())
def test_ranks_by_the_mixture(
    dataset: Dataset,
    model: Model,
    rows: list[list[int]],
    found: MemorySettings,
    k: int,
    beams: int,
    exclude: bool,
) -> None:
    """Narrow beams: the best of what they or the counts know. Wide ones: the best of the whole catalogue."""
    asked = requests(rows)
    for width in (beams, 40):
        prior = ModelRanker(model, beams=width)
        items, scores = Memory(dataset, prior, found).rank(asked, k, exclude_history=exclude)
        assert items.dtype == np.int32
        assert scores.dtype == np.float32
        chance = chances(model, prior, asked)
        by_beams = prior.rank(asked, width, exclude_history=exclude)[0]
        for number, row in enumerate(rows):
            truth, counted = slow_memory(dataset, np.array(row), chance[number], found)
            known = counted | np.isin(np.arange(ITEMS), by_beams[number])
            known[row] &= not exclude
            if width == 40:
                assert known.sum() == ITEMS - len(set(row)) * exclude
            best = np.sort(truth[known])[::-1][:k]
            ranked = items[number][: len(best)]
            assert (items[number][len(best) :] == -1).all()
            assert np.isneginf(scores[number][len(best) :]).all()
            assert len(set(ranked)) == len(ranked)
            assert known[ranked].all()
            np.testing.assert_allclose(truth[ranked], best, rtol=1e-4)
            np.testing.assert_allclose(np.exp(scores[number][: len(best)]), best, rtol=1e-4)


def test_a_legal_mixture_is_a_distribution(dataset: Dataset, model: Model) -> None:
    """Items that share a semantic ID included; the other ways of normalising give no more than that."""
    asked = dataset.split("test")[:5]
    for normalize in ("legal", "level", "vocab"):
        prior = ModelRanker(model, beams=40, normalize=normalize)
        total = np.exp(Memory(dataset, prior).rank(asked, ITEMS)[1].astype(np.float64)).sum(axis=1)
        assert (total < 1 + 1e-4).all()
        assert (normalize != "legal") or total == pytest.approx(1, abs=1e-4)


def test_without_counts_the_model_ranks(dataset: Dataset, model: Model) -> None:
    """Nobody had anything twice: each item was only ever a target, so that nothing was counted."""
    lonely = make_dataset(
        {f"u{i}": [f"i{i}", f"i{i + 10}", f"i{i + 20}"] for i in range(10)}, dataset.item_ids
    )
    prior = ModelRanker(model, beams=40)
    items, _ = Memory(lonely, prior).rank(lonely.split("test"), ITEMS)
    chance = chances(model, prior, lonely.split("test"))
    np.testing.assert_allclose(
        np.take_along_axis(chance, items.astype(np.int64), axis=1), np.sort(chance)[:, ::-1], rtol=1e-4
    )


def test_an_item_that_never_came_up_is_not_computed(
    dataset: Dataset, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't come into the list any more costs no pass; a longer list costs more."""
    grown: list[int] = []
    grow = BeamSearch.grow
    monkeypatch.setattr(
        BeamSearch,
        "grow",
        lambda self, s, p, leaf, *a: (grown.append(len(leaf)), grow(self, s, p, leaf, *a))[1],
    )
    asked, prior = dataset.split("test"), ModelRanker(model, beams=3)

    def cost(k: int) -> int:
        grown.clear()
        Memory(dataset, prior, MemorySettings(window=1, prior=1.0)).rank(asked, k)
        return sum(grown)

    prior.rank(asked, 3)
    alone = sum(grown)
    assert alone <= cost(1) < cost(ITEMS)


def test_the_choice_is_that_of_ranking_once_for_each_setting(dataset: Dataset, model: Model) -> None:
    prior, valid = ModelRanker(model, beams=8), dataset.split("valid")
    grid = [MemorySettings(w, p, d, n) for w, p, d, n in [(1, 1, 1, 1), (2, 9, 0.5, 4), (4, 0.3, 0.8, 9)]]
    for exclude in (False, True):
        reached = []
        for found in grid:
            items, _ = Memory(dataset, prior, found).rank(valid, 10, exclude_history=exclude)
            reached.append(ndcg(ranks_of(items, valid.targets), 10).mean())
        choice = choose_memory(dataset, prior, exclude_history=exclude, grid=grid)
        assert choice.ndcg == pytest.approx(max(reached))
        assert choice.settings == grid[int(np.argmax(reached))]
        best, _ = prior.rank(valid, 8, exclude_history=exclude)
        assert choice.alone == pytest.approx(ndcg(ranks_of(best, valid.targets), 10).mean())
        assert (choice.requests, choice.tried) == (len(valid), 3)
        for found, value in zip(grid, reached, strict=True):  # each setting, and not the best one alone
            one = choose_memory(dataset, prior, exclude_history=exclude, grid=[found])
            assert one.ndcg == pytest.approx(value)


def test_a_choice_from_few_requests_is_the_seeds(dataset: Dataset, model: Model) -> None:
    prior = ModelRanker(model, beams=5)
    one, two, three = (choose_memory(dataset, prior, requests=10, seed=seed) for seed in (0, 0, 1))
    assert one == two
    assert one.requests == three.requests == 10
    assert (one.ndcg, one.alone) != (three.ndcg, three.alone)
    assert one.tried == 96


def test_targets_of_the_splits_change_nothing(dataset: Dataset, model: Model) -> None:
    """Counts see `Dataset.train` alone: other targets, the same ranking."""
    rows = {f"u{i}": [f"i{(i + j) % ITEMS}" for j in range(6)] for i in range(20)}
    other = {user: [*row[:-2], "i1", "i2"] for user, row in rows.items()}
    asked, prior = requests([[3, 4], [7, 8, 9]]), ModelRanker(model, beams=10)
    one, two = (Memory(make_dataset(each, dataset.item_ids), prior).rank(asked, 10) for each in (rows, other))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()


def test_a_ranking_in_parts_that_goes_on(dataset: Dataset, model: Model, tmp_path: Path) -> None:
    memory, test = Memory(dataset, ModelRanker(model, beams=10)), dataset.split("test")
    assert memory.config["memory"] == asdict(MemorySettings())

    def ranked(folder: str) -> np.ndarray:
        ranking = rank_all(
            memory, test, dataset.item_ids, k=10, output=tmp_path / folder, part_size=16, config=memory.config
        )
        return np.concatenate([part.items for part in ranking.arrays()])

    whole = ranked("a")
    assert (whole == memory.rank(test, 10)[0]).mean() > 0.99
    (tmp_path / "a" / "part-00001.parquet").unlink()
    assert (ranked("a") == whole).all()
    assert not memory.shortened(test).any()


def test_a_request_that_the_model_cannot_be_asked_is_answered_by_counts(
    dataset: Dataset, model: Model
) -> None:
    """A task that shows the latest item has no prompt without one, and the counts have nothing either."""
    prior = ModelRanker(model, task="E", beams=5)
    asked = requests([[], [3, 4]])
    assert prior.ask(asked).rows.tolist() == [1]
    items, _ = Memory(dataset, prior).rank(asked, 5)
    assert (items[0] == -1).all()
    assert (items[1] >= 0).all()


def test_faults(dataset: Dataset, model: Model) -> None:
    prior = ModelRanker(model, beams=5)
    for wrong in ({"window": 0}, {"last": 0}, {"decay": 0.0}, {"decay": 1.1}, {"prior": 0.0}):
        with pytest.raises(ConfigError, match=f"MemorySettings: {next(iter(wrong))} is"):
            replace(MemorySettings(), **wrong)
    with pytest.raises(ConfigError, match="ranking of 0"):
        Memory(dataset, prior).rank(dataset.split("test"), 0)
    with pytest.raises(ConfigError, match="0 settings"):
        choose_memory(dataset, prior, grid=[])
    with pytest.raises(DataError, match="item row 99"):
        Memory(dataset, prior).rank(requests([[99]]), 3)
    with pytest.raises(IndexMismatchError):
        Memory(random_dataset(9, 8), prior).rank(dataset.split("test"), 3)
    only_test = make_dataset({"u": ["i1", "i2"], "v": ["i3", "i4"]}, dataset.item_ids)
    with pytest.raises(ConfigError, match=r"validation.*[\s\S]*evaluate\.memory: \{window: 3"):
        choose_memory(only_test, prior)

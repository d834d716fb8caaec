"""Requests that can't be met, histories that can't be read whole, and requests about another catalogue."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from itemic.data import Dataset, read
from itemic.data.settings import SimulatorConfig, SplitRule
from itemic.data.simulator import simulate
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.recommend import ModelRanker, recommend
from itemic.evaluate.report import score
from itemic.evaluate.stream import rank_all
from itemic.model import Model, new_model
from itemic.sid.index import ItemIndex
from itemic.tasks import TASKS
from tests.cases import case


def random_model(dataset: Dataset, **shape: object) -> Model:
    rows = np.arange(len(dataset.item_ids))
    codes = np.stack([rows % 8, rows // 8], axis=1).astype(np.int32)
    index = ItemIndex(dataset.item_ids, codes, (8, int(codes.max()) + 1))
    tiny = {
        "hidden_size": 32,
        "layers": 1,
        "heads": 2,
        "kv_heads": 1,
        "head_dim": 16,
        "intermediate_size": 32,
    }
    return new_model(
        "qwen3-pico", index, dataset.items["title"].to_list(), seed=0, vocab_size=400, **tiny | shape
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate(
        SimulatorConfig(users=40, items=30, categories=6, brands=6, shortest=4, longest=8), 0
    ).dataset


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    return random_model(dataset)


# ------------------------------------------------------------------------------- nothing left


@pytest.mark.parametrize("who", ["model", "popularity", "transitions"])
def test_a_user_who_has_had_everything_ends_nobody_elses_ranking(
    who: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = read("recbole", case("everything-seen") / "x").with_split(SplitRule(history=None))
    asked = data.split("test")
    had_all = [
        user
        for r, user in enumerate(asked.users)
        if len(set(asked.history(r).tolist())) == len(data.item_ids)
    ]
    assert had_all  # what the case is about
    rankers = {"popularity": Popularity, "transitions": Transitions}
    with caplog.at_level(logging.WARNING, "itemic"):
        if who == "model":
            ranking = recommend(
                random_model(data), asked, beams=8, k=5, exclude_history=True, output=tmp_path
            )
        else:
            ranking = rank_all(
                rankers[who](data), asked, data.item_ids, k=5, exclude_history=True, output=tmp_path
            )
    table = ranking.table(0)
    empty = table.filter(table["items"].list.len() == 0)
    assert empty["user_id"].to_list() == had_all
    assert f"users {had_all[0]}" in caplog.text
    report = score(Ranking.load(tmp_path), data, k=[1, 5])
    assert any(f"{len(had_all)} requests" in note and had_all[0] in note for note in report.notes)
    assert report.scored == len(asked)  # they count, as misses


def test_a_task_about_an_item_answers_those_who_have_one(model: Model, dataset: Dataset) -> None:
    asked = dataset.split("test")[:3]
    first = asked.offsets[1]
    offsets = np.concatenate([[0, 0], asked.offsets[2:] - first]).astype(np.int64)
    gap = replace(asked, offsets=offsets, items=asked.items[first:])  # the first has no history any more
    items, _ = ModelRanker(model, task="E", beams=5).rank(gap, 5)
    assert (items[0] == -1).all()
    assert (items[1:] == ModelRanker(model, task="E", beams=5).rank(asked, 5)[0][1:]).all()
    assert (Transitions(dataset).rank(gap, 5)[0][0] == Popularity(dataset).order[:5]).all()


# ------------------------------------------------------------------------- long histories


def test_the_oldest_items_go_where_a_history_is_longer_than_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = read("recbole", case("long-history") / "x").with_split(SplitRule(history=None))
    asked = data.split("test")
    model = random_model(data, max_length=256)
    ranker = ModelRanker(model, task=replace(TASKS["C"], max_items=None), beams=8)  # type: ignore[call-arg]
    found = ranker.ask(asked)
    answer = int(model.item_rows.lengths.max())
    assert (found.prompts.lengths + answer <= 256).all()
    assert found.shortened.any()
    for row, (request, prompt) in enumerate(zip(found.rows, found.prompts, strict=True)):
        history = asked.history(int(request))
        whole = [t for item in history for t in model.item_rows[int(item)].tolist()]
        shown = [t for t in prompt.tolist() if t in model.item_tokens]
        assert shown == whole[len(whole) - len(shown) :]  # the latest ones, in their order
        if found.shortened[request]:
            one_more = len(prompt) + len(model.item_rows[0])
            assert one_more + answer > 256, row  # and as many as fit
    with caplog.at_level(logging.WARNING, "itemic"):
        ranking = rank_all(ranker, asked, data.item_ids, k=5)
    count = int(found.shortened.sum())
    assert f"{count} histories are longer than the model can read" in caplog.text
    assert ranking.table(0)["shortened"].sum() == count
    assert any(note.startswith(f"{count} histories") for note in score(ranking, data, k=[5]).notes)


def test_a_model_without_room_for_one_item_answers_nothing_and_says_so(dataset: Dataset) -> None:
    small = random_model(dataset, max_length=16)
    items, _ = ModelRanker(small, beams=5).rank(dataset.split("test")[:4], 5)
    assert (items == -1).all()


# ---------------------------------------------------------------------- another catalogue


def test_a_model_never_ranks_another_catalogue(model: Model, dataset: Dataset) -> None:
    fewer = simulate(
        SimulatorConfig(users=40, items=29, categories=6, brands=6, shortest=4, longest=8), 0
    ).dataset
    renamed = Dataset(
        dataset.items.with_columns(item_id="x" + dataset.items["item_id"]),
        dataset.interactions.with_columns(item_id="x" + dataset.interactions["item_id"]),
    )
    for other in (fewer, renamed):
        asked = other.split("test")
        both = f"catalogue {other.catalogue}.*catalogue {model.index.catalogue}"
        with pytest.raises(IndexMismatchError, match=both):
            recommend(model, asked, beams=5)
        with pytest.raises(IndexMismatchError, match=both):
            ModelRanker(model, beams=5).rank(asked, 5)
        with pytest.raises(IndexMismatchError, match=both):
            TASKS["C"].prompts(model.index, asked)
        with pytest.raises(
            IndexMismatchError, match=f"catalogue {model.index.catalogue}.*catalogue {other.catalogue}"
        ):
            recommend(model, dataset.split("test"), beams=5, dataset=other)
        with pytest.raises(
            IndexMismatchError, match=f"catalogue {other.catalogue}.*catalogue {dataset.catalogue}"
        ):
            Popularity(dataset).rank(asked, 5)
        with pytest.raises(IndexMismatchError):
            Transitions(dataset).rank(asked, 5)
        with pytest.raises(IndexMismatchError):
            rank_all(Popularity(other), dataset.split("test"), other.item_ids)


def test_rows_that_nobody_has_are_named(model: Model, dataset: Dataset) -> None:
    asked = replace(dataset.split("test")[:3], catalogue=None)
    beyond = replace(
        asked,
        items=np.where(np.arange(len(asked.items)) == asked.offsets[1], 99, asked.items).astype(np.int32),
    )
    with pytest.raises(DataError, match=r"request 1 \(user .*\) names item row 99, and .* has 30 items"):
        recommend(model, beyond, beams=5)
    with pytest.raises(DataError, match="item row 44"):
        Popularity(dataset).rank(replace(asked, targets=np.array([0, 44, 1], np.int32)), 5)


def test_a_dataset_is_not_taken_for_requests(model: Model, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"requests are wanted, not a Dataset.*\n.*dataset.split"):
        recommend(model, dataset)  # type: ignore[arg-type]

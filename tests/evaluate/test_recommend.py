from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from itemic.data.dataset import Dataset
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.errors import ArtifactError, ConfigError
from itemic.evaluate.recommend import ModelRanker, common_prefix, fingerprint, recommend
from itemic.evaluate.report import score
from itemic.forest.rows import TokenRows
from itemic.model import Model, new_model
from itemic.model.template import EMPTY_THINK
from itemic.sid.index import ItemIndex


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    config = SimulatorConfig(users=40, items=30, categories=6, brands=6, shortest=4, longest=8)
    return simulate(config, seed=0).dataset


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    rows = np.arange(30)
    codes = np.stack([rows % 4, rows // 4 % 4, rows // 16], axis=1).astype(np.int32)
    codes[29] = codes[3]  # one collision
    index = ItemIndex(dataset.item_ids, codes, (4, 4, 2))
    texts = dataset.items["title"].to_list()
    return new_model("qwen3-nano", index, texts, seed=0)


def sequence_score(model: Model, prompt: np.ndarray, answer: np.ndarray) -> float:
    """The log-probability of an answer's codes after a prompt, by one plain forward pass."""
    tokens = torch.tensor(np.concatenate([prompt, answer])[None].astype(np.int64), device=model.lm.device)
    with torch.no_grad():
        logits = model.lm(tokens).logits[0].log_softmax(-1)
    codes = np.arange(1, len(answer) - 1)  # begin and end are forced and tell no items apart
    return float(logits[len(prompt) - 1 + codes, answer[codes].astype(np.int64)].sum())


@pytest.mark.parametrize("task", ["C", "sequence"])
def test_ranks_by_the_probability_of_the_whole_answer(model: Model, dataset: Dataset, task: str) -> None:
    """With more beams than items the search is exhaustive, and its order that of a plain forward pass."""
    test = dataset.split("test")[:3]
    ranker = ModelRanker(model, task=task, beams=40)
    items, scores = ranker.rank(test, 30)
    prompts = ranker.ask(test).prompts
    for request in range(3):
        assert sorted(items[request]) == list(range(30))
        slow = np.array([sequence_score(model, prompts[request], model.item_rows[row]) for row in range(30)])
        found = slow[items[request]]
        assert (np.diff(found) < 1e-3).all()
        assert np.allclose(scores[request], found, atol=1e-3)


def test_a_model_trained_in_the_think_pattern_is_asked_in_it(dataset: Dataset, model: Model) -> None:
    test = dataset.split("test")[:2]
    plain = ModelRanker(model, beams=5).ask(test).prompts
    model.think_pattern = True
    try:
        asked = {way: ModelRanker(model, beams=5, thinking=way) for way in (None, "no_think", "empty")}
        texts = {
            way: [model.tokenizer.decode(ranker.ask(test).prompts[row].tolist()) for row in range(2)]
            for way, ranker in asked.items()
        }
        configs = [ranker.config for ranker in asked.values()]
        assert [ranker.way for ranker in asked.values()] == ["empty", "no_think", "empty"]
    finally:
        model.think_pattern = False
    assert texts[None] == texts["empty"] == [text + EMPTY_THINK for text in texts["no_think"]]
    assert all("/no_think<|im_end|>" in text for text in texts["no_think"])
    assert ModelRanker(model, beams=5).config not in configs
    assert ModelRanker(model, beams=5).ask(test).prompts.tokens.tolist() == plain.tokens.tolist()


def test_a_ranking_cannot_wait_for_thoughts(model: Model) -> None:
    with pytest.raises(ConfigError, match="with thinking `think`"):
        ModelRanker(model, thinking="think")
    with pytest.raises(ConfigError, match="unknown thinking"):
        ModelRanker(model, thinking="aloud")


def test_batches_and_parts_do_not_change_the_ranking(model: Model, dataset: Dataset) -> None:
    test = dataset.split("test")
    one = ModelRanker(model, beams=10).rank(test, 10)
    two = ModelRanker(model, beams=10, batch_size=2)
    parts = [two.rank(test[start : start + 9], 10) for start in range(0, len(test), 9)]
    assert np.allclose(np.concatenate([part[1] for part in parts]), one[1], atol=1e-4)
    assert (np.concatenate([part[0] for part in parts]) == one[0]).mean() > 0.99


def test_history_is_left_out(model: Model, dataset: Dataset) -> None:
    test = dataset.split("test")[:5]
    items, _ = ModelRanker(model, beams=30).rank(test, 30, exclude_history=True)
    for request in range(5):
        assert not set(items[request]) & set(test.history(request))
        assert (items[request] >= 0).sum() == 30 - len(set(test.history(request)))


def test_a_ranking_on_disk_with_sids_and_a_report(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    test = dataset.split("test")
    ranking = recommend(model, test, beams=20, output=tmp_path / "r", dataset=dataset)
    again = recommend(model, test, beams=20, output=tmp_path / "r", dataset=dataset)
    assert again.head == ranking.head
    table = ranking.table(0)
    assert table["sids"][0][0] == model.index.texts[dataset.item_ids.index(table["items"][0][0])]
    report = score(ranking, dataset)
    assert report.exposure["validity@20"] == 1
    assert report.sid["hr@10"].value >= report.item["hr@10"].value
    assert report.best["hr@10"] > report.item["hr@10"].value


def test_other_weights_never_go_on_with_a_ranking(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    test = dataset.split("test")[:4]
    recommend(model, test, beams=5, output=tmp_path)
    before = fingerprint(model)
    weight = next(model.lm.parameters())
    with torch.no_grad():
        weight[0, 0] += 1
    try:
        assert fingerprint(model) != before
        with pytest.raises(ArtifactError, match="another config"):
            recommend(model, test, beams=5, output=tmp_path)
    finally:
        with torch.no_grad():
            weight[0, 0] -= 1


def test_training_mode_is_restored(model: Model, dataset: Dataset) -> None:
    model.lm.train()
    ModelRanker(model, beams=3).rank(dataset.split("test")[:2], 3)
    assert model.lm.training
    model.lm.eval()


def test_common_prefix() -> None:
    rows = TokenRows.of([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]])
    assert common_prefix(rows) == [1, 2]
    assert common_prefix(rows, [1, 9]) == [1]
    assert common_prefix(TokenRows.of([[1, 2, 3]])) == [1, 2]
    assert common_prefix(TokenRows.of([[1, 2], [3]])) == []


def test_faults(model: Model, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="unknown task"):
        recommend(model, dataset.split("test"), task="Z")
    with pytest.raises(ConfigError, match="ranking of 0"):
        recommend(model, dataset.split("test"), beams=0)

"""Validation by the task's prompts and exact beams, and what a model that has learned its data gets there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from itemic import Stage, train
from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, IndexMismatchError
from itemic.model import Model, new_model
from itemic.sid.index import ItemIndex
from itemic.tasks import TASKS
from itemic.training.language.validation import Validation, sample_requests
from itemic.training.ranks import joined
from tests.stages import stage_of
from tests.training import processes

ITEMS = 16


def faithful(users: int = 16) -> Dataset:
    """Users who take one item again and again: popularity knows nothing, who reads the history knows all."""
    ids = [f"i{i}" for i in range(ITEMS)]
    items = pl.DataFrame(
        {
            c.ITEM_ID: ids,
            c.TITLE: [f"thing {i}" for i in range(ITEMS)],
            c.DESCRIPTION: [""] * ITEMS,
            c.BRAND: [""] * ITEMS,
            c.CATEGORIES: [["Things"]] * ITEMS,
        }
    )
    rows = [(f"u{u}", ids[u % ITEMS]) for u in range(users) for _ in range(8)]
    interactions = pl.DataFrame(rows, schema=[c.USER_ID, c.ITEM_ID], orient="row").with_columns(
        pl.lit(None, pl.Int64).alias(c.TIMESTAMP),
        pl.lit(None, pl.Float32).alias(c.RATING),
        pl.lit(None, pl.String).alias(c.SPLIT),
    )
    return Dataset(items, interactions)


INDEX = ItemIndex([f"i{i}" for i in range(ITEMS)], np.array([[i % 4, i // 4] for i in range(ITEMS)]), (4, 4))
STAGE = stage_of(
    {
        "steps": 60,
        "data.tokens_per_step": 400,
        "learning_rate": 1.5e-3,
        "schedule.warmup": 0.1,
        "engine.precision": "float32",
        "validation.task": "sequence",
        "validation.every": 20,
        "validation.requests": 12,
        "validation.beams": 10,
        "validation.samples": 2,
    }
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return faithful()


@pytest.fixture
def model() -> Model:
    return new_model("qwen3-pico", INDEX, [f"thing {i}" for i in range(ITEMS)], vocab_size=300)


def test_a_model_that_has_learned_its_users_ranks_every_target_first(
    dataset: Dataset, model: Model, tmp_path: Path
) -> None:
    before = Validation(model, dataset, STAGE, 0)(model)
    assert before["requests"] == 12
    assert before["ndcg@10"] < 0.8
    conversations = TASKS["sequence"].build(dataset, INDEX)
    train(model, conversations, stage=STAGE, dataset=dataset, output=tmp_path)
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = [line["valid/ndcg@10"] for line in lines if "valid/ndcg@10" in line]
    assert len(scores) == 3
    assert max(scores) == pytest.approx(1.0)
    assert Validation(model, dataset, STAGE, 0)(model) == {
        "hr@10": 1.0,
        "ndcg@10": max(scores),
        "requests": 12.0,
    }
    samples = [line["samples"] for line in lines if "samples" in line][-1]
    assert len(samples) == 2
    assert all(sample["answer"].startswith(sample["target"]) for sample in samples)
    for sample in samples:
        titles = sample["recommended"].split(" · ")
        assert titles[0] == sample["title"]
        assert len(set(titles)) == 5


def test_ranks_are_those_of_scoring_every_item(dataset: Dataset, model: Model) -> None:
    """The slow way: the log-probability of every item's two codes after every prompt, best first."""
    torch.manual_seed(0)
    with torch.no_grad():
        model.lm.get_input_embeddings().weight.mul_(3)  # so that scores are not nearly equal
    stage = stage_of({"validation.every": 1, "validation.requests": 5, "validation.beams": ITEMS})
    validation = Validation(model, dataset, stage, 3)
    hits = []
    for request in range(5):
        prompt = validation.prompts[request].tolist()
        scores = []
        for item in range(ITEMS):
            answer = model.item_rows[item].tolist()
            with torch.no_grad():
                logits = model.lm(torch.tensor([prompt + answer]), use_cache=False).logits[0]
            steps = logits[len(prompt) - 1 : -1].log_softmax(-1)
            scores.append(sum(float(steps[k, token]) for k, token in enumerate(answer) if 0 < k < 3))
        rank = int(np.argsort(-np.array(scores)).tolist().index(validation.requests.targets[request])) + 1
        hits.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    assert validation(model)["ndcg@10"] == pytest.approx(np.mean(hits))


def test_the_sample_is_of_known_targets_and_a_function_of_the_seed() -> None:
    offsets = np.arange(11, dtype=np.int64) * 2
    targets = np.where(np.arange(10) % 3 == 0, -1, np.arange(10)).astype(np.int32)
    users = np.array([f"u{i}" for i in range(10)], object)
    requests = Requests(users, offsets, np.arange(20, dtype=np.int32), targets)
    one, two = sample_requests(requests, 4, 0), sample_requests(requests, 4, 0)
    assert one.users.tolist() == two.users.tolist()
    assert (one.targets > 0).all()
    assert len(one) == 4
    for number, user in enumerate(one.users):
        place = int(user[1:])
        assert one.history(number).tolist() == [2 * place, 2 * place + 1]
        assert one.targets[number] == place
    assert len(sample_requests(requests, 100, 0)) == 6
    assert {tuple(sample_requests(requests, 4, seed).users) for seed in range(20)} != {tuple(one.users)}


def test_what_cannot_be_validated(dataset: Dataset, model: Model) -> None:
    with pytest.raises(ConfigError, match="Z"):
        Validation(model, dataset, stage_of({"validation.task": "Z"}), 0)
    smaller = Dataset(dataset.items[:-1], dataset.interactions.filter(pl.col(c.ITEM_ID) != f"i{ITEMS - 1}"))
    with pytest.raises(IndexMismatchError):
        Validation(model, smaller, Stage(), 0)


class Told(Validation):
    """Notes which requests it asked."""

    asked: list[int]

    def _ask(self, model: Model, requests: Any) -> Any:
        self.asked = requests.tolist()
        return super()._ask(model, requests)


def ask(folder: str, without: int) -> None:
    """One rank; that of number ``without`` has no weights."""
    with joined() as ranks:
        torch.manual_seed(0)
        model = new_model("qwen3-pico", INDEX, [f"thing {i}" for i in range(ITEMS)], vocab_size=300)
        if ranks.rank == without:
            model.lm.to("meta")
        validation = Told(model, faithful(), STAGE, 0, ranks)
        numbers = validation(model)
        Path(folder, f"{ranks.rank}.json").write_text(json.dumps([numbers, validation.asked]))


@pytest.mark.parametrize("without", [-1, 1])
def test_ranks_share_the_requests_and_have_the_numbers_of_one(without: int, tmp_path: Path) -> None:
    found = {}
    for size in (1, 2):
        processes.run(ask, size, str(tmp_path), without, folder=tmp_path)
        found[size] = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(size)]
    ((alone, everything),) = found[1]
    assert len(everything) == 12
    assert alone["hr@10"] > 0
    assert [numbers for numbers, _ in found[2]] == [alone, alone]
    asked = [each for _, each in found[2]]
    assert sorted(asked[0] + asked[1]) == everything
    assert len(asked[1]) == (6 if without < 0 else 0)

"""Training a teacher: against a plain loop, killed and gone on with, on several ranks; what it can't do."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from itemic.data.dataset import Dataset
from itemic.errors import ArtifactError, ConfigError
from itemic.metrics import hit_rate, ndcg, ranks_of
from itemic.teacher.rows import windows
from itemic.teacher.run import first_vectors, reduce_vectors, train_teacher
from itemic.teacher.settings import TeacherSettings, TeacherValidation
from itemic.teacher.source import RowSteps
from itemic.teacher.teacher import Teacher
from itemic.teacher.validation import Validation
from itemic.training.schedule import learning_rate
from tests.evaluate.helpers import make_dataset, random_dataset
from tests.teacher.helpers import tiny
from tests.teacher.reference import loss
from tests.training import processes
from tests.training.test_resume import kill_at_flush

SHAPE = {"width": 12, "layers": 1, "heads": 2, "max_length": 6, "init": "normal", "dropout": 0.0}
SETTINGS: dict[str, Any] = {
    "model": SHAPE,
    "epochs": 3,
    "learning_rate": 2e-2,
    "data": {"targets_per_step": 60, "targets_per_block": 25},
    "optimizer": {"weight_decay": 0.1},
    "engine": {"precision": "float32"},
    "validation": {"every": None},
    "checkpoints": {"every": 2},
    "logs": {"every": 1},
}
KILLED = SETTINGS | {
    "model": SHAPE | {"dropout": 0.2},
    "optimizer": {"ema": 0.8},
    "validation": {"every": 3, "requests": 20},
}


def data() -> Dataset:
    return random_dataset(40, 25, seed=1)


def plain(dataset: Dataset, told: TeacherSettings) -> tuple[list[float], dict[str, torch.Tensor]]:
    """One user at a time, torch's own optimizer."""
    torch.manual_seed(0)
    model = Teacher.new(dataset.item_ids, told.model.shape).model
    rows = windows(dataset.train, told.model.max_length)
    matrices = {
        n for n, w in model.named_parameters() if w.ndim == 2 and not n.startswith(("items", "positions"))
    }
    groups = [
        {
            "params": [w for n, w in model.named_parameters() if (n in matrices) == decays],
            "weight_decay": rate,
        }
        for decays, rate in ((True, told.optimizer.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, betas=told.optimizer.betas, foreach=False)
    source = RowSteps(rows, told, 0)
    total, losses = source.total_steps(), []
    every = source.steps()
    for number in range(total):
        users = []
        for block in next(every).blocks:
            assert block.targets is not None
            start = 0
            for count, length in block.slabs:
                for _ in range(count):
                    part = slice(start, start + length)
                    users.append([int(block.items[start]), *block.targets[part].tolist()])
                    start += length
        optimizer.zero_grad()
        mean = loss(model, users) / sum(len(user) - 1 for user in users)
        mean.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(told, number, total)
        torch.nn.utils.clip_grad_norm_(model.parameters(), told.optimizer.clip)
        optimizer.step()
        losses.append(float(mean.detach()))
    return losses, {name: weight.detach() for name, weight in model.named_parameters()}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def work(folder: str, settings: dict[str, Any], strategy: str = "ddp", die_at: int | None = None) -> None:
    """One process, or one rank: trains, or is killed at that flush to disk."""
    torch.set_num_threads(1)
    if die_at is not None:
        kill_at_flush(die_at)
    train_teacher(data(), settings=settings, output=folder, distribution={"strategy": strategy})


@pytest.mark.parametrize(("strategy", "ranks"), [("ddp", 1), ("ddp", 2), ("fsdp", 2)])
def test_trained_as_by_a_plain_loop(strategy: str, ranks: int, tmp_path: Path) -> None:
    """The one loop, alone and on two ranks, against one user at a time."""
    losses, weights = plain(data(), TeacherSettings.of(SETTINGS))
    processes.run(work, ranks, str(tmp_path / "t"), SETTINGS, strategy, folder=tmp_path)
    found = lines(tmp_path / "t")
    assert [line["loss"] for line in found] == pytest.approx(losses, abs=2e-4)
    assert losses[-1] < losses[0]
    targets = sum(max(0, len(data().train[user]) - 1) for user in range(40))
    assert found[-1]["targets"] == 3 * targets
    state = load_file(tmp_path / "t" / "model.safetensors")
    for name, weight in weights.items():
        torch.testing.assert_close(state[name], weight, atol=2e-3, rtol=1e-3)
    assert not (tmp_path / "t" / "checkpoints" / "step-00000002").exists()


def test_killed_it_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    """With dropout, averages and a best epoch in between; killed while checkpoints are written."""
    processes.run(work, 1, str(tmp_path / "whole"), KILLED, folder=tmp_path)
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    draw, kills = random.Random(0), 0
    while not (tmp_path / "killed" / "model.safetensors").exists():
        folder = str(tmp_path / "killed")
        with processes.ended(
            processes.begin(work, 1, folder, KILLED, "ddp", draw.randrange(4, 14), folder=tmp_path)
        ) as (child,):
            child.join(120)
            assert child.exitcode in (0, -signal.SIGKILL)
            kills += child.exitcode != 0
    assert kills >= 2
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == expected
    assert [line["step"] for line in lines(tmp_path / "killed")] == [
        line["step"] for line in lines(tmp_path / "whole")
    ]
    again = train_teacher(data(), settings=KILLED, output=tmp_path / "killed")  # finished: it is loaded
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == expected
    assert again.item_ids == data().item_ids


def test_the_best_epoch_is_kept_and_patience_ends(tmp_path: Path) -> None:
    told = SETTINGS | {
        "epochs": 30,
        "learning_rate": 5e-2,
        "validation": {"every": "epoch", "requests": 40, "patience": 2},
    }
    teacher = train_teacher(data(), settings=told, output=tmp_path)
    found = [line for line in lines(tmp_path) if "valid/ndcg@10" in line]
    assert len(found) < 30
    best = max(line["valid/ndcg@10"] for line in found)
    assert [line["valid/ndcg@10"] for line in found[-2:]] != [best, best]
    asked = Validation(data(), TeacherValidation(requests=40), 0)
    assert asked(teacher)["ndcg@10"] == pytest.approx(best)
    assert asked(Teacher.load(tmp_path))["ndcg@10"] == pytest.approx(best)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["finished"]
    assert record["place"]["best"] == pytest.approx(best)


@pytest.mark.parametrize("exclude", [False, True])
def test_validation_is_that_of_rankings(exclude: bool) -> None:
    dataset = data()
    teacher = tiny(item_ids=dataset.item_ids)
    asked = Validation(dataset, TeacherValidation(requests=1000, exclude_history=exclude), 0)
    items, _ = teacher.rank(asked.requests, 10, exclude_history=exclude)
    ranks = ranks_of(items, asked.requests.targets)
    found = asked(teacher)
    assert found["hr@10"] == pytest.approx(hit_rate(ranks, 10).mean())
    assert found["ndcg@10"] == pytest.approx(ndcg(ranks, 10).mean())
    assert found["requests"] == len(asked.requests)


def test_embeddings_begin_from_vectors(tmp_path: Path) -> None:
    """The main directions of centred vectors, at the size of random ones; what is left stays random."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 20)) + 5
    reduced = reduce_vectors(vectors, 3)
    assert reduced.std() == pytest.approx(0.02, rel=1e-4)
    centred = vectors - vectors.mean(axis=0)
    ours, theirs = reduced @ reduced.T, centred @ centred.T
    np.testing.assert_allclose(ours / np.abs(ours).max(), theirs / np.abs(theirs).max(), atol=1e-5)
    assert reduce_vectors(vectors, 64).shape == (50, 20)
    assert not reduce_vectors(np.ones((4, 2)), 2).any()
    dataset = data()
    assert len(first_vectors(dataset, 0)) == len(dataset.item_ids)
    told = SETTINGS | {
        "model": SHAPE | {"init": "vectors"},
        "steps": 1,
        "epochs": None,
        "learning_rate": 1e-9,
    }
    own = rng.normal(size=(25, 4))
    begun = train_teacher(dataset, settings=told, vectors=own).model.items.weight.detach()
    torch.testing.assert_close(begun[:, :4], torch.from_numpy(reduce_vectors(own, 12)), atol=1e-6, rtol=0)
    assert begun[:, 4:].std() > 0.01
    with pytest.raises(ConfigError, match="vectors of 3 items for 25"):
        train_teacher(dataset, settings=told, vectors=own[:3])


def test_steps_are_every_row_once_an_epoch_on_any_ranks() -> None:
    rows = windows(data().train, 6)
    source = RowSteps(rows, TeacherSettings.of(SETTINGS), 3)
    assert source.total_steps() == 3 * source.steps_per_epoch
    alone = source.steps()
    shared = [source.steps(None, rank, 3) for rank in range(3)]
    seen = 0
    for number in range(source.steps_per_epoch):
        step, parts = next(alone), [next(each) for each in shared]
        assert step.sizes.weight == sum(part.sizes.weight for part in parts)
        assert all(part.blocks for part in parts)  # nobody is idle
        assert all(len(block) <= 40 for block in step.blocks)
        items = [
            sorted(torch.cat([b.items for b in blocks]).tolist())
            for blocks in (step.blocks, [block for part in parts for block in part.blocks])
        ]
        assert items[0] == items[1]
        seen += step.sizes.counts["rows"]
        assert step.after.epoch == (number + 1 == source.steps_per_epoch)
        again = next(source.steps(step.state))
        other = next(alone) if number == 0 else None
        if other is not None:
            assert torch.equal(again.blocks[0].items, other.blocks[0].items)
            seen += other.sizes.counts["rows"]
            for each in shared:
                next(each)
            break
    assert seen < len(rows)


def test_faults(tmp_path: Path) -> None:
    for wrong, text in (
        ({"model": {"heads": 5}}, r"model\.heads is 5"),
        ({"model": {"widht": 5}}, r"model\.widht.*did you mean 'width'"),
        ({"model": "gru"}, "model.name"),
        ({"epochs": 2, "steps": 2}, "steps is given, and epochs"),
        ({"learning_rate": 1e-5, "schedule": {"min_lr": 1e-3}}, r"schedule\.min_lr"),
        ({"validation": {"every": None, "patience": 2}}, "patience"),
        ({"validation": {"metric": "mrr@10"}}, r"validation\.metric"),
        ({"engine": {"compile": True}}, r"engine\.compile"),
    ):
        with pytest.raises(ConfigError, match=text):
            TeacherSettings.of(wrong)
    lonely = make_dataset({"u": ["i1", "i2", "i3"]}, ["i1", "i2", "i3"])
    with pytest.raises(ConfigError, match="no user has two items"):
        train_teacher(lonely, settings=SETTINGS)
    train_teacher(data(), settings=SETTINGS | {"epochs": 1}, output=tmp_path)
    with pytest.raises(ArtifactError, match=r"holds another teacher: [\s\S]*learning_rate was"):
        train_teacher(data(), settings=SETTINGS | {"epochs": 1, "learning_rate": 1e-2}, output=tmp_path)

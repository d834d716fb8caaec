"""Killed with SIGKILL at any moment and started again, a run ends with the weights of one that was left
alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from itemic.training import checkpoint
from itemic.training.language.learning import Learning
from itemic.training.language.new_rows import learning_rows
from tests.stages import stage_of, with_keys
from tests.training.helpers import lm_trainer, tiny_lm, toy_rows

SHARD = "shard-00001-model-00001-of-00001.safetensors"
STAGE = stage_of(
    {
        "epochs": 6,
        "data.tokens_per_step": 60,
        "data.block_tokens": 20,
        "learning_rate": 1e-2,
        "objective.dropout": 0.2,
        "optimizer.ema": 0.8,
        "validation.every": 4,
        "checkpoints.every": 2,
        "data.sources": {"b": 1.5},
        "logs.every": 1,
        "engine.precision": "float32",
    }
)


def run(folder: str, embeddings: bool, die_at: int | None, warm: Any = None) -> None:
    """One process: trains to the end, or until it is killed; ``die_at`` kills it at that flush to disk."""
    torch.set_num_threads(1)
    if die_at is not None:
        kill_at_flush(die_at)
    lm, root = tiny_lm(tied=False), Path(folder)
    data = toy_rows(names=("a", "b"))

    def validate() -> dict[str, float]:
        # rises and falls, so that the best comes in the middle, and depends on the weights
        return {"ndcg@10": -abs(float(lm.get_input_embeddings().weight.std()) - 0.06)}

    if warm is not None:
        warm.set()
    if embeddings:
        with learning_rows(lm, range(30, 50)) as rows:
            stage = with_keys(STAGE, {"train.what": "embeddings"})
            lm_trainer(lm, data, stage, learns=Learning.rows_of(rows), folder=root, validate=validate).run()
    else:
        lm_trainer(lm, data, STAGE, folder=root, validate=validate).run()
    save_file({name: weight.clone() for name, weight in lm.state_dict().items()}, root / "final.part")
    (root / "final.part").rename(root / "final.safetensors")


def kill_at_flush(count: int) -> None:
    real: Callable[[Path], None] = checkpoint._flush
    left = [count]

    def flush(path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            if path.suffix == ".safetensors":  # in the middle of a file, too
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        real(path)

    checkpoint._flush = flush


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes forked from one that has imported everything: real ones, but quick to start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_resume", "torch.utils.tensorboard"])
    return context


def whole(processes: Any, folder: Path, embeddings: bool) -> bytes:
    child = processes.Process(target=run, args=(str(folder), embeddings, None))
    child.start()
    child.join()
    assert child.exitcode == 0
    return (folder / "final.safetensors").read_bytes()


@pytest.mark.parametrize("embeddings", [False, True])
def test_killed_while_writing_checkpoints(processes: Any, embeddings: bool, tmp_path: Path) -> None:
    expected = whole(processes, tmp_path / "whole", embeddings)
    draw, kills = random.Random(embeddings), 0
    while not (tmp_path / "killed" / "final.safetensors").exists():
        child = processes.Process(
            target=run, args=(str(tmp_path / "killed"), embeddings, draw.randrange(6, 36))
        )
        child.start()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        kills += child.exitcode != 0
    assert kills >= 2
    assert (tmp_path / "killed" / "final.safetensors").read_bytes() == expected
    assert (tmp_path / "killed" / "log.jsonl").read_text().count("\n") == (
        tmp_path / "whole" / "log.jsonl"
    ).read_text().count("\n")


def test_killed_at_random_moments(processes: Any, tmp_path: Path) -> None:
    started = time.monotonic()
    expected = whole(processes, tmp_path / "whole", False)
    lasts = time.monotonic() - started
    draw, kills = random.Random(0), 0
    while not (tmp_path / "killed" / "final.safetensors").exists():
        warm = processes.Event()
        child = processes.Process(target=run, args=(str(tmp_path / "killed"), False, None, warm))
        child.start()
        warm.wait()
        child.join(draw.uniform(0.05, 0.6) * lasts if kills < 8 else None)
        if child.exitcode is None:
            child.kill()
            child.join()
            kills += 1
        assert child.exitcode in (0, -signal.SIGKILL)
    assert (tmp_path / "killed" / "final.safetensors").read_bytes() == expected


def test_a_damaged_newest_checkpoint_changes_nothing(processes: Any, tmp_path: Path) -> None:
    expected = whole(processes, tmp_path / "whole", False)
    child = processes.Process(target=run, args=(str(tmp_path / "hurt"), False, 25))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    newest = sorted((tmp_path / "hurt" / "checkpoints").glob("step-*"))[-1]
    os.truncate(newest / SHARD, 100)
    assert whole(processes, tmp_path / "hurt", False) == expected

"""Killed with SIGKILL in rollouts and in updates, a stage ends with the weights of one that was left alone; and several
ranks learn what one does."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from itemic.errors import ConfigError
from itemic.model import Model
from itemic.rl.rollout import Roller
from itemic.rl.run import train_rl
from itemic.training import checkpoint
from itemic.training.distribution import Distribution
from itemic.training.ranks import joined
from tests.rl.test_run import STAGE, fresh, lines, shop
from tests.training import processes
from tests.training.test_distribution import options

WEIGHTS = "model.safetensors"
LONG: dict[str, Any] = STAGE | {
    "steps": 20,
    "learning_rate": 3e-3,
    "objective": {"name": "grpo", "kl": 0.05, "reference": "synced", "sync_every": 4, "dropout": 0.1},
    "rollout": {"answers": 5, "how": "both", "normalize": "level", "steps_per_rollout": 2, "epochs": 2},
    "validation": {"every": 4, "requests": 20, "beams": 10, "full": False},
    "optimizer": {"ema": 0.5},
    "rewards": STAGE["rewards"] | {"coverage": {"weight": 0.1, "decay": 0.8}},  # which remembers rollouts
}


def run(model: str, folder: str, die_at: tuple[str, int] | None) -> None:
    """One process: trains to the end, or until it is killed at the n-th rollout, optimizer step or flush to disk."""
    torch.set_num_threads(1)
    if die_at is not None:
        arm(*die_at)
    train_rl(Model.load(model), shop(), stage=LONG, output=folder)


def arm(where: str, count: int) -> None:
    left = [count]

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    if where == "rollout":  # in its middle: the answers are there, what they are worth isn't
        Roller._item_groups = counted(Roller._item_groups)  # type: ignore[method-assign]
    elif where == "update":
        torch.optim.AdamW.step = counted(torch.optim.AdamW.step)  # type: ignore[method-assign]
    else:
        checkpoint._flush = counted(checkpoint._flush)


@pytest.fixture(scope="module")
def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.rl.test_resume", "torch.utils.tensorboard"])
    return found


def test_killed_at_ten_moments(context: Any, tmp_path: Path) -> None:
    fresh(shop()).save(tmp_path / "begin")

    def ended(folder: str, die_at: tuple[str, int] | None) -> int:
        child = context.Process(target=run, args=(str(tmp_path / "begin"), str(tmp_path / folder), die_at))
        child.start()
        child.join()
        return int(child.exitcode)

    assert ended("whole", None) == 0
    draw = random.Random(0)
    for number in range(10):
        where, most = (("rollout", 1), ("update", 2), ("flush", 6))[number % 3]
        assert ended("killed", (where, draw.randrange(most))) == -signal.SIGKILL
    assert ended("killed", None) == 0
    whole, killed = (load_file(tmp_path / folder / WEIGHTS) for folder in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    began = load_file(tmp_path / "begin" / WEIGHTS)
    assert any(not torch.equal(whole[name], began[name]) for name in whole)


def learn(model: str, folder: str, options: Distribution, what: str) -> None:
    stage = STAGE | {"steps": 3, "learning_rate": 1e-3, "train": what}
    stage["validation"] = {"every": 2, "requests": 21, "beams": 10}
    stage["objective"] = {"name": "reinforce++", "kl": 0.05}  # whose advantages look at all of a step
    stage["rewards"] = STAGE["rewards"] | {"coverage": 0.1}  # and so does this reward
    stage["rollout"] = STAGE["rollout"] | {"suggest": {"transitions": 2}}
    with joined() as ranks:
        begun = Model.load(model, device=ranks.device_for(options))
        train_rl(begun, shop(), stage=stage, output=folder, distribution=options)


@pytest.mark.parametrize(
    ("strategy", "what"), [("ddp", "all"), ("fsdp", "all"), ("fsdp", "lora"), ("zero2", "all")]
)
def test_two_ranks_learn_what_one_does(strategy: str, what: str, tmp_path: Path) -> None:
    fresh(shop()).save(tmp_path / "begin")
    for size in (1, 2):
        arguments = (str(tmp_path / "begin"), str(tmp_path / str(size)), options(strategy, tmp_path), what)
        processes.run(learn, size, *arguments, folder=tmp_path)
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in "12")
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=2e-4, rtol=1e-3, msg=name)
    logs = [[line for line in lines(tmp_path / name) if "valid/hr@10" in line] for name in "12"]
    for mine, theirs in zip(*logs, strict=True):
        assert mine["step"] == theirs["step"]
        assert mine["valid/ndcg@10"] == pytest.approx(theirs["valid/ndcg@10"], abs=1e-3)


def test_weights_that_nobody_shares_out_while_rolling_are_refused(tmp_path: Path) -> None:
    fresh(shop()).save(tmp_path / "begin")
    shared = [options(strategy, tmp_path) for strategy in ("fsdp", "zero3")]
    processes.run(refused, 2, str(tmp_path / "begin"), shared, folder=tmp_path)


def refused(model: str, shared: list[Distribution]) -> None:
    with joined():
        for each in shared:
            with pytest.raises(ConfigError, match="rollouts need the weights"):
                train_rl(Model.load(model), shop(), stage=STAGE, distribution=each)

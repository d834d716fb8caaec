"""Whole stages of lists: what they leave, what stays as it was, and what a run that was killed ends with."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from itemic.errors import ArtifactError, ConfigError
from itemic.model import Model
from itemic.rl.critic import FILE
from itemic.rl.lists.rollout import ListRoller
from itemic.rl.reference import OwnWeights, Reference
from itemic.rl.run import Knows, train_rl
from itemic.rl.settings import RLStage
from itemic.rl.source import GroupSteps
from itemic.training.distribution import Distribution
from itemic.training.ranks import joined
from tests.rl.lists.helpers import STAGE, knows
from tests.rl.test_resume import WEIGHTS, arm
from tests.rl.test_run import fresh, lines, shop
from tests.training import processes
from tests.training.test_distribution import options

TOLD = {
    *(
        "reward",
        "reward/items",
        "reward/list",
        "reward/greedy",
        "legal",
        "count",
        "list_tokens",
        "choices",
        "cut",
    ),
    *("kl", "clipped", "ratio", "policy_kl", "value_loss", "choice_entropy", "value", "explained", "tried"),
    *("kl_of_answers/p50", "rollout_seconds", "without_signal"),
}


@pytest.mark.parametrize("train", ["all", "lora"])
def test_ppo_leaves_a_model_and_its_critic(
    train: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the reference is what the stage began with, bit for bit, all the way."""
    kept: list[tuple[OwnWeights, dict[str, torch.Tensor]]] = []
    plain = GroupSteps.begin

    def begin(self: GroupSteps, policy: Any, reference: Reference | None = None) -> None:
        if isinstance(reference, OwnWeights):
            kept.append((reference, {name: weight.clone() for name, weight in reference.kept.items()}))
        plain(self, policy, reference)

    monkeypatch.setattr(GroupSteps, "begin", begin)
    stage = STAGE | {"train": train, "objective": {"name": "ppo", "ppo": {"max_kl": 1e9, "passes": 2}}}
    model = train_rl(fresh(shop()), shop(), stage=stage, output=tmp_path / "out", knows=knows())
    log = [line for line in lines(tmp_path / "out") if "loss" in line]
    assert set(log[0]) >= TOLD
    assert len(log) == 3
    assert [("reward" in line, "pass_kl" in line) for line in log] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    # the same numbers in rollout and update, and a reference that is the policy itself
    assert log[0]["ratio"] < 1e-4
    assert abs(log[0]["kl"]) < 1e-4
    assert log[1]["ratio"] > 1e-4
    reference, before = kept[0]
    assert before.keys() == reference.kept.keys()
    assert not any("critic" in name or "value_head" in name for name in before)
    assert all(torch.equal(before[name], weight) for name, weight in reference.kept.items())
    critic = load_file(tmp_path / "out" / FILE)
    assert critic["value_head.out.weight"].abs().sum() > 0  # it begins with 0
    assert any("lora_B.critic" in name for name in critic) == (train == "lora")
    loaded = Model.load(tmp_path / "out")
    assert not any("critic" in name or "lora" in name for name in loaded.lm.state_dict())
    for name, weight in model.lm.state_dict().items():
        torch.testing.assert_close(loaded.lm.state_dict()[name], weight)
    groups = lines(tmp_path / "out", "groups.jsonl")
    assert groups[0]["kind"] in ("none", "with", "without", "at most", "at least", "about")
    for own in groups[0]["lists"]:
        assert own["reward"] == pytest.approx(sum(own["rewards"].values()), abs=1e-3)
        assert own["rewards"]["items"] == pytest.approx(sum(e["reward"] for e in own["entries"]), abs=1e-3)
    # a stage that goes on has its critic, and not another model's
    more = {"name": "ppo", "ppo": {"critic": str(tmp_path / "out"), "kl": 0.0}}
    again = STAGE | {"train": train, "objective": more, "steps": 1}
    train_rl(model, shop(), stage=again, output=tmp_path / "more", knows=knows())
    first = next(line for line in lines(tmp_path / "more") if "loss" in line)
    assert first["value"] != 0
    other = again | {"train": "lora" if train == "all" else "all"}
    with pytest.raises(ArtifactError, match="critic of another model"):
        train_rl(model, shop(), stage=other, knows=knows())


def test_a_policy_that_went_too_far_begins_no_further_pass(tmp_path: Path) -> None:
    stage = STAGE | {"steps": 4, "learning_rate": 1e-2}
    stage["objective"] = {"name": "ppo", "ppo": {"max_kl": 1e-6, "passes": 3}}
    train_rl(fresh(shop()), shop(), stage=stage, output=tmp_path / "out", knows=knows())
    log = [line for line in lines(tmp_path / "out") if "loss" in line]
    assert all("reward" in line for line in log)  # each step has a rollout of its own
    assert all(line["pass_kl"] > 1e-6 for line in log[1:])


@pytest.mark.parametrize("name", ["grpo", "rloo", "dpo"])
def test_group_objectives_learn_from_lists(name: str, tmp_path: Path) -> None:
    stage = STAGE | {"objective": {"name": name, "kl": 0.01}, "steps": 2}
    stage["rollout"] = {"normalize": "vocab", "lists": {"samples": 3, "mode": "soft"}}
    model = fresh(shop())
    before = {key: weight.clone() for key, weight in model.lm.state_dict().items()}
    train_rl(model, shop(), stage=stage, output=tmp_path / "out", knows=knows())
    assert any(not torch.equal(before[key], weight) for key, weight in model.lm.state_dict().items())
    log = [line for line in lines(tmp_path / "out") if "loss" in line]
    assert log[0]["ratio"] < 1e-4
    assert not (tmp_path / "out" / FILE).exists()


def test_lists_are_validated_by_their_worth_and_the_better_weights_stay(tmp_path: Path) -> None:
    stage = STAGE | {"objective": "rloo", "validation": {"every": 1, "requests": 8, "samples": 2}}
    assert RLStage.of(stage).validation.metric == "reward"
    train_rl(fresh(shop()), shop(), stage=stage, output=tmp_path / "out", knows=knows())
    told = [line for line in lines(tmp_path / "out") if "valid/reward" in line]
    assert [line["step"] for line in told] == [0, 1, 2, 3]
    assert told[0]["valid/reward"] == pytest.approx(
        told[0]["valid/reward/items"] + told[0]["valid/reward/list"]
    )
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    best = max(told, key=lambda line: line["valid/reward"])
    assert record["place"]["best"] == pytest.approx(best["valid/reward"])
    if record["full_validation"] is not None:
        assert set(record["full_validation"]) == {"start", "best", "kept"}


def test_what_can_not_be_is_refused() -> None:
    model = fresh(shop())
    with pytest.raises(ConfigError, match="there is none"):
        train_rl(model, shop(), stage=STAGE)
    with pytest.raises(ConfigError, match="by a sequential teacher"):
        train_rl(model, shop(), stage=STAGE, knows=Knows(object()))  # type: ignore[arg-type]
    stage = STAGE | {"train": "lora", "engine": {"gradient_checkpointing": True}}
    with pytest.raises(ConfigError, match="computed again"):
        train_rl(model, shop(), stage=stage, knows=knows())


# ------------------------------------------------------------------- killed, and several ranks

LONG: dict[str, Any] = STAGE | {
    "steps": 10,
    "learning_rate": 3e-3,
    "objective": {"name": "ppo", "dropout": 0.1, "ppo": {"max_kl": 0.02, "passes": 3}},
    "rollout": {"normalize": "legal", "steps_per_rollout": 2, "lists": {"samples": 2}},
    "validation": {"every": 4, "requests": 8, "full": False},
    "optimizer": {"ema": 0.5},
}


def run(model: str, folder: str, die_at: tuple[str, int] | None) -> None:
    """One process: trains to the end, or until it is killed at the n-th rollout, optimizer step or flush to disk."""
    torch.set_num_threads(1)
    if die_at is not None and die_at[0] == "rollout":
        left, real = [die_at[1]], ListRoller._groups

        def counted(self: ListRoller, *args: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *args)

        ListRoller._groups = counted  # type: ignore[method-assign]
    elif die_at is not None:
        arm(*die_at)
    train_rl(Model.load(model), shop(), stage=LONG, output=folder, knows=knows())


def test_killed_in_rollouts_and_updates_it_ends_bit_for_bit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.rl.lists.test_lists_run", "torch.utils.tensorboard"])
    fresh(shop()).save(tmp_path / "begin")

    def ended(folder: str, die_at: tuple[str, int] | None) -> int:
        child = context.Process(target=run, args=(str(tmp_path / "begin"), str(tmp_path / folder), die_at))
        child.start()
        child.join()
        assert child.exitcode is not None
        return int(child.exitcode)

    assert ended("whole", None) == 0
    for die_at in (("update", 2), ("rollout", 0), ("flush", 3), ("update", 1)):
        assert ended("killed", die_at) == -signal.SIGKILL
    assert ended("killed", None) == 0
    for file in (WEIGHTS, FILE):
        whole, killed = (load_file(tmp_path / folder / file) for folder in ("whole", "killed"))
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[name], killed[name]) for name in whole)


def learn(model: str, folder: str, options: Distribution, what: str) -> None:
    stage = STAGE | {"steps": 3, "train": what, "validation": {"every": 3, "requests": 8}}
    stage["objective"] = {"name": "ppo", "ppo": {"passes": 2}}  # what is whitened looks at all of a rollout
    with joined() as ranks:
        begun = Model.load(model, device=ranks.device_for(options))
        train_rl(begun, shop(), stage=stage, output=folder, distribution=options, knows=knows())


@pytest.mark.parametrize("what", ["all", "lora"])
def test_two_ranks_learn_what_one_does(what: str, tmp_path: Path) -> None:
    fresh(shop()).save(tmp_path / "begin")
    for size in (1, 2):
        arguments = (str(tmp_path / "begin"), str(tmp_path / str(size)), options("ddp", tmp_path), what)
        processes.run(learn, size, *arguments, folder=tmp_path)
    for file in (WEIGHTS, FILE):
        one, two = (load_file(tmp_path / name / file) for name in "12")
        for name, weight in one.items():
            torch.testing.assert_close(weight, two[name], atol=2e-4, rtol=1e-3, msg=name)
    told = [[line for line in lines(tmp_path / name) if "valid/reward" in line] for name in "12"]
    np.testing.assert_allclose(
        [line["valid/reward"] for line in told[0]], [line["valid/reward"] for line in told[1]], atol=0.05
    )

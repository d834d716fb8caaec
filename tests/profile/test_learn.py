"""A writer learns by the worth of its profiles: what it leaves, that it gets better, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from itemic.errors import ArtifactError, ConfigError, DataError
from itemic.profile.learn import PROFILES, OtherWriter, Users, train_writer
from itemic.profile.rollout import ProfileBook, worth_of
from itemic.profile.turn_settings import Drawing, WriterStage
from itemic.profile.writer import Writer
from itemic.training.distribution import Distribution
from itemic.training.ranks import joined
from tests.profile.writers import LikesBlue, messages, prompts, taught, untaught
from tests.training import processes
from tests.training.helpers import copy_of
from tests.training.test_distribution import options

STAGE: dict[str, Any] = {
    "steps": 24,
    "learning_rate": 3e-3,
    "schedule": "constant",
    "rollout": {"samples": 4, "max_new_tokens": 8, "epochs": 2},
    "objective": {"name": "rebel", "rebel": {"eta": 1.0}},
    "data": {"prompts_per_step": 8},
    "checkpoints": {"every": 5},
    "logs": {"every": 1},
    "examples": 4,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def users(writer: Writer, count: int = 16) -> Users:
    return Users(prompts(writer, count), LikesBlue(), "blue")


def lines(folder: Path, name: str = "log.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def blue(writer: Writer) -> float:
    profiles = writer.write(prompts(writer, 16), Drawing(samples=8, max_new_tokens=8), 5)
    return float(
        np.mean(["blue" in text and ok for text, ok in zip(profiles.texts, profiles.usable, strict=True)])
    )


def test_rebel_teaches_what_is_worth_something(tmp_path: Path) -> None:
    writer = taught()
    before, first = copy_of(writer.lm), blue(writer)
    trained = train_writer(writer, users(writer), stage=STAGE, output=tmp_path / "out")
    assert trained is writer
    assert blue(writer) > first + 0.4
    again = Writer.load(tmp_path / "out")
    assert all(
        torch.equal(again.lm.state_dict()[name], weight) for name, weight in copy_of(writer.lm).items()
    )
    assert any(not torch.equal(before[name], weight) for name, weight in copy_of(writer.lm).items())
    log = [line for line in lines(tmp_path / "out") if "loss" in line]
    assert {"reward", "cut", "empty", "profile_tokens", "without_signal", "ratio"} <= set(log[0])
    assert log[0]["ratio"] < 1e-4  # the first pass begins with the weights that wrote
    assert log[1]["ratio"] > log[0]["ratio"]
    shown = lines(tmp_path / "out", PROFILES)
    assert {line["step"] for line in shown} == {0, 4, 8, 12, 16, 20}
    assert all(len(line["profiles"]) == 4 for line in shown)
    assert "had" in shown[0]["prompt"]
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["finished"]
    with pytest.raises(ArtifactError, match="seed"):
        train_writer(taught(), users(writer), stage=STAGE, output=tmp_path / "out", seed=1)


@pytest.mark.parametrize(
    ("name", "train"),
    [("grpo", "all"), ("rloo", {"what": "last-layers", "layers": 1}), ("rebel", {"what": "lora", "rank": 4})],
)
def test_other_objectives_and_parts_of_the_weights(name: str, train: Any, tmp_path: Path) -> None:
    writer = taught()
    before = copy_of(writer.lm)
    stage = STAGE | {"steps": 2, "train": train, "objective": {"name": name}}
    if name == "rebel":
        stage["objective"] = {
            "name": name,
            "rebel": {"kl": 0.2},
        }  # the reference is the model without adapters
    train_writer(writer, users(writer), stage=stage, output=tmp_path / "out")
    after = copy_of(writer.lm)
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    if train == "all":
        assert any("embed" in key for key in changed)
    else:
        assert changed
        assert not any("embed" in key for key in changed)
    if name == "rloo":
        assert all("layers.1." in key or key == "model.norm.weight" for key in changed)
    log = [line for line in lines(tmp_path / "out") if "loss" in line]
    assert ("kl" in log[0]) == (name == "rebel")
    assert {key.replace("base_model.", "") for key in Writer.load(tmp_path / "out").lm.state_dict()} == set(
        after
    )


def test_validation_asks_others_and_keeps_the_best(tmp_path: Path) -> None:
    writer = taught()
    asked = users(writer, 12)
    held = Users(asked.prompts, LikesBlue(), "blue", np.arange(8, 12))
    stage = STAGE | {"steps": 6, "validation": {"every": 3, "first": True, "requests": 3, "samples": 2}}
    own = Users(asked.prompts, LikesBlue(), "blue", np.arange(8))
    train_writer(writer, own, held=held, stage=stage, output=tmp_path / "out")
    found = [line for line in lines(tmp_path / "out") if "valid/reward" in line]
    assert [line["step"] for line in found] == [0, 3, 6]
    assert all(line["valid/requests"] == 3 for line in found)
    sessions = {line["session"] for line in lines(tmp_path / "out", PROFILES)}
    assert sessions <= set(range(8))
    with pytest.raises(ConfigError, match="nobody to validate on"):
        train_writer(taught(), own, stage=stage)


def test_profiles_that_don_t_end_or_say_nothing_are_worth_nothing() -> None:
    writer = taught()
    asked = prompts(writer, 3)
    seen: list[int] = []

    def scorer(texts: Any, sessions: Any) -> Any:
        seen.append(len(texts))
        return np.ones(len(texts))

    cut = writer.write(asked, Drawing(samples=2, max_new_tokens=1), 0)
    np.testing.assert_array_equal(worth_of(cut, np.arange(6), scorer), 0)
    assert not seen
    some = writer.write(asked, Drawing(samples=2, max_new_tokens=8), 0)
    np.testing.assert_array_equal(worth_of(some, np.arange(6), scorer), some.usable)
    with pytest.raises(DataError, match="no finite number"):
        worth_of(some, np.arange(6), lambda texts, sessions: np.full(len(texts), np.nan))
    with pytest.raises(DataError, match="shape"):
        worth_of(some, np.arange(6), lambda texts, sessions: np.zeros(1 + len(texts)))


def test_faults_that_are_known_at_once() -> None:
    with pytest.raises(ConfigError, match="ppo, which is for lists"):
        WriterStage.of({"objective": "ppo"})
    with pytest.raises(ConfigError, match="samples"):
        WriterStage.of({"rollout": {"samples": 1}})
    with pytest.raises(ConfigError, match="nobody to write about"):
        ProfileBook(taught().prompts(messages(2)), np.zeros(0, np.int64))
    writer = taught()
    with pytest.raises(ConfigError, match="24 prompts to a rollout, and there are 16"):
        train_writer(writer, users(writer), stage=STAGE | {"data": {"prompts_per_step": 24}})


def learn(begin: str, folder: str, told: Distribution) -> None:
    torch.set_num_threads(1)
    stage = STAGE | {"steps": 3, "learning_rate": 1e-3, "train": {"what": "last-layers", "layers": 1}}
    stage["objective"] = {"name": "rebel", "rebel": {"kl": 0.1}}  # rewards are whitened over both
    stage["validation"] = {"every": 2, "requests": 5}
    with joined() as ranks:
        writer = Writer.load(begin, device=ranks.device_for(told))
        held = Users(users(writer).prompts, LikesBlue(), "held", np.arange(4, 10))
        train_writer(writer, users(writer), held=held, stage=stage, output=folder, distribution=told)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_learn_what_one_does(strategy: str, tmp_path: Path) -> None:
    taught().save(tmp_path / "begin")
    for size in (1, 2):
        arguments = (str(tmp_path / "begin"), str(tmp_path / str(size)), options(strategy, tmp_path))
        processes.run(learn, size, *arguments, folder=tmp_path)
    one, two = (Writer.load(tmp_path / name).lm.state_dict() for name in "12")
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=2e-4, rtol=1e-3, msg=name)
    start = taught().lm.state_dict()
    assert any(not torch.equal(start[name], weight) for name, weight in one.items())
    logs = [[line for line in lines(tmp_path / name) if "reward" in line] for name in "12"]
    assert [line["reward"] for line in logs[0]] == pytest.approx(
        [line["reward"] for line in logs[1]], abs=1e-6
    )


def test_a_reference_of_other_words_is_refused(tmp_path: Path) -> None:
    other = untaught()
    other.tokenizer.add_tokens(["<new>"])
    other.save(tmp_path / "other")
    with pytest.raises(ConfigError, match="another vocabulary"):
        OtherWriter(tmp_path / "other", taught())

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from itemic.errors import ConfigError
from itemic.settings import settings_from, settings_json
from itemic.training.distribution import Distribution
from itemic.training.language.stage import Learns, NextTokenSettings, Stage, StageData
from itemic.training.settings import (
    CheckpointSettings,
    EngineSettings,
    LogSettings,
    OptimizerName,
    OptimizerSettings,
    ScheduleSettings,
    ValidationSettings,
)
from tests.stages import stage_of, with_keys

PARTS = (
    *(Learns, StageData, NextTokenSettings, OptimizerSettings, ScheduleSettings),
    *(EngineSettings, ValidationSettings, CheckpointSettings, LogSettings, Distribution),
)


def test_one_epoch_unless_told_otherwise() -> None:
    assert Stage().epochs == 1
    assert Stage(steps=5).epochs is None


def test_a_mapping_as_a_recipe_gives_it() -> None:
    stage = Stage.of(
        {"name": "sft", "steps": 10, "optimizer": {"betas": [0.9, 0.95]}, "data": {"sources": {"C": 0.5}}}
    )
    assert stage == Stage("sft", steps=10, data=StageData(sources={"C": 0.5}))
    assert stage.optimizer.betas == (0.9, 0.95)
    assert Stage.of(stage) is stage
    assert Stage.of(stage.to_json()) == stage == pickle.loads(pickle.dumps(stage))
    assert Stage.of(settings_json(stage, usual=False)) == stage


def test_a_bare_word_is_the_name_of_its_part() -> None:
    words = {"train": "lora", "optimizer": "muon", "schedule": "linear", "objective": "next-token"}
    expected = Stage(
        train=Learns("lora"), optimizer=OptimizerSettings("muon"), schedule=ScheduleSettings("linear")
    )
    assert Stage.of(words) == expected
    assert Stage(**words) == expected  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"schedule.name is 'cosin': .*; did you mean 'cosine'\?"):
        Stage.of({"schedule": "cosin"})


@pytest.mark.parametrize("part", PARTS)
def test_each_part_stands_alone(part: type[Any]) -> None:
    assert settings_from(part, None) == settings_from(part, {}) == part()
    assert settings_from(part, settings_json(part())) == part()
    with pytest.raises(ConfigError, match=f"^{part.__name__}: nme: unknown key"):
        part(nme=1)


def test_unknown_keys_are_refused_with_a_hint() -> None:
    with pytest.raises(
        ConfigError, match=r"learning_rat: unknown key; did you mean 'learning_rate'\?; wat: "
    ):
        Stage.of({"learning_rat": 1, "wat": 2})
    with pytest.raises(ConfigError, match=r"schedule.warmpu: unknown key; did you mean 'warmup'\?"):
        Stage.of({"schedule": {"warmpu": 1}})
    with pytest.raises(ConfigError, match=r"validate_evry: unknown key; did you mean 'validation.every'\?"):
        Stage.of({"validate_evry": 1})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Stage.of(
            {
                "train": "head",
                "epochs": 1,
                "steps": 1,
                "learning_rate": 0,
                "optimizer": {"ema": 1.0},
                "validation": {"every": "week"},
                "checkpoints": {"keep": 0, "evry": 1},
            }
        )
    parts = (
        "train.what is 'head'",
        "steps is given, and epochs",
        "learning_rate is 0",
        "optimizer.ema is 1.0",
    )
    rest = (
        "validation.every is 'week'",
        "checkpoints.keep is 0",
        "checkpoints.evry: unknown key; did you mean",
    )
    for part in (*parts, *rest):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 1.5),
        ("epochs", True),
        ("learning_rate", "1e-3"),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("optimizer.betas", [0.9]),
        ("optimizer.betas", [0.9, 1.0]),
        ("data.sources", {"C": "all"}),
        ("data.sources", {"C": -1}),
        ("optimizer.clip", True),
        ("validation.patience", 3),
        ("schedule.min_lr", 1.0),
        ("schedule.warmup", -1),
        ("validation.every", 0),
        ("validation.beams", 9),
        ("validation.task", {"windows": ["all"]}),
        ("objective.dropout", -0.1),
        ("objective.name", "contrastive"),
        ("data.overlong", "cut"),
        ("checkpoints.keep", "some"),
        ("checkpoints.every", -1),
        ("checkpoints.every", "all"),
        ("logs.trackers", ["bord"]),
        ("logs.trackers", "tensorboard"),
        ("engine.tf32", 1),
        ("engine", 3),
    ],
)
def test_a_value_that_cannot_work(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        stage_of({key: value, "validation.every": None} if key == "validation.patience" else {key: value})


def test_every_old_key_says_where_it_stands_now() -> None:
    known = set(Stage().flat())
    for old, new in Stage.MOVED.items():
        assert new in known, old
        with pytest.raises(ConfigError, match=f"^Stage: {old} is {new} now"):
            Stage.of({old: 1})
    assert set(Stage.MOVED) & {field.name for field in fields(Stage)} == set()


def test_what_decides_no_weight_stays_out_of_a_run_s_identity() -> None:
    quiet = {
        "name": "other",
        "checkpoints.every": 3,
        "logs.every": 7,
        "logs.trackers": ["tensorboard"],
        "data.workers": 2,
        "validation.samples": 5,
    }
    assert with_keys(Stage(), quiet).decisive() == Stage().decisive()
    for key in set(Stage().flat()) - set(quiet) - {"checkpoints.keep"} - set(Stage.LATER):
        assert key in Stage().decisive()
    assert Stage().decisive()["schedule.warmup"] == 0.03


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_a_stage_is_changed_by_replacing(name: str) -> None:
    stage = replace(Stage(), optimizer=settings_from(OptimizerSettings, {"name": name}))
    assert stage.optimizer.name == name
    with pytest.raises(ConfigError, match=r"^ScheduleSettings: warmup is -1: input should be"):
        replace(stage.schedule, warmup=-1)


def test_blocks_of_a_step() -> None:
    assert StageData(tokens_per_step=8192, block_tokens=2048).blocks_per_step == 4
    small = StageData(tokens_per_step=1000, block_tokens=2048)
    assert (small.blocks_per_step, small.planned_block) == (1, 1000)


def test_imports_without_torch() -> None:
    rooms = "itemic.training.language.stage, itemic.training.settings, itemic.evaluate.settings, itemic.model.presets"
    code = f"import sys; from itemic import Stage; import {rooms}; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_buffer_holds_two_chunks_for_every_block_of_a_step() -> None:
    StageData(stream=True, shuffle_buffer=8, tokens_per_step=400, block_tokens=100)
    with pytest.raises(ConfigError, match="shuffle_buffer is 7, 4 blocks a step need twice as many"):
        StageData(stream=True, shuffle_buffer=7, tokens_per_step=400, block_tokens=100)
    StageData(shuffle_buffer=7, tokens_per_step=400, block_tokens=100)
    with pytest.raises(ConfigError, match="shuffle_buffer is 0"):
        StageData(stream=True, shuffle_buffer=0)
    with pytest.raises(ConfigError, match="workers is -1"):
        StageData(workers=-1)

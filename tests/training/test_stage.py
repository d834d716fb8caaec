from __future__ import annotations

import subprocess
import sys

import pytest

from itemic.errors import ConfigError
from itemic.training.language.stage import Stage


def test_one_epoch_unless_told_otherwise() -> None:
    assert Stage().epochs == 1
    assert Stage(steps=5).epochs is None


def test_a_mapping_as_a_recipe_gives_it() -> None:
    stage = Stage.of({"name": "sft", "betas": [0.9, 0.95], "steps": 10, "sources": {"C": 0.5}})
    assert stage.betas == (0.9, 0.95)
    assert Stage.of(stage) is stage
    assert Stage.of(stage.to_json()) == stage


def test_unknown_keys_are_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"learning_rat \(did you mean learning_rate\?\), wat"):
        Stage.of({"learning_rat": 1, "wat": 2})


def test_all_faults_are_told_at_once() -> None:
    rule: dict[str, int | str] = {"keep": 0, "evry": 1}
    with pytest.raises(ConfigError) as caught:
        Stage(
            train="head",
            epochs=1,
            steps=1,
            learning_rate=0,
            ema=1.0,
            validate_every="week",
            checkpoints=rule,
        )
    parts = ("train is 'head'", "epochs and steps", "learning_rate", "ema is 1.0", "'week'")
    for part in (*parts, "checkpoints.keep is 0", "checkpoints has no evry (did you mean every?)"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 1.5),
        ("learning_rate", "1e-3"),
        ("betas", [0.9]),
        ("betas", [0.9, 1.0]),
        ("sources", {"C": "all"}),
        ("sources", {"C": -1}),
        ("clip", True),
        ("patience", 3),
        ("min_lr", 1.0),
        ("validate_every", 0),
        ("dropout", -0.1),
        ("overlong", "cut"),
        ("checkpoints", {"keep": "some"}),
        ("checkpoints", {"every": -1}),
        ("checkpoints", {"every": "all"}),
    ],
)
def test_a_value_that_cannot_work(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key.split("_")[0]):
        Stage.of({key: value})


def test_blocks_of_a_step() -> None:
    assert Stage(tokens_per_step=8192, block_tokens=2048).blocks_per_step == 4
    small = Stage(tokens_per_step=1000, block_tokens=2048)
    assert (small.blocks_per_step, small.planned_block) == (1, 1000)


def test_imports_without_torch() -> None:
    code = "import sys; from itemic import Stage; import itemic.training.language.stage; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_buffer_holds_two_chunks_for_every_block_of_a_step() -> None:
    Stage(stream=True, shuffle_buffer=8, tokens_per_step=400, block_tokens=100)
    with pytest.raises(ConfigError, match="shuffle_buffer is 7, 4 blocks a step need twice as many"):
        Stage(stream=True, shuffle_buffer=7, tokens_per_step=400, block_tokens=100)
    Stage(shuffle_buffer=7, tokens_per_step=400, block_tokens=100)
    with pytest.raises(ConfigError, match="shuffle_buffer is 0"):
        Stage(stream=True, shuffle_buffer=0)
    with pytest.raises(ConfigError, match="workers is -1"):
        Stage(workers=-1)

"""OpenOneRec's settings as recipes: what is taken over, what is told, and how flags are read."""

from __future__ import annotations

import json
import shlex
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from itemic.cli.app import call
from itemic.errors import ConfigError
from itemic.recipe import load_recipe
from itemic.recipe.flags import ENDS, parse_flags
from itemic.recipe.openonerec import import_openonerec
from itemic.recipe.openonerec_keys import DATA_KEYS, FLAGS, SWITCHES
from itemic.training.language.stage import Stage

DATA = {
    "name": "chat_completion_parquet",
    "sources": "s3://bucket/file_list.json",
    "max_length": 30000,
    "num_epochs": 3,
    "num_workers": 2,
    "model_class": "Qwen3ForCausalLM",
    "itemic_id_range": [151669, 176246],
    "only_assistant_loss": True,
    "local_shuffle_buffer_size": 100000,
    "add_think_pattern": False,
}
SCRIPT = r"""#!/bin/bash
# started by hand; it's the first stage
ROOT=/models
MODEL_DIR=${ROOT}/Qwen3-1.7B_itemic
export OUTPUT_DIR="/out/stg1 big"
mkdir -p $OUTPUT_DIR
set -x
echo `date` >> "$OUTPUT_DIR/info.log"
ADDRESS=$(awk 'NR==1{print $1}' "hosts")
torchrun --nnodes 2 --nproc_per_node=8 \
    --rdzv_endpoint "${ADDRESS}:8499" \
    bash scripts/runner.sh python3 recipes/train_qwen3.py \
        --model_dir $MODEL_DIR --output_dir "$OUTPUT_DIR" \
        --dataset_config examples/pretrain.json \
        --freeze_llm --use_tie_weights --start_optimize_embedding_index 151669 \
        --max_length 32768 --learning_rate=2e-4 --min_lr 1e-4 \
        --num_warmup_steps 200 --num_training_steps 2000 --lr_scheduler_type cosine \
        --save_checkpoint_per_step 50 --logging_per_step 5 --seed 19260817 \
        --minibatch_size 16384 --enable_gradient_checkpointing --use_chunked_loss_computer \
    > $OUTPUT_DIR/stdout.log 2>$OUTPUT_DIR/stderr.log &
    # --resume_from $OUTPUT_DIR/step2000 \
"""


def write(folder: Path, **changes: Any) -> Path:
    data = DATA | {"base_model_dir": str(folder)} | changes
    file = folder / "pretrain.json"
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return file


def imported(folder: Path, flags: str | None, **changes: Any) -> tuple[Any, Stage, list[str]]:
    """Recipe, its stage, what was told; the recipe is what ``load_recipe`` reads from the text."""
    found = import_openonerec(write(folder, **changes), flags)
    (folder / "made.yaml").write_text(found.text, encoding="utf-8")
    recipe = load_recipe(folder / "made.yaml")
    for line in found.told:
        assert f"#   {line}" in found.text
    return recipe, recipe.stages[0], found.told


def test_a_script_and_its_data_become_a_recipe_that_says_the_same(tmp_path: Path) -> None:
    flags = SCRIPT.replace("ROOT=/models", f"ROOT={tmp_path}")
    (tmp_path / "Qwen3-1.7B_itemic").mkdir()
    recipe, stage, told = imported(tmp_path, flags)
    assert (recipe.name, recipe.seed) == ("stg1-big", 19260817)
    assert recipe.index.levels == [8192, 8192, 8192]
    assert recipe.index.format == "onerec"
    assert (recipe.model.base, recipe.model.tie) == (str(tmp_path / "Qwen3-1.7B_itemic"), True)
    assert recipe.conversations.files == ["s3://bucket/file_list.json"]
    assert (recipe.data, recipe.tasks) == (None, [])
    expected = {
        "train.what": "embeddings",
        "epochs": 3,
        "learning_rate": 2e-4,
        "schedule.min_lr": 1e-4,
        "schedule.name": "cosine",
        "schedule.steps": 2000,
        "schedule.warmup": 200,
        "optimizer.weight_decay": 0.1,
        "optimizer.betas": [0.9, 0.95],
        "optimizer.clip": 0,
        "data.max_length": 32768,
        "data.block_tokens": 32768,
        "data.tokens_per_step": 16 * 32768,
        "data.overlong": "split",
        "objective.supervise": "all",
        "data.think_pattern": False,
        "engine.gradient_checkpointing": True,
        "checkpoints.every": 50,
        "logs.every": 5,
        "engine.precision": "bfloat16",
        "engine.minibatch_size": 16384,
        "data.stream": True,
        "data.workers": DATA["num_workers"],
        "data.shuffle_buffer": DATA["local_shuffle_buffer_size"],
    }
    assert {key: stage.flat()[key] for key in expected} == expected
    for word in ("--output_dir", "base_model_dir", "30000", "--dataset_config"):
        assert any(word in line for line in told), word
    assert not any("resume" in line for line in told)  # it stands behind a #


def test_unknown_keys_and_flags_are_told(tmp_path: Path) -> None:
    flags = "--learning_rate 1e-4 --num_heads 3 --fancy --min_lr 0 left over"
    _, stage, told = imported(tmp_path, flags, shuffle_seed=4)
    assert stage.learning_rate == 1e-4
    assert "shuffle_seed: 4 is unknown and was left out" in told
    assert "--num_heads 3 is unknown and was left out" in told
    assert "--fancy is unknown and was left out" in told
    assert "'over' belongs to no flag and was left out" in told


def test_values_of_several_lines_stay_comments(tmp_path: Path) -> None:
    recipe, _, told = imported(tmp_path, "--odd 'a\nmodel: {}' --output_dir '/a\nb'", odd="x\n\nseed: 9")
    assert recipe.seed == 123  # the script's default
    assert "--odd a model: {} is unknown and was left out" in told


@pytest.mark.parametrize(
    ("changes", "flags", "expected"),
    [
        ({"only_assistant_loss": False}, "", {"objective.supervise": "everything"}),
        ({"only_assistant_loss": None}, "", {"objective.supervise": "all"}),
        ({"add_think_pattern": True}, "", {"data.think_pattern": True}),
        ({"num_epochs": None}, "", {"epochs": 1}),
        (
            {},
            "",
            {
                "train.what": "all",
                "learning_rate": 2e-4,
                "schedule.min_lr": 1e-6,
                "schedule.steps": 1000,
                "schedule.warmup": 0,
            },
        ),
        ({}, "--lr_scheduler_type constant_with_warmup", {"schedule.name": "constant"}),
        ({}, "--lr_scheduler_type linear", {"schedule.name": "linear"}),
        ({}, "--freeze_llm false", {"train.what": "all"}),
        ({}, None, {"learning_rate": 1e-3, "data.max_length": 30000}),
        ({"max_length": None}, None, {"data.max_length": 1024}),
    ],
)
def test_one_setting_each(
    tmp_path: Path, changes: dict[str, Any], flags: str | None, expected: dict[str, Any]
) -> None:
    _, stage, _ = imported(tmp_path, flags, **changes)
    assert {key: stage.flat()[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("changes", "flags", "told"),
    [
        ({}, "--start_optimize_embedding_index 151669", "here all rows learn"),
        ({}, "--freeze_llm", "all embeddings learn there"),
        ({}, "--freeze_llm --start_optimize_embedding_index 7", "is not where itemic_id_range"),
        ({}, "--lr_scheduler_type inverse_sqrt", "inverse_sqrt is unknown"),
        ({}, "--clip_range 0.5", "no counterpart"),
        ({}, "--resume_from /a --resume_training_state", "goes on from its own last checkpoint"),
        ({}, "", "how many GPUs train"),
        ({}, None, "no training flags were given"),
        ({"name": "webdataset"}, "", "only OpenOneRec's conversation tables"),
        ({"itemic_id_range": [10, 21]}, "", "not 3 equal levels"),
        ({"itemic_id_range": None}, "", "3 levels of 8192 codes are assumed"),
    ],
)
def test_what_means_something_else_is_told(
    tmp_path: Path, changes: dict[str, Any], flags: str | None, told: str
) -> None:
    found = import_openonerec(write(tmp_path, **changes), flags)
    assert any(told in line for line in found.told), found.told


def test_wrong_values_are_told_all_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, num_epochs="three", sources=[1], add_think_pattern=1)
    with pytest.raises(ConfigError) as caught:
        import_openonerec(file, "--learning_rate fast --max_length --beta1 0.9")
    for piece in (
        "num_epochs is 'three'",
        "sources is no list",
        "add_think_pattern is 1",
        "--learning_rate fast",
    ):
        assert piece in caught.value.message
    assert "--max_length True: a value is missing" in caught.value.message


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('["a.parquet"]')
    with pytest.raises(ConfigError, match="has no sources"):
        import_openonerec(tmp_path / "list.json")
    with pytest.raises(ConfigError, match="can't be read as JSON"):
        import_openonerec(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="no closing quotation"):
        import_openonerec(write(tmp_path), "--model_dir 'a")


def test_every_key_and_flag_of_theirs_leaves_a_trace(tmp_path: Path) -> None:
    """A key changes the recipe's values, or is told; none vanishes."""
    (tmp_path / "other").mkdir()
    plain = import_openonerec(write(tmp_path), "--learning_rate 2e-4").text
    values: dict[str, str] = {
        "output_dir": "/o",
        "model_dir": f"{tmp_path}/other",
        "lr_scheduler_type": "linear",
    }
    for name, kind in FLAGS.items():
        if name in SWITCHES:
            text = f"--{name}"
        else:
            number = 0.5 if isinstance(kind, float) or kind is float else 77
            text = f"--{name} {values.get(name, str(number))}"
        assert import_openonerec(write(tmp_path), f"--learning_rate 2e-4 {text}").text != plain, name
    for key in DATA_KEYS:
        if key != "sources":
            more = import_openonerec(write(tmp_path, **DIFFERENT[key]), "--learning_rate 2e-4").text
            assert more != plain, key


DIFFERENT: dict[str, dict[str, Any]] = {
    "name": {"name": "x"},
    "base_model_dir": {"base_model_dir": "/x"},
    "max_length": {"max_length": 5},
    "num_epochs": {"num_epochs": 5},
    "num_workers": {"num_workers": 5},
    "model_class": {"model_class": None},
    "itemic_id_range": {"itemic_id_range": [1, 26]},
    "only_assistant_loss": {"only_assistant_loss": False},
    "local_shuffle_buffer_size": {"local_shuffle_buffer_size": 5},
    "add_think_pattern": {"add_think_pattern": True},
}

names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8).filter(lambda text: text.strip("_"))
letters = st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="$`#")
values = st.text(letters, max_size=9).filter(
    lambda text: not (text.startswith("--") or ENDS.match(text) or ".py" in text)
)


@given(
    st.dictionaries(names, values | st.just(True), max_size=6),
    st.lists(st.sampled_from([" ", "  ", " \\\n    "]), min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sampled_from(["{}", "python3 train.py {}", "torchrun --nproc_per_node 4 train.py {} > log 2>&1"]),
)
def test_flags_are_read_however_they_are_written(
    expected: dict[str, str | bool], blanks: list[str], joined: list[bool], command: str
) -> None:
    text, gaps = "", iter(blanks)
    for (name, value), one in zip(expected.items(), joined, strict=False):
        text += f"{next(gaps)}--{name}"
        if isinstance(value, str):
            text += ("=" if one else next(gaps)) + shlex.quote(value)
    found = parse_flags(command.format(text))
    assert found.given == expected
    assert found.stray == []
    assert found.ranks == (4 if "torchrun" in command else None)


def test_flags_inside_of_bash_and_under_mpirun() -> None:
    text = """mpirun -np 16 -x PATH bash -c "bash env.sh && python3 recipes/train.py \\
        --model_dir /m --freeze_llm \\
        --beta2 0.95 " > out.log"""
    found = parse_flags(text, SWITCHES)
    assert found.given == {"model_dir": "/m", "freeze_llm": True, "beta2": "0.95"}
    assert found.ranks == 16


def test_variables_that_nobody_set_stay_for_the_recipe(tmp_path: Path) -> None:
    found = parse_flags("A=1\npython t.py --a $A --b ${B} --c ${C:-3} --d=$D/x")
    assert found.given == {"a": "1", "b": "${B}", "c": "${C:-3}", "d": "${D}/x"}
    text = import_openonerec(write(tmp_path), "--model_dir $MY_MODEL").text
    assert yaml.safe_load(text)["model"] == {"base": "${MY_MODEL}"}


def test_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path)
    out = tmp_path / "new" / "recipe.yaml"
    line = ["recipe", "import", str(file)]
    assert call([*line, "--flags", "--learning_rate 1e-4 --odd", "--ranks", "8", "-o", str(out)]) == 0
    shown = capfd.readouterr()
    assert "note: --odd is unknown and was left out" in shown.err
    assert load_recipe(out).stages[0].data.tokens_per_step == 8 * 30000
    assert call([*line, "-o", str(out)]) == 2  # never over a file that is there
    (tmp_path / "run.sh").write_text(SCRIPT)
    assert call([*line, "--flags-file", str(tmp_path / "run.sh"), "--name", "other"]) == 0
    assert capfd.readouterr().out.splitlines()[0].startswith("# Made by `itemic recipe import`")
    assert call([*line, "--flags", "--seed 1", "--flags-file", str(tmp_path / "run.sh")]) == 2

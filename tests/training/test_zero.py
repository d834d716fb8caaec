"""ZeRO keeps no copy of the model: stages 1 and 2 train it in place; stage 3 has it in pieces, from its folder to the
folder that it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from itemic.errors import ConfigError
from itemic.training.distribution import Distribution
from itemic.training.ranks import joined
from tests.stages import stage_of
from tests.training import processes
from tests.training.helpers import lm_trainer, tiny_lm, toy_rows
from tests.training.test_shards import (
    KEYS,
    LAYERS,
    ONE_BLOCK,
    base,
    lines,
    measure,
    numbers,
    same_files,
    work,
)


def zero(stage: int, folder: Path) -> Distribution:
    """All but norms is shared out in stage 3, and buffers are as small as the model."""
    file = folder / "zero.json"
    own = {"stage3_param_persistence_threshold": 500} if stage == 3 else {}
    file.write_text(json.dumps({"zero_optimization": {"stage": stage, "reduce_bucket_size": 10_000} | own}))
    return Distribution("deepspeed", config=str(file))


@pytest.mark.parametrize(
    ("keys", "made"),
    [
        ({}, {"tie": False}),
        ({"train.what": "embeddings"}, {"dtype": torch.bfloat16}),
        ({"train.what": "lora", "train.rank": 4}, {"dtype": torch.bfloat16}),
    ],
    ids=["all", "embeddings", "lora"],
)
@pytest.mark.parametrize("stage", [2, 3])
def test_the_folder_is_the_one_of_one_process(stage: int, keys: Any, made: Any, tmp_path: Path) -> None:
    source, options = base(tmp_path / "base", **made), zero(stage, tmp_path)
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        args = (str(folder), str(source), ONE_BLOCK | keys, stage == 2, 0, options)
        processes.run(work, size, *args, folder=tmp_path)
    # products of gathered matrices this thin are rounded otherwise, and so is now and then a bfloat16
    near = 2**-7 if stage == 3 and keys.get("train.what") == "lora" else 0
    same_files(tmp_path / "1", tmp_path / "2", near)
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "2" / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())
    alone, both = (lines(tmp_path / name) for name in ("1", "2"))
    assert numbers(tmp_path / "2", "loss") == numbers(tmp_path / "1", "loss")
    assert len(numbers(tmp_path / "2", "valid/ndcg@10")) == 2
    for name in ("valid/hr@10", "valid/ndcg@10", "valid/requests"):
        assert numbers(tmp_path / "2", name) == numbers(tmp_path / "1", name)
    assert [line["samples"] for line in both if "samples" in line] == [
        line["samples"] for line in alone if "samples" in line
    ]


@pytest.mark.slow
def test_no_rank_holds_the_model(tmp_path: Path) -> None:
    source, options = base(tmp_path / "base", layers=LAYERS), zero(3, tmp_path)
    size = (source / "model.safetensors").stat().st_size
    processes.run(measure, 2, str(tmp_path), str(source), False, options, folder=tmp_path)
    layer = size / LAYERS
    for rank in range(2):
        most = json.loads((tmp_path / f"{rank}.json").read_text())
        assert 0.5 * size < most["computing"] < 0.52 * size + 4 * layer
        assert most["reading"] < 0.52 * size + 2 * layer
        assert 0.5 * size < most["gathering"] < 0.52 * size + 2 * layer


@pytest.mark.parametrize("stage", [2, 3])
def test_bfloat16_takes_no_digits_away(stage: int, tmp_path: Path) -> None:
    """The engine computes with rounded weights; those that learn are saved in float32, the others as they came."""
    source, options = base(tmp_path / "base"), zero(stage, tmp_path)
    keys = {"steps": 2, "engine.precision": "bfloat16", "train.what": "last-layers", "train.layers": 1}
    args = (str(tmp_path / "run"), str(source), KEYS | keys, stage == 2, 0, options)
    processes.run(work, 2, *args, folder=tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "run"))
    last = max(int(name.split(".")[2]) for name in before if name.startswith("model.layers."))
    for name, weight in before.items():
        same = weight == after[name]
        if name == "model.embed_tokens.weight":  # rows of the new tokens learn
            assert 0 < int((~same).any(1).sum()) <= 10
        elif name.startswith(f"model.layers.{last}.") or name == "model.norm.weight":
            assert not same.any()
        else:
            assert same.all(), name
        if not same.all():
            learned = after[name][~same]
            assert int((learned != learned.bfloat16().float()).sum()) > 0.9 * len(learned)


def test_a_model_that_nobody_has_is_refused(tmp_path: Path) -> None:
    processes.run(without_weights, 2, str(tmp_path), zero(2, tmp_path), folder=tmp_path)
    assert "a model without weights on rank 1: ZeRO shares weights out in stage 3 alone" in (
        (tmp_path / "told").read_text()
    )
    processes.run(without_weights, 2, str(tmp_path), zero(3, tmp_path), folder=tmp_path)
    assert "not all of them have it from a folder" in (tmp_path / "told").read_text()


def without_weights(folder: str, options: Distribution) -> None:
    """One rank; the second one has no weights."""
    with joined() as ranks:
        lm = tiny_lm()
        if not ranks.main:
            lm.to("meta")  # type: ignore[arg-type]
        with pytest.raises(ConfigError) as caught:
            lm_trainer(lm, toy_rows(), stage_of(ONE_BLOCK), ranks=ranks, distribution=options)
        Path(folder, "told").write_text(caught.value.message)

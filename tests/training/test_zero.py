"""ZeRO keeps no copy of the model: stages 1 and 2 train it in place; stage 3 has it in pieces, from its folder to the
folder that it leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from itemic.errors import ConfigError
from itemic.training.distribution import Distribution
from itemic.training.loop import Trainer
from itemic.training.ranks import joined
from tests.stages import stage_of
from tests.training import processes
from tests.training.helpers import lm_trainer, tiny_lm, toy_rows
from tests.training.test_shards import (
    KEYS,
    ONE_BLOCK,
    base,
    lines,
    measure,
    numbers,
    same_files,
    work,
)

# what is trained, and of what; samples are read token by token, so of one kind alone
LAYERS = 12  # of the model that no rank holds
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all": ({"validation.samples": 0}, {"tie": False}),
    "embeddings": ({"train.what": "embeddings"}, {"dtype": torch.bfloat16}),
    "lora": ({"train.what": "lora", "train.rank": 4, "validation.samples": 0}, {"dtype": torch.bfloat16}),
}
LOW = {
    "steps": 2,
    "engine.precision": "bfloat16",
    "train.what": "last-layers",
    "train.layers": 1,
    "validation.samples": 0,
    "validation.first": True,
}
Run = tuple[str, str, dict[str, Any], bool, int, Distribution]  # what work() takes


def zero(stage: int, folder: Path) -> Distribution:
    """All but norms is shared out in stage 3, and buffers are as small as the model."""
    file = folder / f"zero{stage}.json"
    own = {"stage3_param_persistence_threshold": 500} if stage == 3 else {}
    file.write_text(json.dumps({"zero_optimization": {"stage": stage, "reduce_bucket_size": 10_000} | own}))
    return Distribution("deepspeed", config=str(file))


def one_by_one(runs: list[Run], stopped: list[Run] | None = None) -> None:
    """One rank, for several trainings: DeepSpeed takes seconds to start. Those of ``stopped`` are, before their first
    step, and go on from a checkpoint of the weights alone."""
    # else MKL rounds a product by where in memory its matrices lie, and the engine's lie elsewhere
    os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
    with joined():
        for run in runs:
            work(*run)
        for run in stopped or []:
            plain = Trainer._advance
            Trainer._advance = interrupted  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                work(*run)
            Trainer._advance = plain  # type: ignore[method-assign]
            assert [path.name for path in Path(run[0], "checkpoints").glob("step-*")] == ["step-00000000"]
            work(*run)


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def runs_of(root: Path, options: Distribution, whole: bool, name: str) -> list[Run]:
    """A training of each kind, to ``root/KIND/NAME``."""
    return [
        (str(root / kind / name), str(root / kind / "base"), ONE_BLOCK | keys, whole, 0, options)
        for kind, (keys, _) in KINDS.items()
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each kind the base, and ``one``: what one process makes of it."""
    root = tmp_path_factory.mktemp("zero")
    for kind, (_, made) in KINDS.items():
        base(root / kind / "base", layers=2, **made)
    processes.run(one_by_one, 1, runs_of(root, Distribution(), True, "one"), folder=root)
    return root


@pytest.fixture(scope="module", params=[2, 3])
def stage(request: pytest.FixtureRequest, alone: Path) -> int:
    """A stage of ZeRO; what two ranks make of each kind under it is beside ``one``, under the stage's name, and so is
    what the engine makes of ``all`` in bfloat16, under ``low-STAGE``."""
    number: int = request.param
    options, whole = zero(number, alone), number == 2
    low = (str(alone / "all" / f"low-{number}"), str(alone / "all" / "base"), KEYS | LOW, whole, 0, options)
    processes.run(one_by_one, 2, runs_of(alone, options, whole, str(number)), [low], folder=alone)
    return number


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_the_one_of_one_process(alone: Path, stage: int, kind: str) -> None:
    one, two = alone / kind / "one", alone / kind / str(stage)
    rounded = stage == 3 and kind == "lora"  # products of gathered matrices this thin are rounded otherwise
    same_files(one, two, rounded)
    before, after = (load_file(each / "model.safetensors") for each in (alone / kind / "base", two))
    assert before.keys() == after.keys()
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())
    assert numbers(two, "loss") == pytest.approx(numbers(one, "loss"), rel=0, abs=1e-5 if rounded else 0)
    assert len(numbers(two, "valid/ndcg@10")) == 2
    for name in ("valid/hr@10", "valid/ndcg@10", "valid/requests"):
        assert numbers(two, name) == numbers(one, name)
    samples = [[line["samples"] for line in lines(each) if "samples" in line] for each in (one, two)]
    assert samples[0] == samples[1]
    assert len(samples[1]) == (2 if kind == "embeddings" else 0)


def test_bfloat16_takes_no_digits_away(alone: Path, stage: int) -> None:
    """The engine computes with rounded weights; those that learn are saved in float32, the others as they came."""
    before, after = (
        load_file(alone / "all" / name / "model.safetensors") for name in ("base", f"low-{stage}")
    )
    last = max(int(name.split(".")[2]) for name in before if name.startswith("model.layers."))
    assert len(numbers(alone / "all" / f"low-{stage}", "loss")) == 2
    for name, weight in before.items():
        same = weight == after[name]
        if name in ("model.embed_tokens.weight", "lm_head.weight"):  # rows of the new tokens learn
            assert 0 < int((~same).any(1).sum()) <= 10
        elif name.startswith(f"model.layers.{last}.") or name == "model.norm.weight":
            assert not same.any()
        else:
            assert same.all(), name
        if not same.all():
            learned = after[name][~same]
            assert int((learned != learned.bfloat16().float()).sum()) > 0.99 * len(learned)


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


def test_a_model_that_nobody_has_is_refused(tmp_path: Path) -> None:
    processes.run(without_weights, 2, str(tmp_path), [zero(2, tmp_path), zero(3, tmp_path)], folder=tmp_path)
    told = [(tmp_path / f"told-{number}").read_text() for number in range(2)]
    assert "a model without weights on rank 1: ZeRO shares weights out in stage 3 alone" in told[0]
    assert "not all of them have it from a folder" in told[1]


def without_weights(folder: str, each: list[Distribution]) -> None:
    """One rank; the second one has no weights."""
    with joined() as ranks:
        for number, options in enumerate(each):
            lm = tiny_lm()
            if not ranks.main:
                lm.to("meta")  # type: ignore[arg-type]
            with pytest.raises(ConfigError) as caught:
                lm_trainer(lm, toy_rows(), stage_of(ONE_BLOCK), ranks=ranks, distribution=options)
            Path(folder, f"told-{number}").write_text(caught.value.message)

"""A checkpoint of an unfinished run, as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from itemic import train
from itemic.cli.app import call
from itemic.errors import ArtifactError
from itemic.model import Model
from itemic.training.language.export import checkpoint_model
from tests.stages import stage_of
from tests.training.helpers import copy_of
from tests.training.test_run import STAGE, conversations, fresh


def interrupted(folder: Path, **keys: Any) -> dict[str, Path]:
    """A base model, and the last checkpoint of a run that was stopped after its fourth step of six."""
    fresh().save(folder / "base")
    calls = []

    def validate(_: Model) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"ndcg@10": 0.1}

    stage = STAGE | {"validation.every": 2, "checkpoints.every": 2, "checkpoints.keep": 5} | keys
    with pytest.raises(KeyboardInterrupt):
        train(
            Model.load(folder / "base"),
            conversations(),
            stage=stage_of(stage),
            output=folder / "run",
            validate=validate,
        )
    last = sorted((folder / "run" / "checkpoints").glob("step-*"))[-1]
    return {"base": folder / "base", "checkpoint": last, "run": folder / "run"}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"train.what": "embeddings"},
        {"train.what": "last-layers", "train.layers": 1},
        {"train.what": "lora", "train.rank": 4},
        {"optimizer.ema": 0.5, "objective.dropout": 0.1},
    ],
    ids=lambda keys: keys.get("train", "all") + ("+ema" if "ema" in keys else ""),
)
def test_a_checkpoint_is_the_model_that_a_run_of_so_many_steps_ends_with(
    tmp_path: Path, keys: dict[str, Any]
) -> None:
    places = interrupted(tmp_path, **keys)
    step = int(places["checkpoint"].name.rpartition("-")[2])
    found = checkpoint_model(places["checkpoint"], places["base"])
    # the same run, ended where the checkpoint was made; its schedule still ends at six steps
    stage = STAGE | keys | {"steps": step, "schedule.steps": 6}
    straight = train(Model.load(places["base"]), conversations(), stage=stage_of(stage))
    weights = copy_of(straight.lm)
    for name, weight in copy_of(found.lm).items():
        torch.testing.assert_close(weight, weights[name], msg=name)


def test_another_base_or_place_is_refused(tmp_path: Path) -> None:
    places = interrupted(tmp_path)
    fresh(hidden_size=160).save(tmp_path / "wider")
    with pytest.raises(ArtifactError, match="which the base has in shape"):
        checkpoint_model(places["checkpoint"], tmp_path / "wider")
    (places["run"] / "training.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"training\.json doesn't say"):
        checkpoint_model(places["checkpoint"], places["base"])


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    places = interrupted(tmp_path)
    file = places["checkpoint"] / "shard-00001-model-00001-of-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match=r"shard-00001\S*\.safetensors is damaged"):
        checkpoint_model(places["checkpoint"], places["base"])


def test_export_and_check_on_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    places = interrupted(tmp_path)
    out, base, checkpoint = tmp_path / "out", str(places["base"]), str(places["checkpoint"])
    assert call(["model", "export", checkpoint, "--base", base, "-o", str(out), "--dtype", "bfloat16"]) == 0
    assert (out / "README.md").is_file()
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16
    capfd.readouterr()
    assert call(["model", "check", str(out), "--against", checkpoint, "--base", base, "--json"]) == 0
    proofs = json.loads(capfd.readouterr().out)
    assert proofs[-1]["name"] == "same logits"
    assert all(proof["ok"] for proof in proofs)
    assert call(["model", "check", str(out), "--against", base]) == 1
    assert "FAULT  same logits" in capfd.readouterr().out
    for wrong in (["export", checkpoint], ["export", base, "--base", base]):
        assert call(["model", *wrong, "-o", str(tmp_path / "no")]) != 0
        assert "--base" in capfd.readouterr().err
    assert not (tmp_path / "no").exists()
    assert call(["model", "check", str(out), "--against", checkpoint]) == 2
    assert "Give --base" in capfd.readouterr().err

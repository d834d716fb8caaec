from __future__ import annotations

import json
from pathlib import Path

import pytest

from itemic import Stage, train
from itemic.cli.app import call
from itemic.errors import ConfigError
from itemic.model import Model
from itemic.recipe.stage import read_stage
from itemic.training.language.run import weights_digest
from tests.stages import stage_of

KEYS = {"steps": 3, "data.tokens_per_step": 512, "learning_rate": 1e-3, "logs.trackers": []}


def test_the_same_weights_as_from_python(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished / "run"
    (tmp_path / "stage.yaml").write_text(
        "steps: 9\ndata: {tokens_per_step: 512}\nlogs: {trackers: []}\n", encoding="utf-8"
    )
    command = ["train", str(root / "model"), "--conversations", str(root / "conversations")]
    command += ["-o", str(tmp_path / "out"), "--stage", str(tmp_path / "stage.yaml")]
    assert call([*command, "-s", "steps=3", "-s", "learning_rate=1e-3", "--seed", "4"]) == 0
    assert "the trained model" in capsys.readouterr().out
    model = train(Model.load(root / "model"), root / "conversations", stage=stage_of(KEYS), seed=4)
    assert weights_digest(Model.load(tmp_path / "out").lm) == weights_digest(model.lm)
    record = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))
    assert record["stage"] == stage_of(KEYS).to_json()


def test_faults_are_told_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(tmp_path / "none"), "--conversations", "x.parquet", "-o", str(tmp_path / "out")]
    assert call([*command, "-s", "epoch=1", "-s", "learning_rate=fast"]) == 2
    told = capsys.readouterr().err
    assert "did you mean 'epochs'?" in told
    assert "learning_rate: is 'fast'" in told
    assert not (tmp_path / "out").exists()


def test_a_stage_of_its_own(tmp_path: Path) -> None:
    assert read_stage(None) == Stage()
    assert read_stage(None, ["learning_rate=2e-4", "checkpoints.keep=all"]) == stage_of(
        {"learning_rate": 2e-4, "checkpoints.keep": "all"}
    )
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        read_stage(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("[1]", encoding="utf-8")
    with pytest.raises(ConfigError, match="mapping"):
        read_stage(tmp_path / "list.yaml")


def test_the_help_has_every_key_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "--help"]) == 0
    told = capsys.readouterr().out
    for key in Stage().flat():
        assert f"  {key}: " in told
    assert "  data.tokens_per_step: 8192\n" in told

"""Checkpoints that stay: listed with their validations, exported, ranked by, gone on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from itemic.cli.app import call
from tests.runs import RECIPE, weights, write_recipe

RULE = "checkpoints: {every: 20, keep: all}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    text = RECIPE.replace("checkpoints: {every: 2}", RULE).replace("every: epoch", "every: 20")
    assert call(["run", str(write_recipe(folder, text)), "-o", str(folder / "run")]) == 0
    return folder


def test_they_are_listed_with_their_validations(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (kept / "run" / "train.all" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    logged = {line["step"]: line for line in map(json.loads, lines) if "valid/hr@10" in line}
    assert call(["model", "checkpoints", str(kept / "run"), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["stage"], each["step"]) for each in listed][:2] == [("all", 20), ("all", 40)]
    for each in listed:
        assert each["metrics"]["hr@10"] == logged[each["step"]]["valid/hr@10"]
        assert each["size"] == sum(file.stat().st_size for file in Path(each["folder"]).iterdir())
    assert call(["model", "checkpoints", str(kept / "run" / "train.all")]) == 0
    shown = capsys.readouterr().out
    assert "hr@10" in shown
    assert "MB" in shown
    assert call(["model", "checkpoints", str(kept / "run" / "train.rows")]) == 0
    assert "keeps no checkpoints" in capsys.readouterr().out
    assert call(["model", "checkpoints", str(kept)]) == 2


def test_one_is_exported_and_gone_on_from(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, folder = kept / "run", tmp_path / "twenty"
    assert call(["model", "export", str(root), "--checkpoint", "21", "-o", str(folder)]) == 2
    assert "There are: all 20, all 40" in capsys.readouterr().err
    assert call(["model", "export", str(root), "--checkpoint", "20", "-o", str(folder)]) == 0
    # the same steps by a run that ends there
    recipe = kept / "tiny.yaml"
    until = ["--until", "train.all", "-o", str(tmp_path / "short")]
    total = json.loads((root / "train.all" / "training.json").read_text(encoding="utf-8"))["place"]["total"]
    cut = {"epochs": "null", "steps": 20, "schedule.steps": total, "schedule.warmup": round(0.03 * total)}
    told = [part for key, value in cut.items() for part in ("-s", f"stages.1.{key}={value}")]
    assert call(["run", str(recipe), *until, *told]) == 0
    assert weights(tmp_path, "twenty") == weights(tmp_path / "short")
    rank = ["evaluate", "rank", str(folder), "--dataset", str(root), "-o", str(tmp_path / "ranking")]
    assert call([*rank, "--beams", "10", "-k", "10"]) == 0
    begin = ["-s", f"stages.1.weights={root}/train.all/checkpoints/step-00000020", "-s", "stages.1.epochs=1"]
    assert call(["run", str(recipe), "--until", "train.all", "-o", str(tmp_path / "on"), *begin]) == 0

"""`evaluate.memory`: the model with memory in a run's rankings, table and page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.evaluate import Memory, MemorySettings, ModelRanker, Ranking, Report
from itemic.evaluate.memory_choice import grid_with
from itemic.model import Model
from itemic.pipeline.variants import CHOICES, REMEMBERED
from itemic.recipe import RecipeError, load_recipe
from tests.runs import write_recipe


def again(folder: Path, *arguments: str) -> int:
    return call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run"), *arguments])


def ranked(root: Path) -> np.ndarray:
    return np.concatenate([part.items for part in Ranking.load(root / "evaluate" / "memory").arrays()])


def test_settings_of_the_recipe(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root, said = copied / "run", "evaluate.memory={window: 2, prior: 3, decay: 0.7, last: 10}"
    assert again(copied, "-s", said) == 0
    shown = capfd.readouterr()
    assert "model with memory" in shown.out
    data, model = Dataset.load(root / "data"), Model.load(root / "train.all")
    prior = ModelRanker(model, task={"task": "C", "windows": ["all"]}, beams=20, dataset=data)
    wanted, _ = Memory(data, prior, MemorySettings(2, 3.0)).rank(data.split("test"), 10)
    assert (ranked(root) == wanted).mean() > 0.99  # parts are other batches
    report = Report.load(root / "report" / "memory.json")
    assert report.config["memory"] == {"window": 2, "prior": 3.0, "decay": 0.7, "last": 10}
    note = "model with memory: window 2, prior 3, decay 0.7, last 10, as the recipe has it"
    assert note in report.notes
    table = json.loads((root / "report" / "comparison.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in table["rows"]][:3] == ["model", "model with memory", "popularity"]
    assert table["variants"] == ["model with memory"]
    assert note in table["notes"]
    assert any(text.startswith("model with memory is ") for text in table["notes"])
    assert "model with memory" in (root / "report" / "report.html").read_text(encoding="utf-8")
    capfd.readouterr()
    assert again(copied, "-s", said) == 0
    assert "evaluate: up to date" in capfd.readouterr().err


def test_chosen_on_validation(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is recorded, and what goes on after an interruption doesn't choose again."""
    root = copied / "run"
    with monkeypatch.context() as patch:
        patch.setattr("itemic.evaluate.mixture.Mixtures.rank", _stopped)
        assert again(copied, "-s", "evaluate.memory=true") != 0
    with monkeypatch.context() as patch:
        patch.setattr("itemic.evaluate.memory_choice.choose_memory", _stopped)
        assert again(copied, "-s", "evaluate.memory=true") == 0
    found = json.loads((root / "evaluate" / CHOICES[REMEMBERED]).read_text(encoding="utf-8"))["choice"]
    report = Report.load(root / "report" / "memory.json")
    assert report.config["memory"] == found["settings"]
    assert found["requests"] == len(Dataset.load(root / "data").split("valid"))
    assert any(
        f"the best of {found['tried']} settings by NDCG@10 of 60 validation" in n for n in report.notes
    )
    assert pl.read_parquet(root / "evaluate" / "memory" / "part-00000.parquet")["sids"].null_count() == 0


def _stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("{windows: 3}", "evaluate.memory.windows"),
        ("{window: 0}", "evaluate.memory.window"),
        ("{decay: 1.5}", "evaluate.memory.decay"),
        ("{prior: 0}", "evaluate.memory.prior"),
        ("often", "evaluate.memory"),
    ],
)
def test_faults_name_the_key(tmp_path: Path, value: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(tmp_path), [f"evaluate.memory={value}"])
    assert fault in str(caught.value)


def test_switches_and_what_is_left_to_be_chosen(tmp_path: Path) -> None:
    def memory(value: str) -> dict[str, Any] | None:
        return load_recipe(write_recipe(tmp_path), [f"evaluate.memory={value}"]).evaluate.memory

    assert memory("false") is memory("null") is load_recipe(write_recipe(tmp_path)).evaluate.memory is None
    assert memory("true") == memory("{}") == {}
    some = memory("{window: 2, decay: 0.9}")
    assert some is not None
    assert some == {"window": 2, "decay": 0.9}
    grid = grid_with(**some)
    assert len(grid) == len(set(grid)) == 16  # eight priors, two lengths
    assert {(each.window, each.decay) for each in grid} == {(2, 0.9)}

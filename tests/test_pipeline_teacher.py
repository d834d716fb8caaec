"""A recipe's teacher and blends: their step, rankings, rows of the table, choices, and faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.decode import BeamSearch
from itemic.evaluate import Blend, ItemKNN, Memory, MemorySettings, ModelRanker, Ranking, Report, Transitions
from itemic.evaluate.settings import BlendSettings
from itemic.model import Model
from itemic.pipeline import Run
from itemic.pipeline.variants import BLENDED, BOTH, CHOICES
from itemic.recipe import RecipeError, load_recipe
from itemic.recipe.schema import BASELINES
from itemic.recipe.write import read_resolved
from itemic.teacher.settings import TeacherSettings
from itemic.teacher.teacher import Teacher
from tests.runs import write_recipe

TEACHER = "teacher={model: {width: 8, layers: 1, max_length: 6}, epochs: 1, data: {targets_per_step: 100}}"
BLEND = "evaluate.blend={rankers: [model, teacher, transitions, item-knn]}"


def again(folder: Path, *settings: str) -> int:
    told = [word for text in settings for word in ("-s", text)]
    return call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run"), *told])


def ranked(root: Path, name: str) -> np.ndarray:
    return np.concatenate([part.items for part in Ranking.load(root / "evaluate" / name).arrays()])


def test_a_run_with_a_teacher_and_everything(
    copied: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied / "run"
    said = (TEACHER, "evaluate.memory={window: 2, prior: 3, decay: 0.7, last: 10}", BLEND)
    searched: list[int] = []
    search = BeamSearch._search
    monkeypatch.setattr(
        BeamSearch, "_search", lambda self, p, *a: (searched.append(len(p)), search(self, p, *a))[1]
    )
    assert again(copied, *said) == 0
    monkeypatch.undo()
    shown = capfd.readouterr()
    data, model = Dataset.load(root / "data"), Model.load(root / "train.all")
    test, valid = data.split("test"), data.split("valid")
    assert sum(searched) == len(test) + len(valid)  # once for all lists, once for the weights
    for row in ("SASRec", "blend", "blend with memory", "model with memory", "item kNN"):
        assert row in shown.out
    assert "train.all: up to date" in shown.err  # a teacher concerns no language model
    teacher = Teacher.load(root / "teacher")
    assert teacher.shape["width"] == 8
    assert (root / "teacher" / "manifest.json").is_file()
    assert (ranked(root, "teacher") == teacher.rank(test, 10)[0]).all()
    prior = ModelRanker(model, task={"task": "C", "windows": ["all"]}, beams=20, dataset=data)
    choice = json.loads((root / "evaluate" / CHOICES[BLENDED]).read_text(encoding="utf-8"))["choice"]
    assert list(choice["weights"]) == ["model", "SASRec", "transitions", "item kNN"]
    assert sum(choice["weights"].values()) == pytest.approx(1)
    rankers = [prior, teacher, Transitions(data), ItemKNN(data)]
    blend = Blend(rankers, list(choice["weights"].values()))
    assert (ranked(root, "blend") == blend.rank(test, 10)[0]).mean() > 0.99  # parts are other batches
    both = Memory(data, blend, MemorySettings(2, 3.0))
    assert (ranked(root, "blend-memory") == both.rank(test, 10)[0]).mean() > 0.99
    assert (ranked(root, "model") == prior.rank(test, 10)[0]).mean() > 0.99
    table = json.loads((root / "report" / "comparison.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in table["rows"]][:5] == [
        "model",
        "model with memory",
        "blend",
        "blend with memory",
        "SASRec",
    ]
    assert table["variants"] == ["model with memory", "blend", "blend with memory"]
    report = Report.load(root / "report" / "blend.json")
    told = f"the best of {choice['tried']} weights by NDCG@10 of {choice['requests']} validation"
    assert any(told in note for note in report.notes)
    assert "blend with memory" in (root / "report" / "report.html").read_text(encoding="utf-8")
    capfd.readouterr()
    assert again(copied, *said) == 0
    told = capfd.readouterr().err
    assert "teacher: up to date" in told
    assert "evaluate: up to date" in told
    assert call(["check", str(root)]) == 0


def test_weights_of_the_recipe_and_going_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice is made, and what an interruption left is gone on with."""
    root = copied / "run"
    said = (
        "evaluate.blend={weights: {model: 1, popularity: 3}}",
        "evaluate.baselines=[]",
        "evaluate.memory=true",
    )
    with monkeypatch.context() as patch:
        patch.setattr("itemic.evaluate.mixture.Mixtures.rank", _stopped)
        assert again(copied, *said) != 0
    kept = {name: (root / "evaluate.partial" / CHOICES[name]).read_bytes() for name in ("memory", BOTH)}
    with monkeypatch.context() as patch:
        patch.setattr("itemic.evaluate.memory_choice.choose_memory", _stopped)
        patch.setattr("itemic.evaluate.blend_choice.choose_blend", _stopped)
        assert again(copied, *said) == 0
    assert all((root / "evaluate" / CHOICES[name]).read_bytes() == text for name, text in kept.items())
    assert not (root / "evaluate" / CHOICES[BLENDED]).exists()
    report = Report.load(root / "report" / "blend.json")
    assert report.config["blend"] == {"model": 0.25, "popularity": 0.75}
    assert "blend: model 0.25, popularity 0.75, as the recipe has it" in report.notes
    assert not (root / "teacher").exists()


def _stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_teacher_s_settings_make_its_step_and_the_evaluation_anew(tmp_path: Path) -> None:
    def steps(*said: str) -> dict[str, Any]:
        run = Run.of(load_recipe(write_recipe(tmp_path), said), tmp_path / "run")
        return {planned.step.name: planned.manifest.digest for planned in run.plan()}

    one, other = steps(TEACHER), steps(TEACHER, "teacher.learning_rate=1e-2")
    assert list(one)[:3] == ["data", "teacher", "index"]
    assert {name for name in one if one[name] != other[name]} == {"teacher", "evaluate", "report"}
    asked = steps(TEACHER, "evaluate.exclude_history=true")  # by which the best epoch is chosen, too
    assert {name for name in one if one[name] != asked[name]} == {"teacher", "evaluate", "report"}
    silent = steps(TEACHER, "teacher.checkpoints.every=7")
    assert silent == one
    without = steps()
    assert all(without[name] == one[name] for name in without if name not in ("evaluate", "report"))


def test_sections_in_short_and_in_full(tmp_path: Path) -> None:
    def recipe(*said: str) -> Any:
        return load_recipe(write_recipe(tmp_path), said)

    plain = recipe()
    assert plain.teacher is None
    assert plain.evaluate.blend is None
    short = recipe("teacher=true", "evaluate.blend=true")
    assert short.teacher == TeacherSettings()
    assert short.evaluate.blend == BlendSettings()
    usual = short.evaluate.blend.named(False)
    assert usual[0] == "model"
    assert set(usual[1:]) <= set(BASELINES)
    assert short.evaluate.blend.named(True) == ("model", "teacher", *usual[1:])
    full = recipe(TEACHER, "evaluate.blend={weights: {teacher: 1, item-knn: 2}}")
    assert full.evaluate.blend.named(True) == ("teacher", "item-knn")
    for each in (short, full):
        (tmp_path / "back.yaml").write_text(str(each), encoding="utf-8")
        back = read_resolved(tmp_path / "back.yaml")
        assert (back.teacher, back.evaluate.blend) == (each.teacher, each.evaluate.blend)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("teacher={model: {width: 9}}", "teacher.model.heads"),
        ("teacher={model: {widht: 8}}", "teacher.model.widht"),
        ("teacher={epochs: 0}", "teacher.epochs"),
        ("teacher=strict", "teacher"),
        ("evaluate.blend={rankers: [model, pop]}", "unknown ranker 'pop'; known are model, teacher"),
        ("evaluate.blend={rankers: [model, teacher]}", "add a section teacher"),
        ("evaluate.blend={weights: {model: -1}}", "evaluate.blend.weights"),
        ("evaluate.blend={weights: {model: 0}}", "needs a weight above 0"),
        ("evaluate.blend={rankers: [model, model]}", "names model more than once"),
        ("evaluate.blend={rankers: [model], weights: {item-knn: 1}}", "rankers of model"),
        ("evaluate.blend={weight: {model: 1}}", "evaluate.blend.weight"),
    ],
)
def test_faults_name_the_key(tmp_path: Path, said: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(tmp_path), [said])
    assert fault in str(caught.value)

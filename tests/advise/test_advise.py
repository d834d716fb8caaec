"""``itemic advise``: a recipe with its reasons, by itself or by asking on a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from itemic.advise.advice import advice
from itemic.advise.facts import Curve, facts_of
from itemic.advise.patch import try_values
from itemic.advise.write import improved_values
from itemic.analysis.detectors import DETECTORS
from itemic.cli.app import call
from itemic.pipeline import Run
from itemic.recipe import load_recipe
from tests.advise.helpers import cause, recipe_of, report
from tests.advise.terminal import Terminal


@pytest.fixture
def analysed(finished: Path, tmp_path: Path) -> list[str]:
    """The arguments of advice about a finished run, by a report of two causes."""
    file = tmp_path / "badcase_report.json"
    report(cause("long_tail"), cause("memory_knew", 0.1, "kind")).save(file)
    return ["advise", str(finished / "run"), "--analysis", str(file)]


def test_the_recipe_is_whole_and_says_why(analysed: list[str], tmp_path: Path) -> None:
    file = tmp_path / "improved.yaml"
    assert call([*analysed, "--auto", "-o", str(file)]) == 0
    recipe = load_recipe(file)
    assert recipe.name == "tiny-improved"
    assert recipe.evaluate.memory == {}
    lines = file.read_text().splitlines()
    at = lines.index("  memory: {}")
    assert lines[at - 1].startswith("  # ")
    above = " ".join(line.strip("# ") for line in lines[at - 2 : at])
    assert "memory: what training counted takes part" in above
    assert "validation says how much" in above
    reasons = json.loads((tmp_path / "advice.json").read_text())
    assert [one["strategy"] for one in reasons["advice"]] == ["long_tail", "memory"]
    assert reasons["advice"][1]["changes"] == [
        {
            "key": "evaluate.memory",
            "value": {},
            "before": None,
            "reason": "what training counted takes part, with the model as its prior; validation says how much",
        }
    ]


def test_the_new_recipe_runs_and_changes_only_what_it_says(
    analysed: list[str], copied: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "improved.yaml"
    assert call([*analysed, "--auto", "--strategy", "memory", "-o", str(file)]) == 0
    assert call(["run", str(file), "-o", str(copied / "run")]) == 0
    shown = " ".join(capfd.readouterr().err.split())
    assert shown.count("up to date") == 6  # all but evaluate and report
    assert (copied / "run" / "evaluate" / "memory" / "ranking.json").is_file()


def test_a_recipe_that_is_there_is_not_overwritten(
    analysed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "improved.yaml"
    file.write_text("mine", encoding="utf-8")
    assert call([*analysed, "--auto", "-o", str(file)]) == 2
    assert "is there already" in capfd.readouterr().err
    assert file.read_text() == "mine"
    assert not (tmp_path / "advice.json").exists()
    assert call([*analysed, "--auto", "--force", "-o", str(file)]) == 0
    assert load_recipe(file).name == "tiny-improved"


def test_a_dry_run_shows_and_writes_nothing(
    analysed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call([*analysed, "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert "evaluate.memory: nothing → {}" in shown
    assert "costs" in shown
    assert [file.name for file in tmp_path.iterdir()] == ["badcase_report.json"]


def test_json_is_json(analysed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call([*analysed, "--json", "--strategy", "memory,beams", "-o", str(tmp_path / "x.yaml")]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [one["strategy"] for one in found["advice"]] == ["memory", "beams"]
    assert (tmp_path / "x.yaml").is_file()


def test_without_an_analysis_it_looks_itself(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The tiny run's own failures, from its rankings."""
    file = tmp_path / "improved.yaml"
    assert (
        call(["advise", str(finished / "run"), "--auto", "--strategy", "sid_quality", "-o", str(file)]) == 0
    )
    shown = capfd.readouterr()
    assert "looking for patterns of failure now" in shown.err
    assert "is the first that goes wrong" in shown.out
    assert "judge the change on validation" in file.read_text()


def test_where_nobody_can_be_asked_it_says_so(analysed: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert call(analysed) == 2
    assert "Add --auto" in capfd.readouterr().err


def test_what_is_no_run_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["advise", str(tmp_path), "--auto"]) == 2
    assert "has no recipe.yaml" in capfd.readouterr().err


def test_the_rules_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["advise", "--rules"]) == 0
    shown = capfd.readouterr().out
    assert "hyperparameter" in shown
    assert "at least 2% of the bad cases" in " ".join(shown.split())


def test_on_a_terminal_it_is_a_conversation(analysed: list[str], tmp_path: Path) -> None:
    file = tmp_path / "improved.yaml"
    with Terminal(*analysed, "--strategy", "memory,beams,long_tail", "-o", file) as screen:
        screen.answer("evaluate.memory: nothing → {}(?s:.*)keep, skip or edit", "what?")
        screen.answer("is none of these(?s:.*)keep, skip or edit", "s")
        screen.answer("evaluate.beams: 20 → 40(?s:.*)keep, skip or edit", "edit")
        screen.answer(r"evaluate.beams \[40\]", "3")
        screen.answer(r"3 beams can't rank k = 10(?s:.*)evaluate.beams \[40\]", "30")
        screen.answer("add {task: B}(?s:.*)keep, skip or edit", "")
        screen.expect("wrote")
        assert screen.ends() == 0, screen.text
    made = yaml.safe_load(file.read_text())
    assert made["evaluate"]["beams"] == 30
    assert "memory" not in made["evaluate"]
    assert {"task": "B"} in made["tasks"]


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [["C"], ["sequence"]])
def test_all_advice_at_once_runs(tasks: list[str], finished: Path, tmp_path: Path) -> None:
    """Every key that any strategy sets here is one that steps can do: the whole recipe runs to its report."""
    changes: dict[str, Any] = {"tasks": [{"task": name, "max_items": 8} for name in tasks]}
    changes["evaluate"] = {"task": tasks[0], "beams": 20, "k": [5, 10], "baselines": []}
    changes["rl"] = [
        {"steps": 1, "rewards": {"hit": 1.0}, "rollout": {"answers": 4}, "validation": {"every": None}}
    ]
    recipe = recipe_of(tmp_path, changes, "rl.0.validation.first=false", "rl.0.validation.full=false")
    facts = replace(
        facts_of(finished / "run", recipe), curves={"all": Curve("ndcg@10", [0.3, 0.6, 1.0], [3, 2, 1])}
    )
    said = report(*(cause(name) for name in DETECTORS), first_wrong=(700, 700))
    found = advice(said, recipe, facts=facts)
    assert len(found) >= 8
    values = improved_values(recipe, found)
    asked = {change.key for one in found for change in one.changes}
    assert "stages.1.objective.weights.half_life" in asked
    assert ("stages.1.data.balance" in asked) == (tasks == ["C"])
    made, _ = try_values(values)
    assert made is not None
    Run.of(made, tmp_path / "run").execute()
    assert (tmp_path / "run" / "report" / "comparison.json").is_file()

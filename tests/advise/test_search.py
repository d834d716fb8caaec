"""The search of hyperparameters: what is tried, what is ended early, what a kill leaves, what is advised."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from itemic.advise.advice import advice
from itemic.advise.facts import Facts
from itemic.advise.patch import Change
from itemic.advise.search import Searched, Tried, search
from itemic.advise.spaces import as_it_is, read_space, usual_spaces
from itemic.cli.app import call
from itemic.errors import ConfigError, ItemicError
from itemic.pipeline import Run
from itemic.recipe import load_recipe, read_resolved
from itemic.training.journal import listening
from tests.advise.helpers import recipe_of
from tests.runs import start

optuna = pytest.importorskip("optuna")
LIMIT = 240  # seconds
RATE, LENGTH = "stages.1.learning_rate=1e-4:1e-2:log", "stages.1.epochs=1:3"


def spaces(root: Path, *texts: str) -> Any:
    recipe = read_resolved(root / "recipe.yaml")
    return recipe, [read_space(text, recipe) for text in texts]


def logged(root: Path) -> list[float]:
    lines = (root / "train.all" / "log.jsonl").read_text().splitlines()
    return [line["valid/ndcg@10"] for line in map(json.loads, lines) if "valid/ndcg@10" in line]


def test_the_recipe_as_it_is_comes_first_and_costs_nothing(copied: Path) -> None:
    root = copied / "run"
    recipe, over = spaces(root, RATE, LENGTH)
    found = search(root, recipe, over, trials=3)
    assert [one.number for one in found.tried] == [0, 1, 2]
    first = found.tried[0]
    assert first.values == {"stages.1.learning_rate": 0.001, "stages.1.epochs": 2}
    assert first.figure == found.own == pytest.approx(max(logged(root)))
    for one in found.tried:
        assert 1e-4 <= one.values["stages.1.learning_rate"] <= 1e-2
        assert one.values["stages.1.epochs"] in (1, 2, 3)
    assert found.best is not None
    assert found.best.figure == max(one.figure for one in found.tried if one.figure is not None)
    kept = [folder.name for folder in (root / "search").glob("trial-*")]
    assert kept == [f"trial-{found.best.number:04d}"]
    # the same call again has its budget spent, a larger one goes on
    assert search(root, recipe, over, trials=3) == found
    more = search(root, recipe, over, trials=4)
    assert more.tried[:3] == found.tried
    assert len(more.tried) == 4


def test_a_trials_figure_is_that_of_its_run(copied: Path, tmp_path: Path) -> None:
    root = copied / "run"
    recipe, over = spaces(root, RATE)
    found = search(root, recipe, over, trials=2)
    second = found.tried[1]
    rate = second.values["stages.1.learning_rate"]
    again = Run.of(load_recipe(copied / "tiny.yaml", [f"stages.1.learning_rate={rate}"]), tmp_path / "x")
    again.execute(until="train.all")
    assert second.figure == pytest.approx(max(logged(tmp_path / "x")))


def test_what_evaluation_is_about_is_judged_on_validation(copied: Path) -> None:
    root = copied / "run"
    recipe, over = spaces(root, "evaluate.beams=10:40")
    found = search(root, recipe, over, trials=2)
    assert found.metric == "ndcg@10"
    assert found.requests == "on the validation split"
    assert found.tried[0].values == {"evaluate.beams": 20}
    assert found.best is not None
    report = root / "search" / f"trial-{found.best.number:04d}" / "report" / "model.json"
    told = json.loads(report.read_text())
    assert told["split"] == "valid"
    assert told["item"]["ndcg@10"]["value"] == found.best.figure


def test_a_trial_that_is_behind_is_ended_early(copied: Path) -> None:
    """Four good trials by hand, then one that can learn nothing: it doesn't come to its end."""
    root = copied / "run"
    recipe, over = spaces(root, "stages.1.learning_rate=1e-9:1e-2:log", "stages.1.epochs=10:12")
    search(root, recipe, over, trials=1)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{root / 'search' / 'study.db'}")
    drawn = {
        "stages.1.learning_rate": optuna.distributions.FloatDistribution(1e-9, 1e-2, log=True),
        "stages.1.epochs": optuna.distributions.IntDistribution(10, 12),
    }
    for rate in (2e-3, 3e-3, 4e-3, 5e-3):
        values = {"stages.1.learning_rate": rate, "stages.1.epochs": 10}
        good = optuna.trial.create_trial(
            params=values,
            distributions=drawn,
            value=0.9,
            intermediate_values=dict.fromkeys(range(11), 0.9),
        )
        study.add_trial(good)
    study.enqueue_trial({"stages.1.learning_rate": 1e-9, "stages.1.epochs": 10})
    found = search(root, recipe, over, trials=6)
    last = found.tried[-1]
    assert last.state == "pruned"
    assert last.figure is None
    seen = study.trials[-1].intermediate_values
    assert 2 <= max(seen) < 10
    assert not list((root / "search").glob("trial-0005"))


@pytest.mark.slow
def test_killed_in_a_trial_it_goes_on_with_it(copied: Path) -> None:
    root, file = copied / "run", copied / "better.yaml"
    words: list[str | Path] = [
        "advise",
        root,
        "--auto",
        "-o",
        file,
        "--strategy",
        "hyperparameter",
        "--trials",
        "2",
    ]
    words += ["--space", "stages.1.epochs=2:20"]  # the first trial is the run itself
    victim = start(*words)
    stop = time.monotonic() + LIMIT
    while not list(root.glob("search/trial-0001/train.all.partial/checkpoints/step-*")):
        assert time.monotonic() < stop
        assert victim.poll() is None, victim.communicate()
        time.sleep(0.01)
    victim.kill()
    victim.communicate(timeout=LIMIT)
    assert victim.returncode == -signal.SIGKILL
    storage = f"sqlite:///{root / 'search' / 'study.db'}"
    before = optuna.load_study(study_name=None, storage=storage).trials
    assert [one.state.name for one in before] == ["COMPLETE", "RUNNING"]

    second = start(*words)
    _, shown = second.communicate(timeout=LIMIT)
    assert second.returncode == 0, shown
    assert "goes on from step" in " ".join(shown.split())
    after = optuna.load_study(study_name=None, storage=storage).trials
    assert after[0] == before[0]
    assert after[2].params == before[1].params  # tried on
    told = json.loads((root / "search" / "search.json").read_text())
    assert [one["number"] for one in told["trials"]] == [0, 2]
    assert file.exists() == (told["best"] == 2)


def test_the_advice_is_the_best_trial_unless_nothing_beats_the_recipe() -> None:
    own = Tried(0, {"x": 1}, 0.2, "done")
    better = Tried(1, {"x": 2}, 0.3, "done")
    assert Searched("ndcg@10", "on 5 validation requests", [own], own, 0.2, []).advice() is None
    change = Change(("seed",), 2, 1, "the best trial of the search has it")
    one = Searched("ndcg@10", "on 5 validation requests", [own, better], better, 0.2, [change]).advice()
    assert one is not None
    assert one.changes == [change]
    assert "ndcg@10 0.3000 on 5 validation requests; the recipe as it is has 0.2000" in one.evidence[0]


def test_usual_spaces_hold_the_recipe_as_it_is(tmp_path: Path) -> None:
    for overrides in ([], ["stages.1.optimizer.weight_decay=0.0"], ["stages.1.objective.dropout=0.5"]):
        recipe = recipe_of(tmp_path, None, *overrides)
        found = usual_spaces(recipe)
        assert {space.path[-1] for space in found} == {"learning_rate", "weight_decay", "dropout", "epochs"}
        assert all(space.path[1] == 1 for space in found)  # the stage that trains all, not the one of rows
        assert as_it_is(recipe, found) is not None
    steps = recipe_of(tmp_path, {"stages": [{"name": "all", "steps": 40}]})
    assert {space.key: (space.low, space.high) for space in usual_spaces(steps)}["stages.0.steps"] == (20, 80)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages.1.epochs", "is no range"),
        ("stages.1.epochs=1:2:3", "is no range"),
        ("stages.1.epochs=a:b", "its ends are no numbers"),
        ("stages.1.epochs=3:2", "is not below"),
        ("stages.1.learning_rate=0:1:log", "not above 0"),
        ("stages.1.epoch=1:2", "did you mean 'epochs'"),
        ("stages.1.objective.dropout=0.1:1.5", "at 1.5"),
        ("evaluate.beams=5:20", "5 beams can't rank k = 10"),
    ],
)
def test_a_range_that_makes_no_sense_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_space(text, recipe_of(tmp_path))


def test_a_budget_without_a_search_is_told(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["advise", str(finished / "run"), "--auto", "--trials", "3"]) == 2
    assert "Add --strategy hyperparameter" in capfd.readouterr().err


def test_a_dry_run_shows_the_ranges(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["advise", str(finished / "run"), "--strategy", "hyperparameter", "--trials", "3", "--dry-run"]
    assert call(words) == 0
    assert "stages.1.learning_rate 0.000333333 to 0.003 by ratio" in capfd.readouterr().out
    assert not (finished / "run" / "search").exists()


def test_listeners_hear_validations_and_may_end_a_training(copied: Path, tmp_path: Path) -> None:
    recipe = read_resolved(copied / "run" / "recipe.yaml")
    heard: list[tuple[str, float]] = []

    def listen(name: str, share: float, values: Any) -> None:
        if "valid/ndcg@10" in values:
            heard.append((name, share))
            raise ItemicError("enough")

    run = Run.of(recipe, tmp_path / "x")
    with listening(listen), pytest.raises(ItemicError, match="enough"):
        run.execute(until="train.all")
    assert [name for name, _ in heard] == ["all"]
    assert heard[0][1] == pytest.approx(0.5, abs=0.1)  # the first of two epochs
    assert not (tmp_path / "x" / "train.all").exists()
    run.execute(until="train.all")  # nobody listens any more
    assert logged(tmp_path / "x") == logged(copied / "run")


def test_rules_need_no_search(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"stages": [{"name": "all", "epochs": 1}]})
    assert [one.strategy for one in advice(None, recipe, facts=Facts())] == ["hyperparameter"]

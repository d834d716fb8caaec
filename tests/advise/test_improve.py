"""Rounds: what is kept and why, what isn't computed again, and what survives a kill."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic.advise.advice import advice
from itemic.advise.facts import Facts, facts_of
from itemic.advise.patch import plain, try_values
from itemic.advise.read import look_at
from itemic.advise.reuse import link_steps
from itemic.advise.rounds import FAILED, NO_ADVICE, NO_GAIN, improve, judged
from itemic.artifact import damage
from itemic.cli.app import call
from itemic.data import Dataset
from itemic.errors import ArtifactError
from itemic.pipeline import Run
from itemic.recipe import load_recipe, read_resolved
from itemic.screen import rendered
from tests.runs import STEPS, start

LIMIT = 240  # seconds
MADE = ["data", "index", "conversations", "model", "train.rows", "train.all"]


@pytest.fixture(scope="module")
def rounds(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of rounds, and what was said of them: memory, which helps here, then a blend."""
    folder = tmp_path_factory.mktemp("rounds") / "improve"
    found = improve(finished / "run", folder, strategies=["memory", "beams"], rounds=3)
    return folder, found


def gains(root: Path, listed: str) -> dict[str, float]:
    """NDCG@10 of each user's validation request, from the files alone."""
    table = pl.read_parquet(sorted((root / "evaluate" / listed).glob("part-*.parquet")))
    values = {}
    for user, items, target in table.select("user_id", "items", "target_id").iter_rows():
        place = items[:10].index(target) if target in items[:10] else None
        values[user] = 0.0 if place is None else 1 / np.log2(place + 2)
    return values


def test_a_round_is_kept_where_its_gain_is_shown(rounds: tuple[Path, Any]) -> None:
    folder, found = rounds
    first, second, third = found.rounds
    assert second.strategies == ["memory", "beams"]
    assert second.changes == ["evaluate.memory: nothing → {}", "evaluate.beams: 20 → 40"]
    before, after = gains(folder / "round-0", "model"), gains(folder / "round-1", "memory")
    assert first.value.value == pytest.approx(np.mean(list(before.values())))
    assert second.gain.value == pytest.approx(np.mean([after[user] - before[user] for user in before]))
    assert second.kept == (second.gain.low > 0)
    assert "flattered" in second.words  # memory's settings are chosen on validation
    assert third.against == found.best == 1
    assert not third.kept
    assert found.ended == NO_GAIN


def test_only_validation_is_asked(rounds: tuple[Path, Any]) -> None:
    folder, found = rounds
    for one in found.rounds:
        root = folder / f"round-{one.number}"
        data = Dataset.load(root / "data")
        asked = dict(zip(data.split("valid").users, data.split("valid").targets, strict=True))
        for ranking in (root / "evaluate").glob("*/ranking.json"):
            table = pl.read_parquet(sorted(ranking.parent.glob("part-*.parquet")))
            told = dict(zip(table["user_id"], table["target_id"], strict=True))
            assert told == {user: data.item_ids[target] for user, target in asked.items()}


def test_the_recipe_at_the_end_has_its_own_split_and_the_changes_that_helped(
    rounds: tuple[Path, Any], finished: Path
) -> None:
    folder, found = rounds
    assert found.recipe == folder / "improved.yaml"
    made, before = load_recipe(found.recipe), load_recipe(finished / "run" / "recipe.yaml")
    assert made.evaluate.split == "test"
    assert made.evaluate.memory == {}
    assert made.evaluate.beams == 40
    assert made.evaluate.blend is None
    assert made.evaluate.published == before.evaluate.published
    assert made.stages == before.stages
    told = json.loads((folder / "rounds.json").read_text())
    assert [one["kept"] for one in told["rounds"]] == [True, True, False]


def test_what_a_change_leaves_is_linked_and_not_computed(rounds: tuple[Path, Any], finished: Path) -> None:
    folder, found = rounds
    assert [one.linked for one in found.rounds] == [MADE, MADE, MADE]
    for number in range(3):
        file = folder / f"round-{number}" / "train.all" / "model.safetensors"
        assert file.samefile(finished / "run" / "train.all" / "model.safetensors")
        assert not damage(file.parent)


def test_the_same_call_again_computes_nothing(
    rounds: tuple[Path, Any], finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, found = rounds
    arguments = ["improve", str(finished / "run"), "-o", str(folder), "--strategy", "memory,beams"]
    assert call(arguments) == 0
    shown = capfd.readouterr()
    assert "starts" not in shown.err
    assert "no gain shown" in shown.out
    assert "weighed was chosen on these very requests" in " ".join(shown.out.split())
    assert json.loads((folder / "rounds.json").read_text())["best"] == found.best


def test_one_by_one_goes_on_with_what_was_not_tried(finished: Path, tmp_path: Path) -> None:
    found = improve(
        finished / "run", tmp_path / "x", strategies=["beams", "memory"], rounds=2, one_by_one=True
    )
    assert [one.strategies for one in found.rounds] == [[], ["beams"], ["memory"]]
    assert found.rounds[2].against == (1 if found.rounds[1].kept else 0)


def test_no_advice_ends_it_with_the_run_as_it_was(finished: Path, tmp_path: Path) -> None:
    found = improve(finished / "run", tmp_path / "x", strategies=["sid_quality"], rounds=0)
    assert len(found.rounds) == 1
    assert found.recipe is None
    few = improve(
        finished / "run", tmp_path / "x", strategies=["hyperparameter"], rounds=1
    )  # nothing to change
    assert few.ended == NO_ADVICE
    assert not (tmp_path / "x" / "improved.yaml").exists()


def test_a_round_that_cannot_run_says_why_and_the_others_stand(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how many items there are, and the codes that are advised don't hold them."""
    for name in (
        "recipe.yaml",
        "data",
        "index",
        "conversations",
        "model",
        "train.rows",
        "train.all",
        "evaluate",
    ):
        source = finished / "run" / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / "run" / name)
    recipe = read_resolved(finished / "run" / "recipe.yaml")
    values = plain(recipe) | {"index": {"levels": [4, 4], "collisions": "keep"}}
    values["evaluate"] = values["evaluate"] | {"beams": 10}
    weak, faults = try_values(values)
    assert weak is not None, faults
    Run.of(weak, tmp_path / "run").execute()
    # the weakness is found in the rankings themselves, and the advice holds all items
    said = advice(look_at(tmp_path / "run", weak), weak, facts=facts_of(tmp_path / "run", weak))
    mended = {
        change.key: change.value for one in said if one.strategy == "sid_quality" for change in one.changes
    }
    assert mended["index.collisions"] == "reassign"
    assert mended["index.levels"] == [16, 16]

    monkeypatch.setattr("itemic.advise.rounds.facts_of", lambda root, recipe: Facts())
    found = improve(tmp_path / "run", tmp_path / "x", strategies=["sid_quality"], rounds=2)
    assert [one.value is None for one in found.rounds] == [False, True]
    assert "40 items don't fit in the" in found.rounds[1].words
    assert found.ended == FAILED
    assert found.best == 0
    assert found.recipe is None
    assert "failed" in rendered(found.table())


def test_what_differs_is_not_linked(copied: Path, tmp_path: Path) -> None:
    recipe = load_recipe(copied / "tiny.yaml", ["stages.1.epochs=1", "evaluate.beams=30"])
    run = Run.of(recipe, tmp_path / "other")
    assert link_steps(run, copied / "run") == MADE[:-1]
    assert {planned.step.name: planned.run for planned in run.plan()} == {
        step: step not in MADE[:-1] for step in STEPS
    }
    assert link_steps(run, copied / "run") == []  # they are there


def test_a_step_that_is_made_again_leaves_the_other_run_alone(copied: Path, tmp_path: Path) -> None:
    recipe = read_resolved(copied / "run" / "recipe.yaml")
    run = Run.of(recipe, tmp_path / "other")
    link_steps(run, copied / "run")
    run.execute(start="train.all", until="train.all")
    run.execute()
    for step in STEPS:
        assert not damage(copied / "run" / step), step


def test_a_run_that_was_not_ranked_is_told(
    copied: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(["improve", str(tmp_path)]) == 2
    assert "has no recipe.yaml" in capfd.readouterr().err
    without = copied / "run" / "recipe.yaml"
    without.write_text(
        "name: x\nindex: {levels: [4, 4]}\nmodel: {preset: qwen3-pico}\n"
        "conversations: {files: x}\nstages: [{epochs: 1}]\n"
    )
    with pytest.raises(ArtifactError, match="no data"):
        improve(copied / "run", tmp_path / "y")


def test_others_rows_and_figures_are_not_asked(finished: Path) -> None:
    values = judged(read_resolved(finished / "run" / "recipe.yaml"))
    assert values["evaluate"]["baselines"] == []
    assert "published" not in values["evaluate"]


@pytest.mark.slow
def test_killed_in_a_round_it_goes_on(finished: Path, tmp_path: Path) -> None:
    """Killed for real while a round trains: the same call finishes that round from its checkpoint."""
    longer = ["improve", str(finished / "run"), "-o", str(tmp_path / "x"), "--rounds", "1"]
    longer += ["--strategy", "short_history"]
    victim = start(*longer)
    stop = time.monotonic() + LIMIT
    while not list(tmp_path.glob("x/round-1/train.all.partial/checkpoints/step-*")):
        assert time.monotonic() < stop
        assert victim.poll() is None, victim.communicate()
        time.sleep(0.01)
    victim.kill()
    victim.communicate(timeout=LIMIT)
    assert victim.returncode == -signal.SIGKILL
    assert not (tmp_path / "x" / "round-1" / "train.all").exists()

    second = start(*longer)
    _, shown = second.communicate(timeout=LIMIT)
    assert second.returncode == 0, shown
    assert "goes on from step" in " ".join(shown.split())
    found = json.loads((tmp_path / "x" / "rounds.json").read_text())
    assert found["rounds"][1]["strategies"] == ["short_history"]

"""A whole run on a tiny marketplace: what is made, what is skipped and why, and what survives interruptions."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from itemic.artifact import locked, read_manifest
from itemic.cli.app import call
from itemic.data import Dataset
from itemic.errors import ConfigError
from itemic.pipeline import Run
from itemic.recipe import load_recipe
from tests.runs import RECIPE, STEPS, made, start, weights, write_recipe

LIMIT = 240  # seconds that a process of a test may take


def again(folder: Path, *arguments: str) -> int:
    return call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run"), *arguments])


def changed(before: dict[str, str], root: Path) -> list[str]:
    return [step for step, moment in made(root).items() if before.get(step) != moment]


def test_every_step_is_an_artifact_with_a_manifest(finished: Path) -> None:
    root = finished / "run"
    assert list(made(root)) == STEPS
    assert not list(root.glob("*.partial"))
    for step in STEPS:
        manifest = read_manifest(root / step)
        assert manifest is not None
        assert manifest.kind == step.partition(".")[0]
        assert manifest.versions["itemic"]
        assert manifest.seconds >= 0
    stage, model = read_manifest(root / "train.rows"), read_manifest(root / "model")
    assert stage is not None
    assert model is not None
    assert stage.inputs["model"] == model.digest
    assert stage.config["learning_rate"] == 1e-3


def test_the_report_agrees_with_the_rankings_on_disk(finished: Path) -> None:
    """HR and NDCG at 10 once more, request by request, from the Parquet files alone."""
    root = finished / "run"
    requests = Dataset.load(root / "data").split("test")
    ids = Dataset.load(root / "data").item_ids
    rows = {
        row["name"]: row["metrics"]
        for row in json.loads((root / "report/comparison.json").read_text())["rows"]
    }
    for name in ("model", "popularity", "transitions"):
        table = pl.read_parquet(sorted((root / "evaluate" / name).glob("part-*.parquet")))
        hits, gains = [], []
        for ranked, target in zip(table["items"].to_list(), requests.targets, strict=True):
            place = ranked[:10].index(ids[target]) if ids[target] in ranked[:10] else None
            hits.append(place is not None)
            gains.append(0.0 if place is None else 1 / np.log2(place + 2))
        assert rows[name]["hr@10"]["value"] == pytest.approx(np.mean(hits))
        assert rows[name]["ndcg@10"]["value"] == pytest.approx(np.mean(gains))
    assert rows["somebody"]["hr@10"]["value"] == 0.5
    assert 0 < rows["best reachable"]["hr@10"]["value"] <= 1
    assert "somebody" in (root / "report" / "comparison.md").read_text()


def test_validation_and_evaluation_ask_what_was_trained(finished: Path) -> None:
    asked = {"task": "C", "windows": ["all"]}
    for step, key in (("train.all", "validation.task"), ("evaluate", "task")):
        manifest = read_manifest(finished / "run" / step)
        assert manifest is not None
        assert manifest.config[key] == asked


def test_only_new_rows_learn_in_a_stage_of_embeddings(finished: Path) -> None:
    from safetensors.numpy import load_file

    before = load_file(finished / "run/model/model.safetensors")
    after = load_file(finished / "run/train.rows/model.safetensors")
    moved = [name for name, value in before.items() if not np.array_equal(value, after[name])]
    assert moved == ["model.embed_tokens.weight"]


def test_a_second_run_does_nothing_and_says_so(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = made(copied / "run")
    assert again(copied) == 0
    shown = capfd.readouterr()
    assert changed(before, copied / "run") == []
    assert shown.err.count("up to date") == len(STEPS)
    assert "popularity" in shown.out  # the table comes all the same


@pytest.mark.parametrize(
    ("arguments", "redone", "reason"),
    [
        (["-s", "evaluate.beams=30", "--from", "evaluate"], ["evaluate", "report"], "beams was 20, now 30"),
        (["-s", "evaluate.beams=30"], ["evaluate", "report"], "beams was 20, now 30"),
        (["-s", "evaluate.k=[10]"], ["report"], "k was [5, 10], now [10]"),
        (["-s", "evaluate.batch_size=3"], [], "up to date"),
        (
            ["-s", "evaluate.batch_size=3", "-s", "evaluate.thinking=no_think"],
            ["evaluate", "report"],
            "thinking was",
        ),
        (["-s", "stages.1.logs.every=3"], [], "up to date"),
        (
            ["-s", "stages.1.optimizer.clip=0.5", "--until", "train.all"],
            ["train.all"],
            "optimizer.clip was 1.0, now 0.5",
        ),
        (["--force", "--until", "index"], ["data", "index"], "--force"),
        (["--from", "report"], ["report"], "--from report"),
        (["-s", "seed=1", "--until", "data"], ["data"], "seed was 0, now 1"),
    ],
)
def test_what_changed_is_done_again_and_nothing_else(
    copied: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], redone: list[str], reason: str
) -> None:
    before = made(copied / "run")
    assert again(copied, *arguments) == 0
    assert changed(before, copied / "run") == redone
    assert reason in " ".join(capfd.readouterr().err.split())


def test_from_takes_earlier_steps_as_they_are(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = made(copied / "run")
    assert again(copied, "-s", "stages.1.epochs=7", "--from", "evaluate") == 0
    assert changed(before, copied / "run") == ["evaluate", "report"]
    assert "kept as it is (--from evaluate) although epochs was 2, now 7" in " ".join(
        capfd.readouterr().err.split()
    )


def test_a_dry_run_shows_the_plan_and_touches_nothing(
    copied: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = made(copied / "run")
    assert again(copied, "--dry-run", "-s", "index.levels=[4, 16]") == 0
    shown = capfd.readouterr().out
    assert changed(before, copied / "run") == []
    lines = {
        words[1]: words[3]
        for words in map(str.split, shown.splitlines())
        if len(words) > 4 and words[1] in STEPS
    }
    assert lines == {step: "keep" if step == "data" else "run" for step in STEPS}
    assert "levels was [8, 8], now [4, 16]" in shown
    assert "input index changed" in shown
    assert call(["run", str(copied / "tiny.yaml"), "-o", str(tmp_path / "new"), "--dry-run"]) == 0
    assert not (tmp_path / "new").exists()


def test_steps_that_are_not_there_are_refused(tmp_path: Path) -> None:
    job = Run.of(load_recipe(write_recipe(tmp_path)), tmp_path / "run")
    with pytest.raises(ConfigError, match="no step 'evalute'; did you mean 'evaluate'"):
        job.plan(start="evalute")
    with pytest.raises(ConfigError, match="needs the step data, which was never made"):
        job.plan(start="evaluate")
    with pytest.raises(ConfigError, match="comes before"):
        job.plan(start="evaluate", until="data")


def test_a_lost_step_is_made_again_without_the_rest(copied: Path) -> None:
    before = made(copied / "run")
    shutil.rmtree(copied / "run" / "index")
    assert again(copied) == 0
    assert changed(before, copied / "run") == ["index"]


def test_a_second_run_on_the_same_folder_is_refused(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = made(copied / "run")
    with locked(copied / "run"):
        assert again(copied, "--force") == 2
    shown = capfd.readouterr().err
    assert "another run is working on" in shown
    assert "--output" in shown
    assert changed(before, copied / "run") == []


def test_an_input_file_that_changes_is_noticed(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "X.inter.json").write_text(json.dumps({"u1": ["a", "b", "c", "d"], "u2": ["b", "a", "d", "c"]}))
    items = {name: {"title": f"thing {name}", "description": "x"} for name in "abcd"}
    (raw / "X.item.json").write_text(json.dumps(items))
    text = RECIPE.replace(
        "  simulate: {users: 60, items: 40, categories: 4, brands: 6, shortest: 4, longest: 8}",
        f"  format: letter\n  path: {raw}",
    )
    job = Run.of(load_recipe(write_recipe(tmp_path, text)), tmp_path / "run")
    job.execute(until="data")
    assert [planned.reason for planned in job.plan(until="data")] == ["up to date"]
    (raw / "X.inter.json").touch()
    assert [planned.reason for planned in job.plan(until="data")] == ["up to date"]
    (raw / "X.inter.json").write_text(json.dumps({"u1": ["a", "b", "c", "d"], "u2": ["b", "a", "c", "d"]}))
    assert [planned.reason for planned in job.plan(until="data")] == ["input path changed"]


def test_an_unlabelled_test_split_is_predicted_without_metrics(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    override = ["-s", "data.split.method=leave-last-out", "-s", "stages.1.epochs=1"]
    file = write_recipe(tmp_path)
    assert call(["run", str(file), "-o", str(tmp_path / "run"), *override]) == 0
    assert "nothing to measure" in " ".join(capfd.readouterr().out.split())
    table = pl.read_parquet(sorted((tmp_path / "run/evaluate/model").glob("part-*.parquet")))
    assert len(table) == 60
    assert table["target_id"].null_count() == 60
    assert table["items"].list.len().to_list() == [10] * 60


def test_an_empty_split_stops_before_any_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write_recipe(tmp_path)
    override = ["-s", "data.simulate.shortest=1", "-s", "data.simulate.longest=2"]
    assert call(["run", str(file), "-o", str(tmp_path / "run"), *override]) == 2
    shown = capfd.readouterr().err
    assert "split is empty" in shown
    assert "→" in shown
    assert made(tmp_path / "run") == {}


# ---------------------------------------------------------------------------------------- interruptions


def wait_for(pattern: str, root: Path, seconds: float = LIMIT) -> None:
    """Until a file of that pattern is there."""
    stop = time.monotonic() + seconds
    while not list(root.glob(pattern)):
        assert time.monotonic() < stop, f"no {pattern} in {root}"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_in_training_it_goes_on_to_the_same_weights(
    copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = ["-s", "stages.1.epochs=8", "--until", "train.all"]
    root = copied / "run"
    shutil.rmtree(root / "train.all")
    victim = start("run", copied / "tiny.yaml", "-o", root, *long)
    wait_for("train.all.partial/checkpoints/step-*", root)
    victim.kill()
    victim.communicate(timeout=LIMIT)
    assert victim.returncode == -signal.SIGKILL
    assert not (root / "train.all").exists()

    second = start("run", copied / "tiny.yaml", "-o", root, *long)
    _, shown = second.communicate(timeout=LIMIT)
    assert second.returncode == 0, shown
    assert "goes on where it stopped" in " ".join(shown.split())
    assert "goes on from step" in " ".join(shown.split())

    whole = copied / "whole"
    shutil.copytree(root, whole)
    shutil.rmtree(whole / "train.all")
    third = start("run", copied / "tiny.yaml", "-o", whole, *long)
    _, shown = third.communicate(timeout=LIMIT)
    assert third.returncode == 0, shown
    assert "goes on from step" not in shown
    assert weights(root) == weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_an_interrupt_leaves_a_run_that_goes_on(copied: Path, asking: signal.Signals) -> None:
    long = ["-s", "stages.1.epochs=8", "--until", "train.all"]
    root = copied / "run"
    shutil.rmtree(root / "train.all")
    first = start("run", copied / "tiny.yaml", "-o", root, *long)
    wait_for("train.all.partial/checkpoints/step-*", root)
    first.send_signal(asking)
    _, shown = first.communicate(timeout=LIMIT)
    assert first.returncode == 130, shown
    assert "interrupted in the step train.all" in " ".join(shown.split())
    assert f"itemic run {copied / 'tiny.yaml'} -o {root}" in shown
    assert "Traceback" not in shown
    assert list((root / "train.all.partial" / "checkpoints").glob("step-*"))
    second = start("run", copied / "tiny.yaml", "-o", root, *long)
    _, shown = second.communicate(timeout=LIMIT)
    assert second.returncode == 0, shown
    assert "goes on from step" in " ".join(shown.split())

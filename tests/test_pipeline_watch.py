"""An evaluation in the trackers, and requests as they are answered."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.evaluate import Ranking
from itemic.pipeline import Run, watch
from itemic.recipe import load_recipe
from tests.runs import start, write_recipe


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def text(found: EventAccumulator, name: str) -> str:
    (event,) = found.Tensors(f"{name}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def test_numbers_tables_and_samples_of_an_evaluation(copied: Path) -> None:
    root = copied / "run"
    recipe = load_recipe(copied / "tiny.yaml", ["evaluate.trackers=[tensorboard]"])
    Run.of(recipe, root).execute(start="evaluate")
    report = json.loads((root / "report" / "model.json").read_text(encoding="utf-8"))
    interim = events(root / "evaluate")
    so_far = interim.Scalars("test so far/hr@10")
    assert so_far[-1].step == 60
    assert so_far[-1].value == pytest.approx(report["item"]["hr@10"]["value"])
    final = events(root / "report")
    for key, measure in report["item"].items():
        for name, value in (
            (f"test/{key}", "value"),
            (f"test/{key} low", "low"),
            (f"test/{key} high", "high"),
        ):
            (event,) = final.Scalars(name)
            assert event.value == pytest.approx(measure[value])
    table = text(final, "comparison")
    assert all(name in table for name in ("popularity", "transitions", "somebody", "hr@10"))
    lines = text(interim, "predictions").splitlines()
    assert len(lines) == 2 + 10
    dataset, ranking = Dataset.load(root / "data"), Ranking.load(root / "evaluate" / "model")
    first, target = dataset.split("test")[0:1], dataset.items["title"][int(dataset.split("test").targets[0])]
    best = dataset.items["title"][int(ranking.part(0).items[0, 0])]
    assert str(first.users[0]) in lines[2]
    assert target in lines[2]
    assert best in lines[2]


def test_verbose_shows_each_request(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(copied / "tiny.yaml", ["evaluate.verbose=true", "evaluate.trackers=[]"])
    lines: list[str] = []
    monkeypatch.setattr(watch.log, "info", lambda text, *values: lines.append(text % values))
    Run.of(recipe, copied / "run").execute(start="evaluate")
    dataset = Dataset.load(copied / "run" / "data")
    told = [line for line in lines if line.startswith("user ")]
    assert len(told) == 60
    test = dataset.split("test")
    names = dataset.items["title"].to_list()
    for number, line in enumerate(told):
        head, history, target, first, *_ = line.splitlines()
        assert head == f"user {test.users[number]}"
        assert history.endswith(names[test.history(number)[-1]])
        assert f"target: {names[test.targets[number]]} (place " in target
        assert first.startswith("  1. ")
    assert not (copied / "run" / "evaluate" / "tensorboard").exists()


def test_trackers_are_checked_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_recipe(tmp_path)
    assert call(["check", str(file), "-s", "evaluate.trackers=[bord]"]) == 2
    assert "evaluate.trackers" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "trackio", None)
    for command in ("check", "run"):
        assert call([command, str(file), "-s", "evaluate.trackers=[trackio]"]) == 2
        assert "itemic[trackio]" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_table_says_what_training_left_out(copied: Path) -> None:
    recipe = load_recipe(copied / "tiny.yaml", ["stages.1.data.max_length=116", "stages.1.epochs=1"])
    Run.of(recipe, copied / "run").execute()
    record = json.loads((copied / "run" / "train.all" / "training.json").read_text(encoding="utf-8"))["rows"]
    long, shortened = record["overlong"], record["shortened"]
    assert 0 < shortened < long < record["conversations"]
    table = json.loads((copied / "run" / "report" / "comparison.json").read_text(encoding="utf-8"))
    of = f"of {record['conversations']} rows over 116 tokens"
    assert table["notes"][-1] == (
        f"trained in all: {shortened} {of} without their oldest items, "
        f"{long - shortened} {of} cut to their last tokens"
    )


def test_commands_that_do_not_train_say_nothing_of_accelerators(finished: Path) -> None:
    process = start("recommend", finished / "run", "--user", "u00", "-k", "3")
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "Recommended for user u00" in out
    assert "accelerator" not in out + told

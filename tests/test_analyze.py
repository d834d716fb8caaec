"""``itemic analyze`` on a finished run, on rankings alone, and on another system's table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import itemic
from itemic.analysis import Analysis
from itemic.evaluate.ranking import Ranking

FILES = {"report.html", "badcase_report.json", "eval_results.jsonl", "summary_report.txt", "visualizations"}


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "run", tmp_path / "run", copy_function=shutil.copy)
    return tmp_path / "run"


@pytest.fixture
def tried(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: Any) -> tuple[int, str, str]:
        from itemic.cli.app import call

        status = call([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def test_files_of_an_analysis(root: Path, tried: Any) -> None:
    status, out, _ = tried("analyze", root, "--top-k", "5")
    assert status == 0
    folder = root / "analysis"
    assert {file.name for file in folder.iterdir()} == FILES
    assert {file.name for file in (folder / "visualizations").iterdir()} >= {"curve.png", "levels.png"}
    analysis = Analysis.load(folder / "badcase_report.json")
    report = itemic.score(Ranking.load(root / "evaluate" / "model"), k=[5])
    assert analysis.metrics["hr@5"].value == pytest.approx(report.item["hr@5"].value)
    assert analysis.bad == round((1 - report.item["hr@5"].value) * analysis.requests)
    lines = [json.loads(line) for line in (folder / "eval_results.jsonl").read_text().splitlines()]
    assert len(lines) == analysis.requests
    assert sum(not line["hit"] for line in lines) == analysis.bad
    ranking = Ranking.load(root / "evaluate" / "model").table(0)
    assert [line["recommended"] for line in lines] == [row[:5] for row in ranking["items"].to_list()]
    assert [line["target"] for line in lines] == ranking["target_id"].to_list()
    for cause in analysis.causes:
        assert cause.requests <= sum(cause.name in line["causes"] for line in lines)
    assert f"{analysis.bad} of {analysis.requests} cases are bad at 5" in out
    assert "What the patterns mean" in (folder / "summary_report.txt").read_text()


def test_the_model_says_what_it_thinks_of_lost_targets(root: Path, tried: Any) -> None:
    status, _, _ = tried("analyze", root, "-k", "5", "--ask-model", "20", "--detectors", "pruned_by_beam")
    assert status == 0
    analysis = Analysis.load(root / "analysis" / "badcase_report.json")
    assert [cause.name for cause in analysis.causes] == ["pruned_by_beam"]
    assert 0 < analysis.causes[0].able <= 20


def test_another_ranker_of_the_run_has_a_folder_of_its_own(root: Path, tried: Any) -> None:
    assert tried("analyze", root, "--ranker", "transitions")[0] == 0
    found = Analysis.load(root / "analysis-transitions" / "badcase_report.json")
    assert found.name == "transitions"
    status, _, err = tried("analyze", root, "--ranker", "nobody")
    assert status == 2
    assert "no ranking 'nobody'" in err
    assert "transitions" in err
    status, _, err = tried("analyze", root, "--ranker", "transitions", "--ask-model", "5")
    assert status == 2
    assert "are not those of a run's model" in err


def test_a_table_of_another_system(root: Path, tmp_path: Path, tried: Any) -> None:
    assert tried("evaluate", "export", root, "--csv", tmp_path / "theirs.csv")[0] == 0
    status, _, err = tried("analyze", tmp_path / "theirs.csv")
    assert status == 2
    assert "--dataset" in err
    asked = ["--dataset", root, "--index", root, "-k", "5", "-o", tmp_path / "out"]
    assert tried("analyze", tmp_path / "theirs.csv", *asked)[0] == 0
    assert tried("analyze", root, "-k", "5")[0] == 0
    theirs, own = (
        Analysis.load(folder / "badcase_report.json") for folder in (tmp_path / "out", root / "analysis")
    )
    assert theirs.metrics == own.metrics
    assert [(cause.name, cause.bad) for cause in theirs.causes] == [(c.name, c.bad) for c in own.causes]


def test_ranking_folders_alone(root: Path, tmp_path: Path, tried: Any) -> None:
    ranking = root / "evaluate" / "popularity"
    asked = ("analyze", ranking, "--dataset", root, "-o", tmp_path / "out")
    assert tried(*asked)[0] == 0
    found = Analysis.load(tmp_path / "out" / "badcase_report.json")
    assert found.absent["collision"] == "there is no index of semantic IDs"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["-k", "50"], "k = 50 of a ranking with"),
        (["--detectors", "cold"], "no detector 'cold'"),
        (["-s", "tial=0.1"], "tail"),
        (["-s", "tail=2"], "tail"),
        (["--slices", "missing.csv"], "missing.csv"),
    ],
)
def test_faults_are_named(arguments: list[str], fault: str, root: Path, tried: Any) -> None:
    status, _, err = tried("analyze", root, *arguments)
    assert status == 2
    assert fault in err
    assert not (root / "analysis").exists()

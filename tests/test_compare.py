"""``itemic compare`` on a finished run: seeds, others' tables, slices, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic.cli.sources import source_of
from itemic.errors import DataError
from itemic.evaluate.ranking import Ranking
from itemic.pipeline.cost import cost_of


@pytest.fixture
def root(finished: Path) -> Path:
    return finished / "run"


@pytest.fixture
def tried(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: Any) -> tuple[int, str, str]:
        from itemic.cli.app import call

        status = call([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def test_files_of_a_comparison(root: Path, tmp_path: Path, tried: Any) -> None:
    users = Ranking.load(root / "evaluate" / "model").table(0)["user_id"].to_list()
    (tmp_path / "u.csv").write_text("\n".join(["user_id,country", *(f"{user},NL" for user in users)]))
    folder = tmp_path / "out"
    asked = ["compare", root, root / "evaluate" / "transitions", "--slices", tmp_path / "u.csv", "-o", folder]
    status, out, _ = tried(*asked)
    assert status == 0
    assert {file.name for file in folder.iterdir()} == {
        f"comparison.{end}" for end in ("json", "md", "png", "html")
    }
    found = json.loads((folder / "comparison.json").read_text())["versus"]
    assert (found["dataset"], found["split"]) == (found["dataset"], "test")
    pair = found["pairs"][0]
    assert (pair["first"], pair["second"]) == ("run", "transitions")
    assert "country" in pair["slices"]
    assert [one["metric"] for one in pair["metrics"]] == ["hr@5", "hr@10", "ndcg@5", "ndcg@10"]
    own, theirs = (one["cost"] for one in found["standings"])
    cost = cost_of(root)
    assert own == {
        "tokens": cost.tokens,
        "seconds": pytest.approx(cost.seconds),
        "parameters": cost.parameters,
    }
    assert theirs == {"tokens": None, "seconds": None, "parameters": None}
    assert "Beyond accuracy" in out
    assert "Cost beside quality" in out
    assert "Beyond accuracy" in (folder / "comparison.md").read_text()
    assert "<svg" in (folder / "comparison.html").read_text()


def test_the_cost_is_what_the_run_tells(root: Path) -> None:
    from safetensors.numpy import load_file

    found = cost_of(root)
    stages = [root / f"train.{name}" for name in ("rows", "all")]
    logs = [[json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()] for stage in stages]
    assert found.tokens == sum(max(line.get("tokens", 0) for line in log) for log in logs)
    manifests = [json.loads((stage / "manifest.json").read_text()) for stage in stages]
    assert found.seconds == pytest.approx(sum(one["seconds"] for one in manifests))
    weights = load_file(stages[1] / "model.safetensors")
    assert found.parameters == sum(value.size for value in weights.values())
    assert cost_of(root / "data").tokens is None


def test_seeds_of_one_ranker(root: Path, tried: Any) -> None:
    folder = root / "evaluate"
    three = f"mine={folder / 'model'},{folder / 'popularity'},{folder / 'transitions'}"
    status, out, _ = tried("compare", three, folder / "item-knn", "-k", "10", "--json")
    assert status == 0
    found = json.loads(out)
    names = ("model", "popularity", "transitions")
    seeds = [json.loads((root / "report" / f"{name}.json").read_text()) for name in names]
    mean = np.mean([one["item"]["ndcg@10"]["value"] for one in seeds])
    row = found["rows"][0]
    assert [one["name"] for one in found["rows"]][:2] == [
        "mine",
        "item kNN",
    ]  # no row for SIDs that don't collide
    assert row["metrics"]["ndcg@10"]["value"] == pytest.approx(mean)
    assert row["metrics"]["ndcg@10"]["low"] < mean < row["metrics"]["ndcg@10"]["high"]
    assert found["versus"]["pairs"][0]["seeds"] == [3, 1]
    difference = found["differences"][0]["metrics"]["ndcg@10"]
    knn = json.loads((root / "report" / "item-knn.json").read_text())["item"]["ndcg@10"]["value"]
    assert difference["value"] == pytest.approx(mean - knn)


def test_tables_of_others(root: Path, tmp_path: Path, tried: Any) -> None:
    assert (
        tried("evaluate", "export", root, "--csv", tmp_path / "mine.csv", "--json", tmp_path / "mine.json")[0]
        == 0
    )
    pl.read_csv(tmp_path / "mine.csv").rename({"user": "user_id", "item": "item_id"}).select(
        "user_id", "item_id", "rank", "score"
    ).write_csv(tmp_path / "reco.csv")
    for name in ("mine.csv", "mine.json", "reco.csv"):
        status, out, _ = tried("compare", root, tmp_path / name, "--json")
        assert status == 0
        pair = json.loads(out)["versus"]["pairs"][0]
        assert pair["second"] == Path(name).stem
        assert [one["gain"]["value"] for one in pair["metrics"]] == [0] * len(pair["metrics"])
    status, _, err = tried("compare", tmp_path / "mine.csv", tmp_path / "reco.csv")
    assert status == 2
    assert "whose requests it answers" in err
    status, out, _ = tried(
        "compare", tmp_path / "mine.csv", tmp_path / "reco.csv", "--dataset", root, "-k", "5"
    )
    assert status == 0
    assert "both answer alike" in out
    pl.read_csv(tmp_path / "reco.csv").head(40).write_csv(tmp_path / "few.csv")
    status, out, _ = tried("compare", root, tmp_path / "few.csv")
    assert status == 0
    assert "have no recommendations in the file and count as misses" in out


def test_what_is_wrong_is_said(root: Path, tmp_path: Path, tried: Any) -> None:
    reports = root / "report"
    same = f"a={root}"
    for arguments, says in (
        ((same, f"a={reports / 'popularity.json'}"), "two rankers are called 'a'"),
        ((root, reports / "popularity.json", "--split", "dev"), "Use valid or test"),
        ((root, reports / "popularity.json", "--metrics", "auc"), "unknown metric 'auc'"),
        ((root, reports / "popularity.json", "--slices", tmp_path / "no.csv"), "can't read"),
        ((root, reports / "popularity.json", "-o", reports / "model.json"), "is a file"),
        ((reports / "model.json", "--slices", tmp_path / "no.csv"), "two rankings or more"),
    ):
        status, _, err = tried("compare", *arguments)
        assert status == 2
        assert says in err
    status, out, _ = tried("compare", same, f"b={reports / 'popularity.json'}")
    assert status == 0
    assert "a minus b, paired by request" in out


def test_names_and_paths(tmp_path: Path) -> None:
    odd = tmp_path / "a=b,c"
    odd.mkdir()
    assert source_of(str(odd)).paths == [odd]
    assert source_of("new=x/1, x/2").name == "new"
    assert source_of("new=x/1, x/2").paths == [Path("x/1"), Path("x/2")]
    assert source_of("x/1,x/2").name == ""
    assert source_of("x/1").paths == [Path("x/1")]
    with pytest.raises(DataError, match="names no path"):
        source_of("new=")

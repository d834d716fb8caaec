from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ArtifactError
from itemic.evaluate import Ranking, Report, rank_all, score
from itemic.evaluate.baselines import Popularity
from itemic.evaluate.predictions import export_csv, export_json
from tests.evaluate.helpers import random_dataset


def test_files_of_a_run_say_what_its_ranking_says(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished / "run"
    names = [tmp_path / "out" / "a.json", tmp_path / "out" / "a.csv"]
    assert (
        call(["evaluate", "export", str(root), "--json", str(names[0]), "--csv", str(names[1]), "-k", "5,10"])
        == 0
    )
    assert "60 requests" in capsys.readouterr().out
    ranking, dataset = Ranking.load(root / "evaluate" / "model"), Dataset.load(root / "data")
    titles = dict(zip(dataset.item_ids, dataset.items["title"], strict=True))
    expected = [row for table in ranking.tables() for row in table.to_dicts()]
    found = json.loads(names[0].read_text(encoding="utf-8"))
    saved = Report.load(root / "report" / "model.json")
    assert found["metrics"]["item"]["ndcg@10"]["value"] == saved.item["ndcg@10"].value
    lines = list(csv.DictReader(names[1].open(encoding="utf-8")))
    assert len(found["predictions"]) == len(expected) == 60
    at = 0
    for request, row in zip(found["predictions"], expected, strict=True):
        assert (request["user"], request["target"]) == (row["user_id"], row["target_id"])
        for place, (item, ranked, sid) in enumerate(
            zip(request["items"], row["items"], row["sids"], strict=True), 1
        ):
            told = (item["rank"], item["item"], item["title"], item["semantic_id"], item["hit"])
            assert told == (place, ranked, titles[ranked], sid, ranked == row["target_id"])
            line = lines[at]
            assert (line["user"], line["rank"], line["item"]) == (row["user_id"], str(place), ranked)
            assert line["hit"] == str(item["hit"]).lower()
            assert float(line["score"]) == pytest.approx(item["score"])
            at += 1
    assert at == len(lines)
    metrics = list(csv.DictReader((tmp_path / "out" / "a.csv.metrics.csv").open(encoding="utf-8")))
    hit = next(row for row in metrics if (row["level"], row["metric"]) == ("item", "hr@10"))
    assert float(hit["value"]) == pytest.approx(saved.item["hr@10"].value)
    assert float(hit["low"]) <= float(hit["value"]) <= float(hit["high"])
    assert (
        call(["evaluate", "export", str(root), "--ranker", "popularity", "--csv", str(tmp_path / "p.csv")])
        == 0
    )
    assert call(["evaluate", "export", str(root)]) == 2


def test_unknown_targets_and_unfinished_rankings(tmp_path: Path) -> None:
    dataset = random_dataset(20)
    test = dataset.split("test")
    test = Requests(test.users, test.offsets, test.items, np.full(len(test), -1, np.int32))
    ranking = rank_all(Popularity(dataset), test, dataset.item_ids, k=3, output=tmp_path / "r", part_size=7)
    export_json(ranking, score(ranking, k=[3]), None, tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found["metrics"]["item"] == {}
    assert found["predictions"][0]["target"] is None
    assert found["predictions"][0]["items"][0]["hit"] is None
    export_csv(ranking, dataset, tmp_path / "a.csv")
    lines = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")))
    assert len(lines) == 60
    assert {line["target"] for line in lines} == {""}
    (tmp_path / "r" / "part-00001.parquet").unlink()
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(ArtifactError, match="lacks 1 of 3 parts"):
        export_csv(Ranking.load(tmp_path / "r"), dataset, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == before
    assert not list(tmp_path.glob(".a.csv*"))

"""The page of a run: what it shows of a finished one, of one that goes on, and of one without data."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from itemic.artifact import read_manifest
from itemic.cli.app import call
from itemic.data import Dataset
from itemic.errors import ArtifactError
from itemic.evaluate import Ranking
from itemic.evaluate.compare import Comparison
from itemic.pipeline.page import run_page
from itemic.pipeline.page.curves import curves
from itemic.pipeline.page.samples import samples_part
from itemic.pipeline.page.steps import duration
from itemic.recipe import read_resolved
from itemic.training.curves import StageLog
from tests.runs import STEPS


class Reader(HTMLParser):
    """Texts, tags and addresses of a page; complains where tags don't close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not {"script", "link", "img", "iframe"} & reader.tags
    assert not reader.addresses
    return reader


def test_a_finished_run_shows_all_its_parts(finished: Path) -> None:
    root = finished / "run"
    made = root / "report" / "report.html"
    reader = read(made.read_text("utf-8"))
    heads = ["Results", "Slices", "Some predictions", "Training", "Semantic IDs", "Data", "Steps", "Recipe"]
    assert [text for text in reader.texts if text in heads] == heads
    for step in STEPS[:-1]:
        assert step in reader.texts
    verdict = Comparison.load(root / "report" / "comparison.json").verdict
    assert verdict in reader.texts
    assert "somebody: a paper" in reader.texts
    assert "report" not in reader.texts  # the page is written by that step, which isn't finished then
    again = read(run_page(root))
    assert "report" in again.texts
    version = read_manifest(root / "index").versions["scikit-learn"]  # type: ignore[union-attr]
    assert any(f"scikit-learn {version}" in text for text in again.texts)


def test_samples_are_what_was_ranked(finished: Path) -> None:
    root = finished / "run"
    samples = samples_part(root, read_resolved(root / "recipe.yaml"))
    assert len(samples) == 6
    dataset, ranking = Dataset.load(root / "data"), Ranking.load(root / "evaluate" / "model")
    rows = {row["user_id"]: row for table in ranking.tables() for row in table.iter_rows(named=True)}
    titles = dict(dataset.items.select("item_id", "title").iter_rows())
    for sample in samples:
        row = rows[sample.user]
        assert [answer.title for answer in sample.answers] == [titles[item] for item in row["items"][:5]]
        assert sample.target == titles[row["target_id"]]
        place = row["items"].index(row["target_id"]) + 1 if row["target_id"] in row["items"] else 0
        assert sample.rank == place
        events = dataset.interactions.filter(dataset.interactions["user_id"] == sample.user)[
            "item_id"
        ].to_list()
        assert sample.history == [titles[item] for item in events[:-1][-5:]]
        assert sample.earlier == max(len(events) - 6, 0)


def test_curves_lay_stages_end_to_end() -> None:
    logs = [
        StageLog("a", [{"tokens": 10, "loss": 4.0}, {"tokens": 20, "loss": 3.0}]),
        StageLog("b", [{"tokens": 5, "loss": 2.0, "loss/text": 1.0}, {"valid/hr@10": 0.5}]),
    ]
    assert curves(logs, {"loss": "all", "loss/text": "text", "nothing": "nothing"}) == {
        "all": [(10, 4), (20, 3), (25, 2)],
        "text": [(25, 1)],
    }
    assert curves(logs, {"valid/hr@10": "HR"}) == {"HR": [(25, 0.5)]}
    long = [StageLog("a", [{"tokens": i, "loss": 1.0} for i in range(1, 1001)])]
    assert len(curves(long, {"loss": "all"})["all"]) == 250


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61.4, "1 min 1 s"), (7500, "2 h 5 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_run_that_goes_on_shows_what_it_has(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = copied / "run"
    for step in ("train.all", "evaluate", "report"):
        shutil.rmtree(root / step)
    assert call(["report", str(root)]) == 0
    assert "report.html" in capsys.readouterr().out
    texts = read((root / "report.html").read_text("utf-8")).texts
    assert "Training" in texts
    assert "Results" not in texts
    assert "Some predictions" not in texts
    shutil.rmtree(root / "data")  # as a run of conversations that others made
    assert "Data" not in read(run_page(root)).texts


def test_folders_without_anything_to_show_are_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not the folder of a run"):
        run_page(tmp_path)
    (tmp_path / "recipe.yaml").write_text((copied / "run" / "recipe.yaml").read_text())
    with pytest.raises(ArtifactError, match="has no finished step"):
        run_page(tmp_path)


def test_tiles_count_parameters_as_the_model_does(finished: Path) -> None:
    from itemic.model import Model

    root = finished / "run"
    parameters = Model.load(root / "train.all").lm.num_parameters()
    page: Any = run_page(root)
    assert re.search(rf"<b>{parameters:,}</b><span>parameters", page)
    report = json.loads((root / "report" / "model.json").read_text())
    assert f"<b>{report['item']['hr@10']['value']:.4f}".replace("0.", ".") in page

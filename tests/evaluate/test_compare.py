from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.compare import BEST, Comparison, Published, compare
from itemic.evaluate.paired import Difference, difference
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.report import Measure, Report, score
from itemic.evaluate.stream import rank_all
from itemic.evaluate.tables import short, slice_table
from itemic.metrics import ndcg, ranks_of
from tests.evaluate.helpers import random_dataset

TIGER = Published("TIGER", {"Recall@10": 0.0648, "ndcg@10": 0.0384}, "Rajput et al. 2023, table 1")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return random_dataset(150)


@pytest.fixture(scope="module")
def rankings(dataset: Dataset) -> list[Ranking]:
    test = dataset.split("test")
    return [rank_all(kind(dataset), test, dataset.item_ids) for kind in (Transitions, Popularity)]


@pytest.fixture(scope="module")
def reports(dataset: Dataset, rankings: list[Ranking]) -> list[Report]:
    return [score(ranking, dataset) for ranking in rankings]


def screen(table: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_models_baselines_and_papers_in_one_table(reports: list[Report], tmp_path: Path) -> None:
    comparison = compare([replace(reports[0], best={"hr@10": 0.99}), reports[1]], [TIGER], title="random")
    assert [row.name for row in comparison.rows] == ["transitions", "popularity", BEST, "TIGER"]
    shown = screen(comparison.table())
    assert "HR@10" in shown
    assert ".0648" in shown
    assert "table 1" in shown
    document = comparison.markdown().splitlines()
    assert {line.count("|") for line in document if line.startswith("|")} == {len(comparison.columns) + 2}
    comparison.save(tmp_path / "table.json")
    saved = json.loads((tmp_path / "table.json").read_text())
    assert saved["rows"][3]["metrics"]["hr@10"] == {"value": 0.0648, "low": 0.0648, "high": 0.0648}
    assert saved["rows"][0]["metrics"]["hr@10"]["value"] == reports[0].item["hr@10"].value


def test_the_sid_level_is_a_row_only_where_it_differs(reports: list[Report]) -> None:
    same = replace(reports[0], sid=reports[0].item)
    other = replace(reports[0], sid=reports[1].item)
    assert [row.level for row in compare([same, other]).rows] == ["item", "item", "SID"]


def test_slices_have_a_table(reports: list[Report]) -> None:
    shown = screen(slice_table(reports[0]))
    assert "target popularity" in shown
    assert "5–9" in shown


def test_a_difference_is_paired(rankings: list[Ranking], dataset: Dataset) -> None:
    test = dataset.split("test")
    values = [
        ndcg(ranks_of(kind(dataset).rank(test, 20)[0], test.targets), 10)
        for kind in (Transitions, Popularity)
    ]
    gain = difference(*rankings)
    assert gain.value == pytest.approx(values[0].mean() - values[1].mean())
    spread = 1.96 * (values[0] - values[1]).std() / np.sqrt(len(test))
    assert (gain.low, gain.high) == pytest.approx((gain.value - spread, gain.value + spread), abs=0.01)
    nothing = difference(rankings[0], rankings[0], "hr")
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_a_table_says_who_is_ahead(
    reports: list[Report], rankings: list[Ranking], dataset: Dataset, tmp_path: Path
) -> None:
    comparison = compare(reports[::-1], [TIGER], rankings=rankings[::-1])
    loss = difference(*rankings[::-1])
    assert loss.high < 0
    found = comparison.rival
    assert found is not None
    assert found.metrics["ndcg@10"] == loss
    shown = " ".join(screen(comparison.table()).split())
    assert "│ transitions * │" in shown
    assert "│ popularity │" in shown
    text = f"NDCG@10 by {short(-loss.value)} [{short(-loss.high, 3)}, {short(-loss.low, 3)}]"
    assert "* popularity is behind transitions on HR@10 by" in shown
    assert f"and on {text}" in shown
    assert r"| transitions \* |" in comparison.markdown()
    comparison.save(tmp_path / "table.json")
    assert Comparison.load(tmp_path / "table.json") == comparison
    assert "ahead of popularity" in compare(reports, rankings=rankings).verdict
    assert compare(reports).verdict == ""


def test_the_rival_is_the_strongest_of_the_others(reports: list[Report], rankings: list[Ranking]) -> None:
    three = [reports[1], *reports]
    found = compare(three, rankings=[rankings[1], *rankings])
    assert found.rival is found.differences[0]
    assert found.differences[1].metrics["hr@10"] == Measure(0, 0, 0)


def test_a_variant_is_no_rival(reports: list[Report], rankings: list[Ranking], tmp_path: Path) -> None:
    """However strong it is; its difference is told all the same."""
    names = ("model", "better model", "popularity")
    three = [replace(report, name=name) for report, name in zip([reports[1], *reports], names, strict=True)]
    found = compare(three, rankings=[rankings[1], *rankings], variants=["better model"])
    assert found.rival is found.differences[1]
    assert "popularity" in found.verdict
    found.save(tmp_path / "table.json")
    assert Comparison.load(tmp_path / "table.json").rival == found.rival
    assert compare(three[:2], rankings=[rankings[1], rankings[0]], variants=["better model"]).verdict == ""


def test_standings_in_words() -> None:
    metrics = {
        "hr@10": Measure(-0.012, -0.016, -0.008),
        "mrr@10": Measure(-0.01, -0.02, -0.001),
        "ndcg@10": Measure(-0.001, -0.004, 0.002),
        "hr@20": Measure(0.5, 0.25, 1.0),
    }
    assert Difference("model", "last item", metrics).words == (
        "model is behind last item on HR@10 by .0120 [.008, .016] and on MRR@10 by .0100 [.001, .020], "
        "level on NDCG@10 (-.0010 [-.004, .002]), ahead on HR@20 by .5000 [.250, 1.000]"
    )
    level = Difference("a", "b", {"hr@10": Measure(0, 0, 0)}).words
    assert level == "a is level with b on HR@10 (.0000 [.000, .000])"


def test_what_cannot_be_compared_is_refused(
    reports: list[Report], rankings: list[Ranking], dataset: Dataset
) -> None:
    with pytest.raises(ConfigError, match="not the same ones"):
        compare([reports[0], replace(reports[1], asked="0" * 16)])
    with pytest.raises(ConfigError):
        compare([])
    with pytest.raises(ConfigError, match="unknown metric"):
        compare(reports, metrics=["auc"])
    with pytest.raises(ConfigError, match="ndcg@30"):
        difference(*rankings, k=30)
    valid = rank_all(Popularity(dataset), dataset.split("valid"), dataset.item_ids)
    with pytest.raises(ConfigError, match="different requests"):
        difference(rankings[0], valid)

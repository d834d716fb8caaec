from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from itemic.analysis import DETECTORS, Analysis, Evidence, Thresholds, analyze, gather
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError, DataError
from itemic.evaluate.baselines import Transitions
from itemic.evaluate.report import score
from itemic.evaluate.stream import rank_all
from tests.analysis.helpers import World, evidence_of
from tests.evaluate.helpers import make_dataset, random_dataset


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=1)


@pytest.fixture(scope="module")
def evidence(world: World) -> Evidence:
    dataset = world.dataset
    ranking = rank_all(Transitions(dataset), world.requests, dataset.item_ids, k=20)
    rows = np.arange(world.size)
    codes = np.stack([rows // 40, rows // 10 % 4, rows % 10], axis=1).astype(np.int32)
    return gather(ranking, dataset, codes=codes)


@pytest.fixture(scope="module")
def analysis(evidence: Evidence) -> Analysis:
    return analyze(evidence)[0]


def test_a_weakness_is_a_cause_and_what_goes_with_it_a_coincidence(world: World) -> None:
    """Short histories fail because the ranker is told to; items without text are asked about by the same people."""
    rng = np.random.default_rng(0)
    lengths = np.diff(world.requests.offsets)
    short = lengths <= np.median(lengths)
    mute = np.where(short, rng.random(len(short)) < 0.7, rng.random(len(short)) < 0.1)
    targets = np.where(mute, rng.integers(0, 50, len(mute)), rng.integers(50, world.size, len(mute)))
    asked = replace(world.requests, targets=targets.astype(np.int32))
    items = world.dataset.items.with_row_index().with_columns(
        pl.when(pl.col("index") < 50).then(pl.lit("")).otherwise(pl.col(name)).alias(name)
        for name in ("title", "description")
    )
    lists = np.array([world.list_of(row, []) for row in range(len(asked))])
    hit = rng.random(len(short)) < np.where(short, 0.2, 0.7)
    for row in range(len(lists)):
        lists[row] = np.where(lists[row] == targets[row], -1, lists[row])
    lists[hit, 2] = targets[hit]
    evidence = evidence_of(replace(world.dataset, items=items.drop("index")), asked, lists)
    told = Thresholds(short=int(np.median(lengths)))
    found, _ = analyze(evidence, told, detectors=["short_history", "text_missing"])
    verdicts = {cause.name: cause.verdict for cause in found.causes}
    assert verdicts == {"short_history": "cause", "text_missing": "coincidence"}
    weakness = found.cause("short_history")
    assert weakness is not None
    assert weakness.lift is not None
    expected = (short & ~hit).sum() / (~hit).sum() / ((short & hit).sum() / hit.sum())
    assert weakness.lift.value == pytest.approx(expected)
    assert weakness.hr is not None
    assert weakness.at_stake == pytest.approx((hit[~short].mean() - hit[short].mean()) * short.sum())


def test_figures_are_the_reports(evidence: Evidence, analysis: Analysis, world: World) -> None:
    ranking = rank_all(Transitions(world.dataset), world.requests, world.dataset.item_ids, k=20)
    report = score(ranking, world.dataset, k=[1, 5, 10, 20])
    assert {name: measure.value for name, measure in analysis.metrics.items()} == pytest.approx(
        {name: measure.value for name, measure in report.item.items()}
    )
    by_length = {part.value: part.hr.value for part in analysis.slices["history length"]}
    theirs = {part.name: part.metrics["hr@10"] for part in report.slices["history length"]}
    assert by_length == pytest.approx(theirs)
    by_count = {part.value: part.hr.value for part in analysis.slices["target popularity"]}
    assert by_count == pytest.approx(
        {part.name: part.metrics["hr@10"] for part in report.slices["target popularity"]}
    )
    assert analysis.curve[9] == pytest.approx(report.item["hr@10"].value)


def test_every_figure_is_a_count(evidence: Evidence, analysis: Analysis) -> None:
    _, found = analyze(evidence)
    for cause in analysis.causes:
        one = found[cause.name]
        able = np.ones(len(evidence), bool) if one.able is None else one.able
        assert cause.bad == (one.flags & evidence.bad).sum()
        assert cause.good == (one.flags & ~evidence.bad & able).sum()
        assert cause.able == able.sum()
    assert "pruned_by_beam" in analysis.absent
    assert len(analysis.causes) + len(analysis.absent) == len(DETECTORS)


def test_levels_by_hand() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32)
    # leave-one-out: training has a 4 ×, b 1 ×, c 2 ×, d 1 ×
    histories = {"u": "aaxy", "v": "abxy", "w": "acxy", "x": "cdxy"}
    dataset = make_dataset(
        {user: list(row.replace("x", "a").replace("y", "a")) for user, row in histories.items()}, list("abcd")
    )
    requests = Requests(
        np.array(["p", "q", "r", "s"], object),
        np.arange(5),
        np.zeros(4, np.int32),
        np.array([0, 1, 2, 3], np.int32),
    )
    lists = np.array([[0, 2], [0, 2], [3, 0], [1, 0]])  # right; level 2; level 2; level 1
    evidence = evidence_of(dataset, requests, lists, k=2, codes=codes)
    first, second = analyze(evidence, cuts=(1, 2))[0].levels
    assert (first.reached, first.right, first.first_wrong) == (4, 3, 1)
    assert (second.reached, second.right, second.first_wrong) == (3, 1, 2)
    assert first.chance == 0.5  # two targets of four begin with 0, which a and b have
    assert second.chance == pytest.approx(2 / 3)  # of a, b and c: a below 0, c below 1


def test_saves_and_loads_as_json_that_anybody_reads(analysis: Analysis, tmp_path: Path) -> None:
    analysis.save(tmp_path / "a.json")
    assert "NaN" not in (tmp_path / "a.json").read_text()
    assert "Infinity" not in (tmp_path / "a.json").read_text()
    assert Analysis.load(tmp_path / "a.json") == analysis
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(DataError, match="not an analysis"):
        Analysis.load(tmp_path / "b.json")


def test_a_ranking_that_hits_everything_has_no_causes(world: World) -> None:
    lists = np.array([[world.target(r), *world.list_of(r, [])[:19]] for r in range(len(world.requests))])
    found, _ = analyze(evidence_of(world.dataset, world.requests, lists))
    assert found.bad == 0
    assert {cause.verdict for cause in found.causes} <= {"too few", "kind"}


def test_an_unknown_detector_is_named(evidence: Evidence) -> None:
    with pytest.raises(ConfigError, match="no detector 'cold'"):
        analyze(evidence, detectors=["cold"])


def test_own_columns_are_slices(evidence: Evidence, tmp_path: Path) -> None:
    users = evidence.requests.users.astype(str)
    land = pl.DataFrame({"user_id": users, "country": ["de" if i % 3 else "fr" for i in range(len(users))]})
    land.write_csv(tmp_path / "users.csv")
    found, _ = analyze(evidence, tables=[tmp_path / "users.csv"])
    by_land = {part.value: part for part in found.slices["country"]}
    assert by_land["fr"].requests == len(range(0, len(users), 3))
    assert by_land["fr"].bad == evidence.bad[::3].sum()


def test_the_dataset_of_tests_has_no_semantic_ids(world: World) -> None:
    lists = np.array([world.list_of(r, []) for r in range(len(world.requests))])
    found, _ = analyze(evidence_of(world.dataset, world.requests, lists))
    assert found.levels == []
    assert found.absent["collision"] == "there is no index of semantic IDs"


def test_many_requests_of_a_user_widen_intervals() -> None:
    dataset: Dataset = random_dataset(60)
    requests = dataset.split("test")
    rows = np.repeat(np.arange(60), 10)
    lists = Transitions(dataset).rank(requests, 20)[0]
    alone = analyze(evidence_of(dataset, requests, lists))[0]
    tenfold = analyze(evidence_of(dataset, requests.take(rows), lists[rows]))[0]
    one, ten = alone.metrics["hr@10"], tenfold.metrics["hr@10"]
    assert ten.value == pytest.approx(one.value)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.15)

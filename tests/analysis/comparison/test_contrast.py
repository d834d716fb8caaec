"""Rankers against each other, against slow loops; and what tables, pictures and pages make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic import schema as c
from itemic.analysis.comparison import Side, Versus, contrast
from itemic.analysis.comparison.chart import interval_chart, metric_bars, plot, slice_bars
from itemic.analysis.comparison.page import page
from itemic.analysis.comparison.sheets import document, sheets
from itemic.analysis.comparison.versus import Contrast, Cost, rounded
from itemic.data.dataset import Dataset
from itemic.errors import ConfigError
from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.compare import compare
from itemic.evaluate.ranking import Ranking, RankingWriter
from itemic.evaluate.report import score
from itemic.evaluate.significance import Gain, Needed, holm
from itemic.evaluate.stream import rank_all
from itemic.metrics import hit_rate, ndcg, overlap, ranks_of
from tests.evaluate.helpers import random_dataset

HOSTILE = "<img src=x onerror=alert(1)> | **b** \x1b[31m $x$ [link](http://a)"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    plain = random_dataset(300)
    titles = [HOSTILE if row % 2 else f"Item {row}" for row in range(len(plain.items))]
    return replace(plain, items=plain.items.with_columns(pl.Series(c.TITLE, titles)))


def noisy(dataset: Dataset, seed: int, noise: float = 0.5) -> Ranking:
    """Transitions whose lists are shuffled a little, as other seeds would."""
    requests = dataset.split("test")
    items, scores = Transitions(dataset).rank(requests, 20)
    rng = np.random.default_rng(seed)
    order = np.argsort(np.arange(20) + rng.normal(0, noise * 10, items.shape), axis=1)
    writer = RankingWriter(None, f"noisy-{seed}", requests, dataset.item_ids, 20)
    shuffled = np.take_along_axis(items, order, axis=1)
    for part in range(writer.head.parts):
        start, stop = writer.head.bounds(part)
        writer.write(part, shuffled[start:stop], scores[start:stop])
    return writer.ranking


@pytest.fixture(scope="module")
def sides(dataset: Dataset) -> list[Side]:
    test = dataset.split("test")
    transitions, popular = (
        rank_all(kind(dataset), test, dataset.item_ids) for kind in (Transitions, Popularity)
    )
    cost = Cost(2_350_000, 1341.8, 1_099_136)
    return [
        Side("transitions", [transitions], [cost]),
        Side("popularity", [popular]),
        Side("noisy", [noisy(dataset, 0)]),
    ]


@pytest.fixture(scope="module")
def versus(sides: list[Side], dataset: Dataset) -> Versus:
    return contrast(sides, dataset=dataset, k=[5, 10])


def of(ranking: Ranking) -> Any:
    return np.concatenate([part.items for part in ranking.arrays()])


def test_figures_equal_slow_ones(versus: Versus, sides: list[Side], dataset: Dataset) -> None:
    targets = dataset.split("test").targets
    ranks = [ranks_of(of(side.rankings[0]), targets) for side in sides]
    for other, pair in enumerate(versus.pairs, 1):
        assert [one.metric for one in pair.metrics] == ["hr@5", "hr@10", "ndcg@5", "ndcg@10"]
        for one in pair.metrics:
            metric = hit_rate if one.metric.startswith("hr") else ndcg
            first, second = (metric(ranks[at], int(one.metric.split("@")[1])) for at in (0, other))
            assert (one.first, one.second) == pytest.approx((first.mean(), second.mean()))
            assert one.gain.value == pytest.approx((first - second).mean())
            assert one.gain.low <= one.gain.value <= one.gain.high
        hits = [(ranks[at] > 0) & (ranks[at] <= 10) for at in (0, other)]
        assert (pair.wins, pair.losses) == ((hits[0] & ~hits[1]).sum(), (hits[1] & ~hits[0]).sum())
        exact = next(one.mcnemar for one in pair.metrics if one.metric == "hr@10")
        assert exact is not None
        assert (exact.only_first, exact.only_second) == (pair.wins, pair.losses)
        lists = overlap(of(sides[0].rankings[0]), of(sides[other].rankings[0]), 10)
        assert pair.agreement["overlap@10"] == pytest.approx(lists.mean())


def test_all_tests_are_corrected_together(versus: Versus) -> None:
    tested = [one for pair in versus.pairs for one in pair.metrics]
    assert versus.tests == len(tested) == 8
    assert [one.corrected for one in tested] == pytest.approx(holm([one.gain.p for one in tested]))
    for one in tested:
        assert (one.verdict == "no difference shown") == (one.corrected >= 0.05)
    sliced = [part for pair in versus.pairs for parts in pair.slices.values() for part in parts]
    assert [part.corrected for part in sliced] == pytest.approx(holm([part.gain.p for part in sliced]))


def test_slices_add_up(versus: Versus) -> None:
    pair = versus.pairs[0]
    whole = {one.metric: one.gain.value for one in pair.metrics}
    for name in ("history length", "target novelty"):
        parts = [part for part in pair.slices[name] if part.metric == "ndcg@10"]
        assert sum(part.requests for part in parts) == versus.requests
        total = sum(part.gain.value * part.requests for part in parts) / versus.requests
        assert total == pytest.approx(whole["ndcg@10"])


def test_examples_are_what_they_say(versus: Versus, sides: list[Side], dataset: Dataset) -> None:
    requests = dataset.split("test")
    ranks = [ranks_of(of(side.rankings[0]), requests.targets) for side in sides]
    pair = versus.pairs[0]
    assert len(pair.won) == 5
    for one in pair.won:
        assert one.user == requests.users[one.request]
        assert (one.first_rank, one.second_rank) == (ranks[0][one.request], ranks[1][one.request])
        assert 1 <= one.first_rank <= 10
        assert not 1 <= one.second_rank <= 10
        assert one.target == dataset.titles[int(requests.targets[one.request])]


def test_a_ranker_does_not_differ_from_itself(sides: list[Side]) -> None:
    found = contrast([sides[0], replace(sides[0], name="again")], k=[10])
    one = found.pairs[0].metrics[0]
    assert one.gain == Gain(0, 0, 0, 1, 0, 0, found.requests, 1)
    assert one.verdict == "no difference shown"
    assert one.words.endswith("both answer alike")
    assert found.pairs[0].agreement == {"rbo": pytest.approx(1), "overlap@10": 1}
    assert not found.pairs[0].slices  # without a dataset


def test_several_seeds(dataset: Dataset) -> None:
    test = dataset.split("test")
    three = Side("noisy", [noisy(dataset, seed, 0.3) for seed in range(3)])
    more = Side("noisier", [noisy(dataset, seed, 0.9) for seed in range(3)])
    one = Side("transitions", [rank_all(Transitions(dataset), test, dataset.item_ids)])
    found = contrast([three, more, one], k=[10], metrics=["ndcg"])
    ranks = [
        [ranks_of(of(ranking), test.targets) for ranking in side.rankings] for side in (three, more, one)
    ]
    means = [np.array([ndcg(rank, 10).mean() for rank in side]) for side in ranks]
    paired, alone = found.pairs
    assert paired.paired_seeds
    assert paired.metrics[0].gain.value == pytest.approx((means[0] - means[1]).mean())
    expected = (means[0] - means[1]).std(ddof=1) / np.sqrt(3)
    assert paired.metrics[0].gain.seeds_error == pytest.approx(expected)
    assert not alone.paired_seeds
    assert alone.metrics[0].gain.seeds_error == pytest.approx(means[0].std(ddof=1) / np.sqrt(3))
    assert paired.metrics[0].mcnemar is None
    assert 0 < found.standings[1].stability["overlap@10"] < found.standings[0].stability["overlap@10"] < 1
    assert found.standings[2].stability == {}
    assert found.standings[0].seeds == 3
    assert any("Student's" in note for note in found.notes)
    assert any("transitions: one ranking" in note for note in found.notes)


def test_what_cannot_be_compared(sides: list[Side], dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="comparison of one"):
        contrast(sides[:1])
    with pytest.raises(ConfigError, match="need the dataset"):
        contrast(sides, tables=["x.csv"])
    with pytest.raises(ConfigError, match="unknown metric 'auc'"):
        contrast(sides, metrics=["auc"])
    valid = rank_all(Popularity(dataset), dataset.split("valid"), dataset.item_ids)
    with pytest.raises(ConfigError, match="different requests"):
        contrast([sides[0], Side("valid", [valid])])


def test_what_is_said_of_a_difference() -> None:
    def said(gain: Gain, verdict: Any, needed: Needed) -> str:
        return Contrast("hr@10", 0.1, 0.1, gain, 0.5, verdict, needed).words

    none = Gain(0.001, -0.001, 0.003, 0.5, 0.001, 0, 1000)
    assert said(none, "no difference shown", Needed(0.0021, 48_216)) == (
        "HR@10: no difference shown (.0010 [-.001, .003]); at this size one of .0021 would be, in four of five cases; "
        "the one measured would take about 48,000 requests"
    )
    seeds = replace(none, seeds_error=0.01)
    assert said(seeds, "no difference shown", Needed(0.0021, None)).endswith("seeds differ more than that")
    assert said(replace(none, low=0.0005), "ahead", Needed(0, 1)) == "HR@10: ahead by .0010 [.001, .003]"
    behind = Gain(-0.2, -0.3, -0.1, 0, 0.1, 0, 9)
    assert said(behind, "behind", Needed(0, 1)) == "HR@10: behind by .2000 [.100, .300]"
    assert [rounded(count) for count in (7, 99, 101, 48_216)] == ["7", "99", "100", "48,000"]


def test_tables_picture_and_page_hold_titles_and_no_markup(
    versus: Versus, sides: list[Side], dataset: Dataset, tmp_path: Path
) -> None:
    titles = [sheet.title for sheet in sheets(versus)]
    assert titles == [
        "transitions minus popularity, paired by request",
        "transitions minus popularity, by slice",
        "transitions minus noisy, paired by request",
        "transitions minus noisy, by slice",
        "Cost beside quality",
        "Beyond accuracy",
    ]
    cost = next(sheet for sheet in sheets(versus) if sheet.title.startswith("Cost"))
    assert cost.rows[0][3:] == ["2.35 M", "1,342", "1.1 M"]
    text = document(versus)
    assert "\x1b" not in text
    assert "<img" not in text.replace("\\<img", "")
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for block in tables:
        assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1
    html = page(versus, compare([score(side.rankings[0], dataset) for side in sides]))
    assert "&lt;img src=x onerror" in html
    assert "␛[31m" in html
    assert "\x1b" not in html
    assert "<img" not in html
    assert "<script" not in html
    assert "http://" not in html.replace("[link](http://a)", "")
    plot(versus, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(versus.to_json(), allow_nan=False)


def test_bars_stand_where_their_values_are(versus: Versus) -> None:
    import re

    bars = metric_bars(versus.pairs[0])
    svg = interval_chart("differences", bars, "difference")
    zero = float(re.search(r'class="axis" x1="([\d.]+)"', svg)[1])  # type: ignore[index]
    dots = [float(x) for x in re.findall(r'circle cx="([\d.]+)"', svg)]
    assert [dot > zero for dot in dots] == [bar.value > 0 for bar in bars]
    scale = [(dot - zero) / bar.value for dot, bar in zip(dots, bars, strict=True)]
    assert scale == pytest.approx([scale[0]] * len(scale), rel=0.01)
    main, parts = slice_bars(versus.pairs[0])
    assert main == "NDCG@10"
    assert any(bar.label.startswith("novelty: ") for bar in parts)

"""What public objects say of themselves: one readable line, and a table where one is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import itemic
from itemic.evaluate import ModelRanker, Published, Report
from itemic.evaluate.baselines import LastItem
from itemic.evaluate.report import Measure
from itemic.forest import build_forest
from itemic.pipeline.recommend import recommend_one
from itemic.recipe import load_recipe
from itemic.sid.report import compare as compare_indexes
from itemic.sid.report import report as sid_report
from itemic.sid.trie import Trie
from itemic.tasks import Conversations, validate


@pytest.fixture(scope="module")
def things(finished: Path) -> dict[str, Any]:
    """One of each, the slow ones from a finished run."""
    root = finished / "run"
    simulation = itemic.simulate(itemic.SimulatorConfig(users=30, items=30), seed=0)
    dataset = itemic.Dataset.load(root / "data")
    tokenizer = itemic.ItemTokenizer.load(root / "index")
    index, model = tokenizer.index, itemic.Model.load(root / "train.all")
    ranking = itemic.Ranking.load(root / "evaluate" / "model")
    report = itemic.score(ranking, dataset, k=[5, 10])
    built = itemic.build_conversations(dataset, index, [{"task": "C"}])
    quality = sid_report(index, dataset)
    found: list[Any] = [
        dataset, dataset.sequences, dataset.split("test"), simulation, simulation.config, dataset.rule,
        tokenizer, tokenizer.codebooks, index, Trie.build(model.item_rows), model, model.item_rows,
        build_forest(model.item_rows), ranking, next(ranking.arrays()), report, quality,
        itemic.compare([report], [Published("a", {"hr@10": 0.5}, "paper")]), compare_indexes([quality]),
        built, Conversations.open(root / "conversations"), validate(built, dataset, index),
        itemic.Popularity(dataset), itemic.Transitions(dataset), LastItem(dataset), ModelRanker(model, beams=5),
        itemic.Stage(epochs=3), itemic.FilterRule(user_k_core=5), load_recipe(finished / "tiny.yaml"),
        itemic.Run.of(load_recipe(finished / "tiny.yaml")),
        recommend_one(root, user=str(dataset.sequences.users[0]), k=3),
    ]  # fmt: skip
    return {type(one).__name__: one for one in found}


def test_every_object_says_in_one_line_what_it_is(things: dict[str, Any]) -> None:
    for name, one in things.items():
        line = repr(one)
        assert name.replace("Built", "Conversations") in line
        assert "\n" not in line
        assert len(line) < 200, line
        for noise in (" object at 0x", "array(", "shape:", "dtype="):
            assert noise not in line, line


def test_lines_tell_the_figures(things: dict[str, Any]) -> None:
    dataset = things["Dataset"]
    events = len(dataset.interactions)
    assert repr(dataset) == (
        f"<Dataset 'marketplace': 60 users, 40 items, {events} interactions; split leave-one-out>"
    )
    assert repr(things["ItemIndex"]) == "<ItemIndex: 40 items, 8 × 8 codes, format onerec>"
    assert repr(things["SimulatorConfig"]) == "SimulatorConfig(users=30, items=30)"
    assert repr(things["FilterRule"]) == "FilterRule(user_k_core=5)"
    assert repr(things["Stage"]) == "Stage(epochs=3)"
    lengths = [len(things["Requests"].history(r)) for r in range(60)]
    assert repr(things["Requests"]) == (
        f"<Requests: 60, histories of {min(lengths)} to {max(lengths)} items, 60 with a target>"
    )
    assert (
        eval(repr(things["SimulatorConfig"]), vars(itemic) | {"SimulatorConfig": itemic.SimulatorConfig})
        == (things["SimulatorConfig"])
    )


def test_printing_a_report_shows_its_table() -> None:
    item = {"hr@5": Measure(0.25, 0.125, 0.5), "hr@10": Measure(0.5, 0.25, 1), "ndcg@5": Measure(0.1, 0, 0.2)}
    report = Report(
        "m [/]", "test", 8, 7, [5, 10], 0.95, item, exposure={"coverage@5": 0.5}, notes=["a note"]
    )
    lines = str(report).splitlines()
    assert lines[0].strip() == "m [/] · 8 test requests"
    cells = [[part.strip() for part in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert cells == [
        ["HR", ".2500 [.125, .500]", ".5000 [.250, 1.000]"],
        ["NDCG", ".1000 [.000, .200]", ""],
        ["coverage", ".5000", ""],
    ]
    assert [line.strip() for line in lines[-2:]] == ["intervals at 95%", "a note"]


def test_the_others_print_tables_too(things: dict[str, Any]) -> None:
    for name in ("Comparison", "SidReport", "SidComparison", "ValidationReport", "Answer"):
        assert str(things[name]).count("\n") > 5, name
    assert str(things["Recipe"]).startswith("name: tiny\n")

"""Statistics against numbers worked out by hand, and the plots."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib import image
from rich.console import Console

from itemic.data import Dataset, SplitRule, describe, description_table, plot_description, read
from itemic.data.statistics import gini

from .test_split import make


@pytest.fixture
def dataset() -> Dataset:
    made = make({"a": [0, 1, 1, 2], "b": [0, 3], "c": [0, 1, 2]}, SplitRule(), items=5)
    items = made.items.with_columns(
        pl.Series("title", ["t", "", "t", "t", "t"]),
        pl.Series("brand", ["x", "", "", "", ""]),
        pl.Series("categories", [["s", "a"], ["s", "a"], ["s", "b"], ["s"], []], dtype=pl.List(pl.String)),
    )
    return replace(made, items=items, name="small")


def test_numbers(dataset: Dataset) -> None:
    found = describe(dataset)
    assert (found["users"], found["items"], found["items_with_interactions"], found["interactions"]) == (
        3,
        5,
        4,
        9,
    )
    assert found["sparsity"] == pytest.approx(1 - 8 / 15)
    assert found["repeats"] == {"interactions": 1, "share": pytest.approx(1 / 9)}
    assert found["sequence_length"]["mean"] == 3
    assert [found["sequence_length"][name] for name in ("min", "median", "max")] == [2, 3, 4]
    # counts of the items: 3 3 2 1 0
    assert found["popularity"]["head_20_percent"] == pytest.approx(3 / 9)
    assert found["popularity"]["tail_50_percent"] == pytest.approx(1 / 9)
    assert found["text"] == {"title": 0.8, "description": 0.0, "brand": 0.2, "categories": 0.8}
    assert found["time"] is None
    assert found["split"] == {"method": "leave-one-out", "history": 50, "train": 5, "valid": 2, "test": 2}
    json.dumps(found)


def test_times(dataset: Dataset) -> None:
    made = make({"a": [0, 1]}, SplitRule(), [0, 86_400_000])
    assert describe(made)["time"] == {
        "first": "1970-01-01T00:00:00+00:00",
        "last": "1970-01-02T00:00:00+00:00",
    }


def test_a_dataset_that_can_t_be_split_is_still_described(dataset: Dataset) -> None:
    found = describe(dataset.with_split(SplitRule("temporal")))
    assert "needs a time" in found["split"]["error"]
    assert describe(dataset.with_split(SplitRule("leave-last-out")))["split"]["test"] == 3


@pytest.mark.parametrize(
    ("counts", "expected"), [([1, 1, 1, 1], 0.0), ([0, 0, 0, 4], 0.75), ([0, 0], 0.0), ([1, 3], 0.25)]
)
def test_gini_by_hand(counts: list[int], expected: float) -> None:
    assert gini(np.array(counts)) == pytest.approx(expected)


def test_gini_is_the_mean_difference() -> None:
    counts = np.random.default_rng(0).integers(0, 50, 30)
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert gini(counts) == pytest.approx(differences / (2 * counts.mean()))


def test_the_table_shows_what_was_found(dataset: Dataset) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(description_table(describe(dataset)))
    text = console.export_text()
    for expected in (
        "small",
        "users",
        "46.6667%",
        "Gini",
        "leave-one-out, last 50 items as history: train 5, valid 2, test 2",
        "title 80.0%",
    ):
        assert expected in text


@pytest.mark.parametrize("timed", [True, False])
def test_the_plot_is_a_picture_of_four_drawings(timed: bool, dataset: Dataset, tmp_path: Path) -> None:
    if timed:
        dataset = replace(
            dataset, interactions=dataset.interactions.with_columns(timestamp=pl.int_range(9) * 86_400_000)
        )
    plot_description(dataset, tmp_path / "new" / "plot.png")
    picture = image.imread(tmp_path / "new" / "plot.png")
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    for top in (0, height):
        for left in (0, width):
            assert (
                len(np.unique(picture[top : top + height, left : left + width, :3].reshape(-1, 3), axis=0))
                > 5
            )


def test_plots_of_real_data(shared: Path, tmp_path: Path) -> None:
    plot_description(read("movielens", shared / "ml-latest-small"), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 20_000

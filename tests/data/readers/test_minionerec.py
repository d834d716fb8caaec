"""MiniOneRec's tables, against a plain reading of the CSV files."""

from __future__ import annotations

import ast
import csv
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from itemic.cli.app import call
from itemic.data import Dataset, SplitRule, read
from itemic.data.split import choose_split
from itemic.errors import DataError
from itemic.recipe.schema import DataPart

from ..sources import MINIONEREC

Question = tuple[str, list[str], str]


def questions(dataset: Dataset, split: str) -> list[Question]:
    requests = dataset.split(split)
    ids = dataset.item_ids
    return [
        (user, [ids[row] for row in requests.history(i)], ids[requests.targets[i]])
        for i, user in enumerate(requests.users)
    ]


def plain_rows(folder: Path, split: str) -> list[Question]:
    (file,) = (folder / split).glob("*.csv")
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            (row["user_id"], [str(item) for item in ast.literal_eval(row["history_item_id"])], row["item_id"])
            for row in csv.DictReader(stream)
        ]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_published_split_asks_exactly_the_source_s_questions(split: str, shared: Path) -> None:
    dataset = read("minionerec", shared / "minionerec")
    assert dataset.rule == SplitRule("published", history=10)
    expected = plain_rows(shared / "minionerec", split)
    assert sorted(questions(dataset, split)) == sorted(expected)
    assert len(expected) == {"valid": 4_532, "test": 4_533}[split]


def test_training_rows_are_the_source_s(shared: Path) -> None:
    dataset = read("minionerec", shared / "minionerec")
    train, ids = dataset.train, dataset.item_ids
    steps = [
        (user, [ids[row] for row in train[i][max(0, end - 10) : end]], ids[train[i][end]])
        for i, user in enumerate(train.users)
        for end in range(1, len(train[i]))
    ]
    assert sorted(steps) == sorted(plain_rows(shared / "minionerec", "train"))


def test_used_items_are_those_of_the_tables(shared: Path) -> None:
    used = {
        item
        for split in ("train", "valid", "test")
        for _, history, target in plain_rows(shared / "minionerec", split)
        for item in (*history, target)
    }
    assert set(read("minionerec", shared / "minionerec").interactions["item_id"]) == used


def test_labels_of_a_small_case(tmp_path: Path) -> None:
    MINIONEREC.write(tmp_path)
    dataset = read("minionerec", tmp_path)
    table = dataset.interactions
    assert list(zip(table["user_id"], table["item_id"], table["split"], strict=True)) == [
        ("7", "1", "train"),
        ("7", "2", "train"),
        ("7", "3", "valid"),
        ("7", "4", "test"),
        ("8", "2", "train"),
        ("8", "1", "train"),
        ("8", "2", "valid"),
        ("9", "3", "train"),
        ("9", "4", "train"),
        ("9", "1", "test"),
    ]
    assert questions(dataset, "valid") == [("7", ["1", "2"], "3"), ("8", ["2", "1"], "2")]
    assert questions(replace(dataset, rule=SplitRule("published", history=1)), "test") == [
        ("7", ["3"], "4"),
        ("9", ["4"], "1"),
    ]


def test_descriptions_written_as_lists_are_texts(tmp_path: Path) -> None:
    MINIONEREC.write(tmp_path)
    assert read("minionerec", tmp_path).items["description"][1] == "Crème, 50 ml more"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    MINIONEREC.write(tmp_path)
    file = tmp_path / "valid" / "Tiny_5.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("history_item_id", "history"), encoding="utf-8")
    with pytest.raises(DataError, match=r"valid/Tiny_5.csv lacks the column history_item_id; it has user_id"):
        read("minionerec", tmp_path, on_bad_row="drop")


def test_without_the_train_table_the_histories_stand_for_it(tmp_path: Path) -> None:
    MINIONEREC.write(tmp_path)
    (tmp_path / "train" / "Tiny_5.csv").unlink()
    dataset = read("minionerec", tmp_path)
    assert questions(dataset, "valid") == [("7", ["1", "2"], "3"), ("8", ["2", "1"], "2")]
    assert len(dataset.train.items) == 6


def test_the_published_split_is_the_default_and_said(
    tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, raw = tmp_path / "made", shared / "minionerec"
    assert call(["data", "import", str(raw), "-o", str(output)]) == 0
    assert "split: published, the source's own" in capsys.readouterr().err
    dataset = Dataset.load(output)
    assert dataset.rule == SplitRule("published", history=10)
    assert len(dataset.split("test")) == 4_533
    again = tmp_path / "again"
    assert call(["data", "import", str(raw), "-o", str(again), "--split", "leave-one-out"]) == 0
    assert Dataset.load(again).rule == SplitRule("leave-one-out", history=50)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{}", SplitRule("published", 10)),
        ("{history: 5}", SplitRule("published", 5)),
        ("{method: published, history: null}", SplitRule("published", None)),
        ("{method: leave-one-out}", SplitRule("leave-one-out", 50)),
        ("{method: temporal, ratios: [.6, .2, .2]}", SplitRule("temporal", 50, (0.6, 0.2, 0.2))),
    ],
)
def test_a_recipe_s_split_says_what_it_gives(text: str, rule: SplitRule) -> None:
    data = DataPart.model_validate({"split": yaml.safe_load(text)})
    suggested = SplitRule("published", history=10)
    assert choose_split(suggested, **data.split) == rule
    assert choose_split(SplitRule(), **DataPart().split) == SplitRule()

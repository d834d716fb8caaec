"""What only the folder of an OpenOneRec export has: files that must fit, a split rule, users without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from itemic import schema as c
from itemic.data import Dataset, SplitRule, detect_format, read
from itemic.data.look import fitting_formats
from itemic.errors import DataError

from ..sources import (
    MINIONEREC_SPLIT,
    SEQUENCES,
    edit_metadata,
    edit_parquet,
    write_conversations,
    write_openonerec,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_openonerec(tmp_path)
    return tmp_path


def events(data: Dataset, *columns: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for user, *rest in data.interactions.select(c.USER_ID, *columns).iter_rows():
        found.setdefault(user, []).append(rest[0] if len(rest) == 1 else tuple(rest))
    return found


def about(folder: Path, **changes: Any) -> None:
    file = folder / "dataset.split.json"
    content = json.loads(file.read_text())
    content["split"] |= changes
    file.write_text(json.dumps(content))


def test_name_split_and_labels_are_those_of_the_files(folder: Path) -> None:
    data = read("auto", folder)
    assert (data.name, data.rule) == ("tiny", SplitRule("published", 50))
    assert events(data, c.SPLIT) == {user: ["train", *labels] for user, labels in MINIONEREC_SPLIT.items()}
    assert data.notes["read"]["files"] == {
        "train.parquet": 3,
        "valid.parquet": 2,
        "test.parquet": 2,
        "items.parquet": 4,
    }


def test_under_any_other_rule_there_are_no_labels(folder: Path) -> None:
    about(folder, method="temporal", ratios=[0.6, 0.2, 0.2])
    data = read("openonerec", folder)
    assert data.rule == SplitRule("temporal", 50, (0.6, 0.2, 0.2))
    assert data.interactions[c.SPLIT].is_null().all()


def test_histories_are_as_long_as_the_rule_has_them(folder: Path) -> None:
    def cut(rows: list[Any]) -> None:
        for row in rows:
            row["items"] = row["items"][-2:]

    edit_metadata("test.parquet", cut)(folder)
    with pytest.raises(DataError, match="line 1: the history does not continue user '7'"):
        read("openonerec", folder)
    about(folder, history=2)
    assert events(read("openonerec", folder), c.ITEM_ID) == SEQUENCES
    about(folder, history=None)
    with pytest.raises(DataError, match="does not continue"):
        read("openonerec", folder)


def test_users_stand_in_their_order(folder: Path) -> None:
    def later(rows: list[Any]) -> None:
        for row in rows:
            row["order"] = {"user:7": 2, "user:8": 0, "user:9": 1}[row["group"]]

    for split in c.SPLITS:
        edit_metadata(f"{split}.parquet", later)(folder)
    assert list(events(read("openonerec", folder), c.ITEM_ID)) == ["8", "9", "7"]


def test_a_user_without_training_opens_with_a_request(folder: Path) -> None:
    opening = {"group": "user:1", "order": 0, "split": "test", "items": ["2"], "target": ["3"]}
    opening |= {"opening": "valid", "timestamps": [1_300_000_000_000, None], "ratings": [None, 2]}
    more = {"group": "user:1", "order": 0, "split": "test", "items": ["2", "3"], "target": ["1"]}
    edit_metadata("test.parquet", lambda rows: rows.extend([opening, more]))(folder)
    data = read("openonerec", folder)
    assert events(data, c.ITEM_ID, c.SPLIT)["1"] == [("2", "valid"), ("3", "test"), ("1", "test")]
    assert events(data, c.RATING)["1"] == [None, 2.0, None]
    edit_metadata("test.parquet", lambda rows: rows.append(opening))(folder)
    with pytest.raises(DataError, match=r"test\.parquet, line 5: .*'1'"):
        read("openonerec", folder)


def test_requests_without_an_answer_tell_nothing_and_must_fit(folder: Path) -> None:
    about(folder, method="leave-last-out")
    write_conversations(
        folder / "train.parquet", [{"group": "user:7", "order": 0, "split": "train", "items": ["1", "2"]}]
    )
    ask = {"group": "user:7", "order": 0, "items": ["1", "2"]}
    write_conversations(folder / "valid.parquet", [ask | {"split": "valid", "target": ["3"]}])
    write_conversations(folder / "test.parquet", [ask | {"split": "test", "items": ["1", "2", "3"]}])
    data = read("openonerec", folder)
    assert events(data, c.ITEM_ID) == {"7": ["1", "2", "3"]}
    assert data.split("test").targets.tolist() == [-1]
    write_conversations(folder / "test.parquet", [ask | {"split": "test"}])
    with pytest.raises(DataError, match=r"test\.parquet, line 1: the history"):
        read("openonerec", folder)
    write_conversations(folder / "test.parquet", [ask | {"split": "test", "group": "user:6"}])
    with pytest.raises(DataError, match="user '6' has no earlier row"):
        read("openonerec", folder)


def test_requests_may_be_missing(folder: Path) -> None:
    for split in (c.VALID, c.TEST):
        (folder / f"{split}.parquet").unlink()
    assert events(read("auto", folder), c.ITEM_ID) == {"7": ["1", "2"], "8": ["2", "1"], "9": ["3", "4"]}


def cut(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: len(raw) // 2])

    return apply


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


ABOUT = "dataset.split.json"
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut train": (cut("train.parquet"), r"train\.parquet is damaged or cut short"),
    "cut test": (cut("test.parquet"), r"test\.parquet is damaged or cut short"),
    "cut items": (cut("items.parquet"), r"items\.parquet is damaged or cut short"),
    "no metadata": (
        edit_parquet("valid.parquet", lambda rows: rows.drop("metadata")),
        r"valid\.parquet lacks the column metadata",
    ),
    "metadata of a struct": (
        edit_parquet("valid.parquet", lambda rows: rows.with_columns(pl.struct("uuid").alias("metadata"))),
        r"valid\.parquet: metadata holds Struct.*, not JSON texts",
    ),
    "no titles": (
        edit_parquet("items.parquet", lambda items: items.drop("title", "brand")),
        r"items\.parquet lacks the column title, brand",
    ),
    "numbers for titles": (
        edit_parquet("items.parquet", lambda items: items.with_columns(pl.lit(1).alias("title"))),
        r"items\.parquet: title holds Int32, not String",
    ),
    "no items": (
        edit_parquet("items.parquet", lambda items: items.head(0)),
        r"items\.parquet holds no usable item",
    ),
    "no JSON": (text(ABOUT, "{"), r"dataset\.split\.json is no JSON"),
    "no object": (text(ABOUT, "[]"), r"dataset\.split\.json has no split rule"),
    "no name": (text(ABOUT, "{}"), r"dataset\.split\.json lacks the key 'name'"),
    "unknown method": (lambda folder: about(folder, method="by-moon"), r"method is 'by-moon'"),
    "unknown key": (lambda folder: about(folder, colour="red"), r"split\.json has no split rule: .*colour"),
    "no history": (lambda folder: about(folder, history="long"), r"split\.json has no split rule"),
    "half an item": (
        lambda folder: about(folder, history=1.5),
        r"split\.json has no split rule: SplitRule: history is 1\.5",
    ),
    "no row to continue": (
        edit_metadata("valid.parquet", lambda rows: rows.clear()),
        "does not continue user '7'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name: str, folder: Path) -> None:
    break_it, message = BROKEN[name]
    break_it(folder)
    with pytest.raises(DataError, match=message) as caught:
        read("openonerec", folder)
    assert caught.value.remedy


@pytest.mark.parametrize("gone", ["dataset.split.json", "items.parquet", "train.parquet"])
def test_conversations_alone_are_no_dataset(gone: str, folder: Path) -> None:
    (folder / gone).unlink()
    assert fitting_formats(folder) == ()
    with pytest.raises(
        DataError, match=r"no known format .*openonerec: dataset\.split\.json, items\.parquet"
    ):
        detect_format(folder)
    with pytest.raises(DataError, match=f"lacks {gone}; conversations alone") as caught:
        read("openonerec", folder)
    assert "itemic data export" in caught.value.remedy


def test_what_openonerec_publishes_is_not_taken_for_a_dataset(tmp_path: Path) -> None:
    write_conversations(tmp_path / "part-0.parquet", [{"uid": "8", "pid": 3}])
    assert fitting_formats(tmp_path) == ()
    write_conversations(tmp_path / "train.parquet", [{"uid": "8", "pid": 3}])
    with pytest.raises(DataError, match="no known format"):
        read("auto", tmp_path)
    with pytest.raises(DataError, match="conversations alone"):
        read("openonerec", tmp_path / "train.parquet")


def test_it_is_no_table(folder: Path) -> None:
    assert fitting_formats(folder) == ("openonerec",)

"""RecBole's atomic files."""

from __future__ import annotations

from pathlib import Path

import pytest

from itemic.data import SplitRule, detect_format, read
from itemic.errors import ConfigError, DataError

from ..sources import RECBOLE, read_text, write_text

HEADER = "user_id:token\titem_id:token\n"


def test_without_times_the_file_order_counts(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    write_text(tmp_path / "tiny.inter", f"{HEADER}b\t3\na\t1\nb\t2\na\t4\n")
    dataset = read("recbole", tmp_path)
    assert dataset.interactions["user_id"].to_list() == ["b", "b", "a", "a"]
    assert dataset.interactions["item_id"].to_list() == ["3", "2", "1", "4"]
    assert dataset.sequences.timestamps is None
    assert dataset.interactions["rating"].null_count() == 4


def test_times_in_milliseconds(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    seconds = read("recbole", tmp_path).interactions["timestamp"]
    assert (read("recbole", tmp_path, time_unit="ms").interactions["timestamp"] * 1000).equals(seconds)
    with pytest.raises(ConfigError, match="hours"):
        read("recbole", tmp_path, time_unit="hours")


def test_three_files_keep_their_split(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    (tmp_path / "tiny.inter").unlink()
    for split, rows in (("train", "a\t1\na\t2\nb\t3\n"), ("valid", "a\t3\n"), ("test", "a\t4\nb\t1\n")):
        write_text(tmp_path / f"tiny.{split}.inter", HEADER + rows)
    assert detect_format(tmp_path) == "recbole"
    dataset = read("recbole", tmp_path)
    assert dataset.rule == SplitRule("published")
    test = dataset.split("test")
    assert list(test.users) == ["a", "b"]
    assert [test.history(i).tolist() for i in range(2)] == [[0, 1, 2], [2]]
    assert test.targets.tolist() == [3, 0]


def test_rows_with_histories_become_sequences(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    (tmp_path / "tiny.inter").unlink()
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    for split, rows in (
        ("train", "a\t1\t2\na\t1 2\t3\n"),
        ("valid", "a\t1 2 3\t4\n"),
        ("test", "a\t2 3 4\t1\n"),
    ):
        write_text(tmp_path / f"tiny.{split}.inter", header + rows)
    dataset = read("recbole", tmp_path)
    assert dataset.interactions["item_id"].to_list() == ["1", "2", "3", "4", "1"]
    assert dataset.interactions["split"].to_list() == ["train", "train", "train", "valid", "test"]


def test_missing_columns_are_named(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    file = tmp_path / "tiny.inter"
    write_text(file, read_text(file).replace("item_id:token", "thing:token"))
    with pytest.raises(DataError, match=r"tiny\.inter lacks the column item_id; it has user_id, thing"):
        read("recbole", tmp_path)
    RECBOLE.write(tmp_path)
    file = tmp_path / "tiny.item"
    write_text(file, read_text(file).replace("title:token_seq", "label:token_seq"))
    with pytest.raises(DataError, match=r"tiny\.item lacks the column title"):
        read("recbole", tmp_path)


def test_genres_at_spaces(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    write_text(
        tmp_path / "tiny.item",
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
        "1\tToy Story\tAnimation Children's Comedy\n2\tb\t\n3\tc\tDrama\n4\td\t'Odd\n",
    )
    items = read("recbole", tmp_path).items
    assert items["title"][0] == "Toy Story"
    assert items["categories"].to_list() == [["Animation", "Children's", "Comedy"], [], ["Drama"], ["'Odd"]]


def test_prefix_chooses_a_data_set(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    for name in ("inter", "item"):
        (tmp_path / f"tiny2.{name}").write_bytes((tmp_path / f"tiny.{name}").read_bytes())
    with pytest.raises(DataError, match="several files"):
        read("recbole", tmp_path)
    assert read("recbole", tmp_path, prefix="tiny").name == "tiny"
    assert read("recbole", tmp_path, prefix="tiny2").name == "tiny2"

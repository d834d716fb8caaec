"""RecBole's atomic files."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest

from itemic.cli.app import call
from itemic.data import Dataset, SplitRule, detect_format, read
from itemic.data.readers.atomic import find_separator
from itemic.errors import ConfigError, DataError
from tests.cases import case

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


def test_the_unit_of_times_can_be_given(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    seconds = read("recbole", tmp_path).interactions["timestamp"]
    assert (read("recbole", tmp_path, unit="ms").interactions["timestamp"] * 1000).equals(seconds)
    with pytest.raises(ConfigError, match="hours"):
        read("recbole", tmp_path, unit="hours")


def test_milliseconds_are_told_by_their_size(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="itemic"):
        dataset = read("auto", case("milliseconds"))
    assert "shop.inter: times are in ms" in caplog.text
    rows = [line.split("\t") for line in read_text(case("milliseconds") / "shop.inter").splitlines()[1:]]
    expected: dict[str, list[int]] = {}
    for user, _, time in rows:
        expected.setdefault(user, []).append(int(time))
    found = dict(dataset.interactions.group_by("user_id").agg("timestamp").iter_rows())
    assert found == {user: sorted(times) for user, times in expected.items()}
    assert dataset.items["price"].dtype == pl.Float64
    assert dataset.items.filter(pl.col("item_id") == "SKU000")["price"].item() == 169.66


def test_a_wrong_unit_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    folder = case("milliseconds")
    with pytest.raises(
        DataError, match=r"shop\.inter, line 2: timestamp is '1601466248000', which is no time in s"
    ):
        read("recbole", folder, unit="s")
    command = ["data", "import", str(folder), "-o", str(tmp_path / "made"), "-s", "unit=s"]
    assert call(command) != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["comma", "space"])
def test_separators_are_found_in_the_header(name: str) -> None:
    folder = case("recbole-separators") / name
    dataset = read("auto", folder)
    mark = "," if name == "comma" else " "
    rows = [line.split(mark) for line in read_text(folder / f"{name}.inter").splitlines()[1:] if line]
    assert dataset.interactions["user_id"].to_list() == [user for user, _, _ in rows]
    assert dataset.interactions["item_id"].to_list() == [item for _, item, _ in rows]
    assert dataset.items["title"].to_list() == [f"Thing{number}" for number in range(8)]
    assert read("recbole", folder, separator=mark).interactions.equals(dataset.interactions)
    with pytest.raises(DataError, match="lacks the column"):
        read("recbole", folder, separator=";")


@pytest.mark.parametrize("mark", ["\t", ",", ";", "|", " "])
def test_a_separator_is_not_taken_for_another_one(mark: str) -> None:
    assert find_separator(mark.join(["user_id:token", "item_id:token"])) == mark
    if mark != " ":
        assert find_separator(mark.join(["user id:token", "number of times:float"])) == mark
        assert find_separator(f"{mark} ".join(["user_id:token", "item_id:token"])) == mark


def test_quotes_protect_a_comma(tmp_path: Path) -> None:
    write_text(tmp_path / "q.inter", "user_id:token,item_id:token\na,1\na,2\n")
    write_text(tmp_path / "q.item", 'item_id:token,title:token_seq\n1,"Soap, red"\n2,Comb\n')
    assert read("auto", tmp_path).items["title"].to_list() == ["Soap, red", "Comb"]


def test_interactions_alone_are_enough() -> None:
    dataset = read("auto", case("recbole-inter-only"))
    assert dataset.name == "x"
    assert dataset.item_ids == [f"i{number}" for number in range(8)]
    assert dataset.items["title"].to_list() == [""] * 8
    assert dataset.items["categories"].to_list() == [[]] * 8
    notes = dataset.notes["read"]
    assert notes["item_file"] is None
    assert notes["missing_text"] == {"policy": "keep", "unlisted": 8, "untitled": 0, "interactions": 30}
    with pytest.raises(
        DataError, match=r"x\.inter, line 2: user 'u0' has item 'i0', which is not in any file"
    ):
        read("auto", case("recbole-inter-only"), missing_text="error")


def test_typed_columns_travel_along(tmp_path: Path) -> None:
    write_text(
        tmp_path / "t.inter",
        "user_id:token\titem_id:token\tclicks:float\twords:token_seq\tsplit:token\treview:token_seq\n"
        "a\t1\t2\tx  y\tnew\tso good\na\t2\t\t\t\t\n",
    )
    write_text(
        tmp_path / "t.item",
        "item_id:token\ttitle:token_seq\tprice:token\tgenre:token_seq\tsize:float_seq\tcolour:token\n"
        "1\tSoap\t$1,200.50\tComedy Horror\t1 2.5\tred\n2\tComb\t\t\t\t\n",
    )
    dataset = read("auto", tmp_path)
    assert dataset.items.select("price", "tags", "size", "colour").rows() == [
        (1200.5, ["Comedy", "Horror"], [1.0, 2.5], "red"),
        (None, [], [], None),
    ]
    assert dataset.interactions.select("clicks", "words", "source_split", "review").rows() == [
        (2.0, ["x", "y"], "new", "so good"),
        (None, [], None, None),
    ]
    again = tmp_path / "saved"
    dataset.save(again)
    assert Dataset.load(again).items.equals(dataset.items)
    write_text(
        tmp_path / "t.inter",
        "user_id:token\titem_id:token\tclicks:float\na\t1\t2\na\t2\tmany\n",
    )
    with pytest.raises(DataError, match=r"t\.inter, line 3: clicks is 'many', not a number"):
        read("auto", tmp_path)
    slow = read("auto", tmp_path, on_bad_row="drop").interactions
    assert slow["clicks"].to_list() == [2.0]


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
    dataset = read("recbole", tmp_path)
    assert dataset.notes["read"]["missing_text"]["untitled"] == 4
    assert dataset.items["label"].to_list()[0] == ["Comb", "&", "Brush"]


def test_genres_at_spaces(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    write_text(
        tmp_path / "tiny.item",
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
        "1\tToy Story\tAnimation Children's Comedy\n2\tb\t\n3\tc\tDrama\n4\td\t'Odd\n",
    )
    items = read("recbole", tmp_path).items
    assert items["title"][0] == "Toy Story"
    assert items["tags"].to_list() == [["Animation", "Children's", "Comedy"], [], ["Drama"], ["'Odd"]]


def test_prefix_chooses_a_data_set(tmp_path: Path) -> None:
    RECBOLE.write(tmp_path)
    for name in ("inter", "item"):
        (tmp_path / f"tiny2.{name}").write_bytes((tmp_path / f"tiny.{name}").read_bytes())
    with pytest.raises(DataError, match="several files"):
        read("recbole", tmp_path)
    assert read("recbole", tmp_path, prefix="tiny").name == "tiny"
    assert read("recbole", tmp_path, prefix="tiny2").name == "tiny2"

"""MovieLens, csv and dat."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from itemic.data import read
from itemic.errors import DataError

from ..sources import MOVIELENS_CSV, MOVIELENS_DAT, read_text, write_text


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    MOVIELENS_CSV.write(tmp_path)
    file = tmp_path / "ratings.csv"
    write_text(file, read_text(file).replace("timestamp", "time"))
    with pytest.raises(DataError, match=r"ratings\.csv lacks the column timestamp; it has userId, movieId"):
        read("movielens", tmp_path, on_bad_row="drop")


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    MOVIELENS_CSV.write(tmp_path)
    before = read("movielens", tmp_path)
    file = tmp_path / "ratings.csv"
    rows = [line.split(",") for line in read_text(file).splitlines()]
    write_text(file, "".join(",".join([row[3], "extra", row[1], row[0], row[2]]) + "\n" for row in rows))
    assert read("movielens", tmp_path).interactions.equals(before.interactions)


def test_utf8_and_latin1_titles(tmp_path: Path) -> None:
    MOVIELENS_DAT.write(tmp_path)
    latin = read("movielens", tmp_path)
    file = tmp_path / "movies.dat"
    assert b"\xe8" in file.read_bytes()
    write_text(file, read_text(file, "latin-1"))
    assert read("movielens", tmp_path).items.equals(latin.items)
    assert latin.items["title"][1] == "Crème, 50 ml"


def test_no_genres_listed_is_no_category(shared: Path) -> None:
    folder = shared / "ml-latest-small"
    with (folder / "movies.csv").open(encoding="utf-8", newline="") as stream:
        movies = list(csv.DictReader(stream))
    items = read("movielens", folder).items
    expected = [[] if "no genres" in movie["genres"] else movie["genres"].split("|") for movie in movies]
    assert items["tags"].to_list() == expected
    assert items["categories"].list.len().sum() == 0
    as_path = read("movielens", folder, categories_are="path").items
    assert as_path["categories"].to_list() == expected
    assert "tags" not in as_path.columns
    assert sum(not path for path in expected) == 34
    assert items["year"].head(3).to_list() == [1995, 1995, 1995]
    without = items.filter(items["year"].is_null())["title"]
    assert not without.str.contains(r"\(\d{4}\)").any()
    assert items["title"].to_list() == [" ".join(movie["title"].split()) for movie in movies]


def test_ratings_against_a_plain_reading(shared: Path) -> None:
    folder = shared / "ml-latest-small"
    with (folder / "ratings.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows.sort(key=lambda row: (int(row["userId"]), int(row["timestamp"])))
    table = read("movielens", folder).interactions
    assert table["user_id"].to_list() == [row["userId"] for row in rows]
    assert table["item_id"].to_list() == [row["movieId"] for row in rows]
    assert table["timestamp"].to_list() == [1000 * int(row["timestamp"]) for row in rows]
    assert table["rating"].to_list() == [float(row["rating"]) for row in rows]

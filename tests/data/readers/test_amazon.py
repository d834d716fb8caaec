"""Raw Amazon dumps: literals, damage, streaming, choice of files, against a plain reading."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from itemic.data import detect_format, read
from itemic.data.readers import source
from itemic.data.readers.amazon import parse_object
from itemic.errors import DataError

from ..sources import AMAZON_2014, AMAZON_2018, AMAZON_2023, SEQUENCES, read_text, write_text


def test_reviews_as_python_literals_read_like_json(tmp_path: Path) -> None:
    AMAZON_2014.write(tmp_path)
    as_json = read("amazon-2014", tmp_path)
    file = tmp_path / "reviews_Tiny_5.json.gz"
    write_text(file, "".join(f"{json.loads(line)!r}\n" for line in read_text(file).splitlines()))
    assert ast.literal_eval(read_text(file).splitlines()[0])["overall"] == 4.5
    assert not read_text(file).startswith('{"')
    assert detect_format(tmp_path) == "amazon-2014"
    assert read("amazon-2014", tmp_path).interactions.equals(as_json.interactions)


def test_the_longest_category_path_counts(tmp_path: Path) -> None:
    AMAZON_2014.write(tmp_path)
    assert read("amazon-2014", tmp_path).items["categories"][0].to_list() == ["Beauty", "Tapes, Glue & More"]


def test_store_and_features_stand_in_for_brand_and_description(tmp_path: Path) -> None:
    AMAZON_2023.write(tmp_path)
    items = read("amazon-2023", tmp_path).items
    assert items["brand"].to_list() == ["S"] * 4
    assert items["description"].to_list() == ["f"] * 4


def test_markup_is_taken_out(tmp_path: Path) -> None:
    AMAZON_2018.write(tmp_path)
    assert read("amazon-2018", tmp_path).items["description"][0] == "a b"


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_a_truncated_gzip_says_how_many_lines_could_be_read(policy: str, tmp_path: Path) -> None:
    AMAZON_2018.write(tmp_path)
    file = tmp_path / "Tiny_5.json.gz"
    lines = [
        json.dumps({"reviewerID": f"u{i}", "asin": "1", "unixReviewTime": i, "x": i**9})
        for i in range(20_000)
    ]
    whole = gzip.compress("".join(f"{line}\n" for line in lines).encode())
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EOFError), gzip.open(file) as stream:
        stream.read()
    with gzip.open(file) as stream:
        count = 0
        try:
            for _ in stream:
                count += 1
        except EOFError:
            pass
    with pytest.raises(DataError, match=r"Tiny_5\.json\.gz is damaged or cut short") as caught:
        read("amazon-2018", tmp_path, on_bad_row=policy)
    said = int(caught.value.message.split("; ")[1].split()[0])
    # plain iteration loses what its buffer holds when the stream ends; ours hands over everything
    assert count <= said < len(lines)
    assert said > len(lines) // 4


def test_a_file_that_is_no_gzip_is_named(tmp_path: Path) -> None:
    AMAZON_2018.write(tmp_path)
    (tmp_path / "meta_Tiny.json.gz").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"meta_Tiny\.json\.gz is damaged"):
        read("amazon-2018", tmp_path)


def test_small_batches_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AMAZON_2018.write(tmp_path)
    whole = read("amazon-2018", tmp_path)
    files = source.Source.batches
    monkeypatch.setattr(source.Source, "batches", lambda self, file, size=50: files(self, file, 50))
    assert read("amazon-2018", tmp_path).interactions.equals(whole.interactions)


def test_rated_only_leaves_out_items_without_reviews(tmp_path: Path) -> None:
    AMAZON_2018.write(tmp_path)
    meta = tmp_path / "meta_Tiny.json.gz"
    write_text(meta, read_text(meta) + json.dumps({"asin": "5", "title": "Nobody's"}) + "\n")
    assert len(read("amazon-2018", tmp_path).items) == 5
    dataset = read("amazon-2018", tmp_path, rated_only=True)
    assert dataset.items["item_id"].to_list() == ["1", "2", "3", "4"]
    assert dataset.notes["read"]["unrated_items_left_out"] == 1


def test_prefix_chooses_a_category(tmp_path: Path) -> None:
    AMAZON_2018.write(tmp_path)
    for name in ("Tiny_5", "meta_Tiny"):
        (tmp_path / f"{name.replace('Tiny', 'Other')}.json.gz").write_bytes(
            (tmp_path / f"{name}.json.gz").read_bytes()
        )
    assert detect_format(tmp_path) == "amazon-2018"
    with pytest.raises(DataError, match="2 review files") as caught:
        read("amazon-2018", tmp_path)
    assert "prefix" in caught.value.remedy
    dataset = read("amazon-2018", tmp_path, prefix="Other")
    assert dataset.name == "Other_5"
    assert set(dataset.notes["read"]["files"]) == {"Other_5.json.gz", "meta_Other.json.gz"}


def test_metadata_that_is_not_there_is_named(tmp_path: Path) -> None:
    AMAZON_2018.write(tmp_path)
    (tmp_path / "meta_Tiny.json.gz").unlink()
    with pytest.raises(DataError, match=r"meta_Tiny_5\.json\.gz"):
        read("amazon-2018", tmp_path)


def test_objects_are_parsed_and_never_run() -> None:
    assert parse_object('{"a": null}') == {"a": None}
    assert parse_object("{'a': None, 'b': [1]}\n") == {"a": None, "b": [1]}
    for line in ("{'a': open('x')}", "1", "{" * 100_000, "null"):
        with pytest.raises(ValueError, match=r"line"):
            parse_object(line)


def test_gift_cards_against_a_plain_reading(shared: Path) -> None:
    with gzip.open(shared / "amazon18" / "Gift_Cards_5.json.gz", "rt", encoding="utf-8") as stream:
        reviews = [json.loads(line) for line in stream]
    expected: dict[str, list[tuple[int, str, float]]] = {}
    for review in reviews:
        row = (review["unixReviewTime"] * 1000, review["asin"], review["overall"])
        expected.setdefault(review["reviewerID"], []).append(row)
    for rows in expected.values():
        rows.sort(key=lambda row: row[0])  # stable: events of one time stay in file order
    table = read("amazon-2018", shared / "amazon18").interactions
    found = {
        user[0]: part.select("timestamp", "item_id", "rating").rows()
        for user, part in table.partition_by("user_id", as_dict=True).items()
    }
    assert found == expected
    assert list(found) == list(expected)
    assert table["split"].null_count() == len(table)


def test_batches_of_a_big_file_keep_line_numbers(tmp_path: Path) -> None:
    AMAZON_2018.write(tmp_path)
    file = tmp_path / "Tiny_5.json.gz"
    good = read_text(file).splitlines()
    padding = json.dumps(
        {"reviewerID": "9", "asin": "1", "unixReviewTime": 1_500_000_000, "reviewText": "x" * 4000}
    )
    lines = [*good, *[padding] * 5000, "{broken"]  # 20 MB: several batches
    write_text(file, "".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match=rf"line {len(lines)}: "):
        read("amazon-2018", tmp_path)
    dataset = read("amazon-2018", tmp_path, on_bad_row="drop")
    assert len(dataset.interactions) == sum(map(len, SEQUENCES.values())) + 5000
    assert dataset.interactions.filter(pl.col("user_id") == "9").height == 5003

"""LETTER's and OneRec-Think's JSON files."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pytest

from itemic.data import read
from itemic.errors import DataError

from ..sources import LETTER, ONEREC, write_letter


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    write_letter(tmp_path)
    (tmp_path / "Tiny.item.json").write_text('{\n"1": {"title": "a"},\n"2": {"title"}\n}', encoding="utf-8")
    with pytest.raises(DataError, match=r"Tiny\.item\.json is no JSON: .*line 3"):
        read("letter", tmp_path, on_bad_row="drop")
    (tmp_path / "Tiny.item.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"Tiny\.item\.json holds no JSON object"):
        read("letter", tmp_path)


def test_prefix_chooses_a_pair(tmp_path: Path) -> None:
    write_letter(tmp_path)
    for part in ("inter", "item"):
        (tmp_path / f"Other.{part}.json").write_bytes((tmp_path / f"Tiny.{part}.json").read_bytes())
    with pytest.raises(DataError, match=r"Other\.inter\.json, Tiny\.inter\.json"):
        read("letter", tmp_path)
    assert read("letter", tmp_path, prefix="Other").name == "Other"


def test_the_first_of_repeated_items_stands_and_the_order_stays(tmp_path: Path) -> None:
    write_letter(tmp_path)
    file = tmp_path / "Tiny.item.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text[:-1] + ', "1": {"title": "late"}}', encoding="utf-8")
    items = read("letter", tmp_path, on_bad_row="drop").items
    assert items["item_id"].to_list() == ["1", "2", "3", "4"]
    assert items["title"][0] == "Comb & Brush"


def test_scientific_categories_keep_commas_that_belong_to_names(shared: Path) -> None:
    items = read("letter", shared / "scientific").items
    raw = json.loads((shared / "scientific" / "Scientific.item.json").read_text(encoding="utf-8"))
    names = {name for path in items["categories"] for name in path}
    assert "Test, Measure & Inspect" in names
    assert "Inspect" not in names
    assert not any(name != name.strip() or name.startswith(",") for name in names)
    # nothing is lost: joined again, a path is the source's text
    joined = [",".join(path) for path in items["categories"].to_list()]
    source = [" ".join(html.unescape(item["categories"]).split()) for item in raw.values()]
    assert [text.replace(" ,", ",") for text in joined] == [text.replace(" ,", ",") for text in source]


def test_beauty_brands_and_entities(shared: Path) -> None:
    items = read("letter", shared / "beauty").items
    raw = json.loads((shared / "beauty" / "Beauty.item.json").read_text(encoding="utf-8"))
    assert "L'Oreal Paris" in items["brand"].to_list()
    unknown = sum(item["brand"] == "Unknown" for item in raw.values())
    assert unknown > 0
    assert (items["brand"] == "").sum() == unknown + sum(not item["brand"] for item in raw.values())


@pytest.mark.parametrize("format", ["onerec-think", "letter"])
def test_sequences_are_the_file_s(format: str, shared: Path) -> None:
    folder = shared / "beauty"
    dataset = read(format, folder)
    if format == "letter":
        raw = json.loads((folder / "Beauty.inter.json").read_text(encoding="utf-8"))
        expected = {user: [str(item) for item in items] for user, items in raw.items()}
    else:
        lines = (folder / "sequential_data_processed.txt").read_text(encoding="utf-8").splitlines()
        expected = {line.split()[0]: line.split()[1:] for line in lines}
    found = dataset.sequences
    assert list(found.users) == list(expected)
    ids = np.array(dataset.item_ids, object)
    assert ids[found.items].tolist() == [item for items in expected.values() for item in items]
    assert np.diff(found.offsets).tolist() == [len(items) for items in expected.values()]


def test_sid_texts_stay_out_of_the_dataset(tmp_path: Path) -> None:
    ONEREC.write(tmp_path)
    items = read(ONEREC.format, tmp_path).items
    assert not any("sid_begin" in str(value) for row in items.rows() for value in row)


def test_paths_parted_by_arrows(tmp_path: Path) -> None:
    LETTER.write(tmp_path)
    items = {key: {"title": "t", "categories": value} for key, value in
             {"1": "A > B, C > D", "2": ["A", "B"], "3": "['A', 'B']", "4": None}.items()}  # fmt: skip
    (tmp_path / "Tiny.item.json").write_text(json.dumps(items), encoding="utf-8")
    paths = read("letter", tmp_path).items["categories"].to_list()
    assert paths == [["A", "B, C", "D"], ["A", "B"], ["A", "B"], []]

"""What every reader must do, whatever the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pytest

from itemic import schema as c
from itemic.data import READERS, Dataset, FilterRule, SplitRule, apply_filters, detect_format, read
from itemic.errors import ConfigError, DataError

from .sources import CASES, SEQUENCES, TITLES, Case, Fault, Sequences, edit_pickle, seconds

GAPS = ("unknown item", "missing title")


def faults(gaps: bool) -> list[Any]:
    return [
        pytest.param(case, fault, id=f"{name}, {fault.name}")
        for name, case in CASES.items()
        for fault in case.faults
        if (fault.kind in GAPS) == gaps
    ]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def dataset(case: Case, tmp_path: Path) -> Dataset:
    case.write(tmp_path)
    return read(case.format, tmp_path)


def sequences_of(dataset: Dataset) -> Sequences:
    found = dataset.sequences
    return {user: [dataset.item_ids[row] for row in found[i]] for i, user in enumerate(found.users)}


def test_every_format_has_a_case() -> None:
    assert {case.format for case in CASES.values()} == set(READERS)
    assert all(name == reader.name for name, reader in READERS.items())


def test_the_catalogue_is_read(case: Case, dataset: Dataset) -> None:
    assert dataset.items.columns == [*c.ITEM_COLUMNS, *case.items]
    assert dict(zip(dataset.items[c.ITEM_ID], dataset.items[c.TITLE], strict=True)) == TITLES
    tagged = c.TAGS in case.items
    assert dataset.items[c.TAGS if tagged else c.CATEGORIES].to_list() == [case.categories] * len(TITLES)
    assert (dataset.items[c.CATEGORIES].list.len().sum() == 0) == (tagged or not case.categories)
    assert dataset.notes["read"]["missing_text"] == {
        "policy": "keep",
        "unlisted": 0,
        "untitled": 1,
        "interactions": 2,
    }


def test_texts_are_never_null_and_ids_are_unique_strings(dataset: Dataset) -> None:
    texts = dataset.items.select(c.ITEM_COLUMNS)
    assert texts.schema == {
        c.ITEM_ID: pl.String,
        c.TITLE: pl.String,
        c.DESCRIPTION: pl.String,
        c.BRAND: pl.String,
        c.CATEGORIES: pl.List(pl.String),
    }
    assert sum(texts.null_count().row(0)) == 0
    assert dataset.items[c.ITEM_ID].is_unique().all()
    assert "Unknown" not in dataset.items[c.BRAND].to_list()


def test_the_sequences_are_read(dataset: Dataset) -> None:
    assert sequences_of(dataset) == SEQUENCES


def test_interactions_have_their_columns_and_order(case: Case, dataset: Dataset) -> None:
    table = dataset.interactions
    assert table.columns == [*c.INTERACTION_COLUMNS, *case.interactions]
    assert table.select(c.INTERACTION_COLUMNS).schema == {
        c.USER_ID: pl.String,
        c.ITEM_ID: pl.String,
        c.TIMESTAMP: pl.Int64,
        c.RATING: pl.Float32,
        c.SPLIT: pl.String,
    }
    assert table[c.USER_ID].rle().len() == table[c.USER_ID].n_unique()
    if not case.timed:
        assert dataset.sequences.timestamps is None
        assert table[c.RATING].null_count() == len(table)
        return
    expected = [
        1000 * seconds(user, i) for user, items in sequences_of(dataset).items() for i in range(len(items))
    ]
    assert table[c.TIMESTAMP].to_list() == expected
    assert table[c.RATING].to_list() == [4.5] * len(table)


def test_further_columns_travel_along(case: Case, dataset: Dataset, tmp_path: Path) -> None:
    for name, value in case.items.items():
        assert dataset.items[name].to_list() == [value] * len(dataset.items)
    rule = FilterRule(user_k_core=3, duplicates="keep-last", max_history=2)
    kept = apply_filters(dataset, rule).with_split(SplitRule("leave-last-out"))
    kept.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved")
    assert again.interactions.columns == [*c.INTERACTION_COLUMNS, *case.interactions]
    assert again.items.columns == dataset.items.columns
    for name, value in case.interactions.items():
        assert again.interactions[name].to_list() == [value] * len(again.interactions)


def test_categories_are_paths_or_tags_by_choice(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    tagged = read(case.format, tmp_path, categories_are="tags").items
    assert tagged[c.TAGS].to_list() == [case.categories] * len(TITLES)
    assert not tagged[c.CATEGORIES].list.len().sum()
    paths = read(case.format, tmp_path, categories_are="path").items
    assert paths[c.CATEGORIES].to_list() == [case.categories] * len(TITLES)
    assert c.TAGS not in paths.columns
    with pytest.raises(ConfigError, match="categories_are"):
        read(case.format, tmp_path, categories_are="trees")


def test_save_and_load(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved")
    assert again.items.equals(dataset.items)
    assert again.interactions.equals(dataset.interactions)
    assert (again.name, again.rule, again.notes) == (dataset.name, dataset.rule, dataset.notes)
    assert np.array_equal(again.sequences.items, dataset.sequences.items)


def test_the_format_is_recognised(case: Case, dataset: Dataset, tmp_path: Path) -> None:
    assert detect_format(tmp_path) == case.format
    assert read("auto", tmp_path).notes["read"]["format"] == case.format


def test_a_url_is_read_like_a_folder(case: Case, dataset: Dataset, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    memory.put(str(tmp_path), root, recursive=True)
    try:
        remote = read("auto", f"memory:/{root}")
    finally:
        memory.rm(root, recursive=True)
    assert remote.items.equals(dataset.items)
    assert remote.interactions.equals(dataset.interactions)


def test_windows_line_ends_and_byte_order_marks_change_nothing(
    case: Case, dataset: Dataset, tmp_path: Path
) -> None:
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix not in (".gz", ".parquet", ".pickle"):
            path.write_bytes(
                b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            )
    again = read(case.format, tmp_path)
    assert again.items.equals(dataset.items)
    assert again.interactions.equals(dataset.interactions)


def test_what_was_read_is_noted(dataset: Dataset) -> None:
    notes = dataset.notes["read"]
    assert notes["on_bad_row"] == "error"
    assert notes["dropped"] == {}
    assert len(TITLES) in notes["files"].values()


@pytest.mark.parametrize(("case", "fault"), faults(gaps=False))
def test_a_bad_row_is_an_error_that_names_it(case: Case, fault: Fault, tmp_path: Path) -> None:
    case.write(tmp_path)
    fault.break_it(tmp_path)
    with pytest.raises(DataError) as caught:
        read(case.format, tmp_path, **fault.options)
    assert not [word for word in fault.says if word not in caught.value.message], caught.value.message
    assert "on_bad_row" in caught.value.remedy


@pytest.mark.parametrize(("case", "fault"), faults(gaps=False))
def test_a_bad_row_is_dropped_and_counted(case: Case, fault: Fault, tmp_path: Path) -> None:
    case.write(tmp_path)
    fault.break_it(tmp_path)
    dataset = read(case.format, tmp_path, on_bad_row="drop", **fault.options)
    assert sequences_of(dataset) == fault.left
    notes = dataset.notes["read"]
    assert notes["dropped"] == {fault.kind: 1}
    assert all(any(word in example for example in notes["examples"]) for word in fault.says)


@pytest.mark.parametrize(("case", "fault"), faults(gaps=True))
class TestMissingText:
    def test_error_names_the_first_item(self, case: Case, fault: Fault, tmp_path: Path) -> None:
        case.write(tmp_path)
        fault.break_it(tmp_path)
        with pytest.raises(DataError) as caught:
            read(case.format, tmp_path, missing_text="error", **fault.options)
        assert not [word for word in fault.says if word not in caught.value.message], caught.value.message
        assert "missing_text" in caught.value.remedy

    def test_drop_takes_items_and_interactions(self, case: Case, fault: Fault, tmp_path: Path) -> None:
        case.write(tmp_path)
        fault.break_it(tmp_path)
        dataset = read(case.format, tmp_path, missing_text="drop", on_bad_row="drop", **fault.options)
        left = {user: [item for item in items if item != "4"] for user, items in fault.left.items()}
        assert sequences_of(dataset) == left
        assert (dataset.items[c.TITLE] != "").all()

    def test_keep_leaves_them_known_by_id(self, case: Case, fault: Fault, tmp_path: Path) -> None:
        case.write(tmp_path)
        fault.break_it(tmp_path)
        dataset = read(case.format, tmp_path, on_bad_row="drop", **fault.options)
        lost = "99" if fault.kind == "unknown item" else "3"
        row = dataset.items.row(by_predicate=pl.col(c.ITEM_ID) == lost, named=True)
        assert row[c.TITLE] == ""
        assert sum(dataset.items.select(c.ITEM_COLUMNS).null_count().row(0)) == 0
        notes = dataset.notes["read"]["missing_text"]
        assert (notes["unlisted"], notes["untitled"]) == ((1, 1) if lost == "99" else (0, 2))
        events = [item for items in sequences_of(dataset).values() for item in items]
        assert events.count(lost) == (1 if lost == "99" else 2)
        assert notes["interactions"] == events.count(lost) + events.count("4")


def test_metadata_of_another_catalogue_are_refused(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    renumber(tmp_path)
    with pytest.raises(DataError, match="knows none of the 4 items"):
        read(case.format, tmp_path)


def test_a_good_source_reads_the_same_under_drop(case: Case, dataset: Dataset, tmp_path: Path) -> None:
    again = read(case.format, tmp_path, on_bad_row="drop")
    assert again.interactions.equals(dataset.interactions)
    assert again.notes["read"]["dropped"] == {}


def test_a_source_of_which_nothing_is_left_is_an_error(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    renumber(tmp_path)
    with pytest.raises(DataError, match="no interactions are left"):
        read(case.format, tmp_path, missing_text="drop")


def renumber(folder: Path) -> None:
    """Give every item of the catalogue another id, so that all interactions name unknown ones."""
    from .sources import read_text, write_text

    changes: dict[str, Callable[[str], str]] = {
        "json": lambda text: text.replace('": {', 'x": {'),
        "table": lambda text: "\n".join(
            line if line[:1] not in tuple("1234") else f"x{line}" for line in text.split("\n")
        ),
        "dump": lambda text: text.replace("asin': '", "asin': 'x").replace('asin": "', 'asin": "x'),
    }
    for path in folder.rglob("*"):
        if path.name == "items.parquet":
            pl.read_parquet(path).with_columns(pl.format("x{}", c.ITEM_ID).alias(c.ITEM_ID)).write_parquet(
                path
            )
        elif path.name == "items.jsonl":
            write_text(path, read_text(path).replace('"id": "', '"id": "x'))
        elif path.name.startswith("meta_"):
            write_text(path, changes["dump"](read_text(path)))
        elif path.name.startswith(("movies", "tiny.item", "items.csv")):
            write_text(path, changes["table"](read_text(path, "latin-1")), "latin-1")
        elif path.name == "meta.pickle":
            edit_pickle(path.name, _with_other_keys)(folder)
        elif path.name.endswith((".item.json", ".pretrain.json", "meta.json")):
            write_text(path, changes["json"](read_text(path)))


def _with_other_keys(content: dict[Any, Any]) -> None:
    for key in list(content):
        content[f"x{key}"] = content.pop(key)


def test_unknown_options_and_policies_are_refused(case: Case, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="colour"):
        read(case.format, tmp_path, colour="red")
    with pytest.raises(ConfigError, match="on_bad_row"):
        read(case.format, tmp_path, on_bad_row="ignore")
    with pytest.raises(ConfigError, match="missing_text"):
        read(case.format, tmp_path, missing_text="ignore")


def test_a_missing_folder_file_or_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        read("letter", tmp_path / "nowhere")
    with pytest.raises(DataError, match="no files"):
        read("letter", tmp_path)
    (tmp_path / "readme.txt").write_text("hello\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="parquet-of-mine"):
        read("parquet-of-mine", tmp_path)
    with pytest.raises(DataError, match=r"inter\.json"):
        read("letter", tmp_path)
    with pytest.raises(DataError, match=r"looked for .*onerec-think.*openonerec.*recbole"):
        detect_format(tmp_path)


def test_two_formats_in_one_folder_are_ambiguous(tmp_path: Path) -> None:
    CASES["onerec-think"].write(tmp_path)
    CASES["letter"].write(tmp_path)
    with pytest.raises(DataError, match="onerec-think or letter"):
        detect_format(tmp_path)
    assert sequences_of(read("letter", tmp_path)) == SEQUENCES


REAL: list[tuple[str, str, dict[str, Any]]] = [
    (
        "onerec-think",
        "beauty",
        {"users": 22_363, "items": 12_101, "used": 12_101, "events": 194_687, "untitled": 7},
    ),
    (
        "letter",
        "beauty",
        {"users": 22_363, "items": 12_101, "used": 12_101, "events": 198_502, "untitled": 7},
    ),
    (
        "letter",
        "scientific",
        {"users": 8_317, "items": 4_344, "used": 4_344, "events": 58_492, "untitled": 0},
    ),
    (
        "movielens",
        "ml-latest-small",
        {"users": 610, "items": 9_742, "used": 9_724, "events": 100_836, "untitled": 0},
    ),
    ("amazon-2018", "amazon18", {"users": 458, "items": 1_547, "used": 148, "events": 2_972, "untitled": 0}),
    (
        "minionerec",
        "minionerec",
        {"users": 3_285, "items": 3_686, "used": 3_541, "events": 22_743, "untitled": 0},
    ),
]


@pytest.mark.parametrize(
    ("format", "folder", "counts"), REAL, ids=[f"{name}, {folder}" for name, folder, _ in REAL]
)
def test_real_files_have_their_published_counts(
    format: str, folder: str, counts: dict[str, int], shared: Path
) -> None:
    dataset = read(format, shared / folder)
    assert {
        "users": len(dataset.sequences),
        "items": len(dataset.items),
        "used": dataset.interactions[c.ITEM_ID].n_unique(),
        "events": len(dataset.interactions),
        "untitled": dataset.notes["read"]["missing_text"]["untitled"],
    } == counts
    assert dataset.interactions[c.USER_ID].rle().len() == counts["users"]
    times = dataset.sequences.timestamps
    if times is not None:
        falling = np.flatnonzero(np.diff(times) < 0) + 1
        assert np.isin(falling, dataset.sequences.offsets).all()
    assert not dataset.items[c.TITLE].str.contains(r"&(amp|quot|#39|lt|gt);").any()

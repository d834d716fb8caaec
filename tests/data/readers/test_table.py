"""Anybody's tables: every kind of file, every way to write a value, and what is told of it."""

from __future__ import annotations

import csv
import gzip
import io
import logging
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.cli.app import call
from itemic.data import Dataset, detect_format, read
from itemic.errors import ConfigError, DataError
from tests.cases import case

EVENTS = {
    "user": ["007", "7", "007"],
    "item": ["b", "a", "c"],
    "time": [1_600_000_000, 1_600_000_001, 1_600_000_002],
}
ITEMS = {"item": ["a", "b", "c"], "name": ["A, with comma", 'B "quoted"', "C"], "price": [0.5, 1200.25, None]}


def told(dataset: Dataset) -> str:
    return "\n".join(dataset.notes["read"]["told"])


def events_of(dataset: Dataset) -> list[tuple[Any, ...]]:
    return dataset.interactions.select(c.USER_ID, c.ITEM_ID, c.TIMESTAMP).rows()


EXPECTED = [("007", "b", 1_600_000_000_000), ("007", "c", 1_600_000_002_000), ("7", "a", 1_600_000_001_000)]


def write_parquet(folder: Path, frame: pl.DataFrame, name: str) -> None:
    frame.write_parquet(folder / f"{name}.parquet")


def write_arrow(folder: Path, frame: pl.DataFrame, name: str) -> None:
    frame.write_ipc(folder / f"{name}.feather")


def write_stream(folder: Path, frame: pl.DataFrame, name: str) -> None:
    with pyarrow.ipc.new_stream(str(folder / f"{name}.arrow"), frame.to_arrow().schema) as stream:
        stream.write_table(frame.to_arrow(), max_chunksize=2)


def write_lines(folder: Path, frame: pl.DataFrame, name: str) -> None:
    frame.write_ndjson(folder / f"{name}.ndjson")


def write_gzip(folder: Path, frame: pl.DataFrame, name: str) -> None:
    (folder / f"{name}.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))


def write_zstd(folder: Path, frame: pl.DataFrame, name: str) -> None:
    raw = frame.write_csv(separator="\t").encode()
    (folder / f"{name}.tsv.zst").write_bytes(pyarrow.compress(raw, codec="zstd", asbytes=True))


def write_parts(folder: Path, frame: pl.DataFrame, name: str) -> None:
    for i in range(len(frame)):
        frame[i : i + 1].write_csv(folder / f"{name}-{i:05d}.csv", separator="|")


def write_spaces(folder: Path, frame: pl.DataFrame, name: str) -> None:
    (folder / f"{name}.txt").write_text(
        frame.write_csv(separator=" ", quote_style="non_numeric"), encoding="utf-8"
    )


WRITERS = [
    write_parquet,
    write_arrow,
    write_stream,
    write_lines,
    write_gzip,
    write_zstd,
    write_parts,
    write_spaces,
]


@pytest.mark.parametrize("write", WRITERS)
def test_every_kind_of_file_is_read_alike(write: Any, tmp_path: Path) -> None:
    write(tmp_path, pl.DataFrame(EVENTS), "events")
    write(tmp_path, pl.DataFrame(ITEMS), "products")
    assert detect_format(tmp_path) == "table"
    dataset = read("table", tmp_path)
    assert events_of(dataset) == EXPECTED
    assert dataset.items[c.TITLE].to_list() == ITEMS["name"]
    assert dataset.items[c.PRICE].to_list() == ITEMS["price"]
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), f"/{tmp_path.name}", recursive=True)
    assert events_of(read("auto", f"memory://{tmp_path.name}")) == EXPECTED


def test_a_file_or_a_pattern_and_items_beside_it(tmp_path: Path) -> None:
    write_parts(tmp_path, pl.DataFrame(EVENTS), "x")
    pl.DataFrame(ITEMS).write_csv(tmp_path / "y.csv")
    dataset = read("table", tmp_path / "x-*.csv", items="y.csv")
    assert events_of(dataset) == EXPECTED
    assert dataset.items[c.TITLE][0] == "A, with comma"
    alone = read("table", tmp_path / "x-00000.csv")
    assert alone.items.select(c.ITEM_ID, c.TITLE).rows() == [("b", "")]
    assert alone.name == "x-00000"
    assert events_of(read("table", tmp_path, interactions="x-*.csv", items=False)) == EXPECTED


class TestRealInputs:
    def test_own_csv(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "itemic"):
            dataset = read("auto", case("own-csv"))
        assert dataset.sequences.users[:2].tolist() == ["000", "001"]
        assert dataset.items.row(0, named=True) == {
            c.ITEM_ID: "00",
            c.TITLE: "Kettle; no. 0",
            c.DESCRIPTION: "",
            c.BRAND: "",
            c.CATEGORIES: [],
            c.TAGS: ["kitchen", "steel"],
            c.PRICE: 0.99,
        }
        assert dataset.interactions[c.TIMESTAMP][0] == 1_704_103_200_000  # 2024-01-01T10:00:00Z
        for words in (
            "parted at ';'",
            "user = session",
            "item = product",
            "timestamp = when",
            "title = name",
        ):
            assert words in told(dataset)
            assert words in caplog.text
        assert "decimal mark of price is a comma" in told(dataset)

    def test_shop(self) -> None:
        dataset = read("auto", case("shop"))
        raw = pl.read_csv(case("shop") / "interactions.csv")
        assert len(dataset.interactions) == len(raw)
        assert set(events_of(dataset)) == {(user, item, 1000 * time) for user, item, time in raw.rows()}
        assert dataset.items[c.PRICE].to_list() == pl.read_csv(case("shop") / "items.csv")["price"].to_list()

    def test_times_in_milliseconds(self) -> None:
        dataset = read("table", case("milliseconds") / "shop.inter", items="shop.item")
        assert "times are in milliseconds" in told(dataset)
        assert dataset.interactions[c.TIMESTAMP].is_between(1_600_000_000_000, 1_620_000_000_000).all()
        assert dataset.items[c.TITLE][0] == "Red Mug"


ODD = st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=6)
IDS = ODD.map(str.strip).filter(bool)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    rows=st.lists(st.tuples(IDS, IDS, ODD), min_size=1, max_size=5),
    separator=st.sampled_from(",;\t| "),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_python_writes_is_read(
    rows: list[tuple[str, str, str]], separator: str, end: str, tmp_path: Path
) -> None:
    """Separators, quotes and line ends inside of fields come back as csv.writer put them there."""
    events = [(user, item, f"p{page}") for user, item, page in rows]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([("user_id", "item_id", "page"), *events])
    (tmp_path / "clicks.csv").write_bytes(text.getvalue().encode())
    found = read("table", tmp_path / "clicks.csv").interactions
    users = dict.fromkeys(user for user, *_ in events)
    expected = [event for user in users for event in events if event[0] == user]
    assert found.select(c.USER_ID, c.ITEM_ID, "page").rows() == expected


class TestValues:
    def read(self, folder: Path, text: str, **options: Any) -> Dataset:
        (folder / "events.csv").write_text(text, encoding=options.get("encoding", "utf-8"))
        return read("table", folder / "events.csv", **options)

    def test_ids_stay_what_they_are(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"user": [7, 8, None], "item": [1.0, 2.0, float("nan")]})
        frame.write_parquet(tmp_path / "events.parquet")
        with pytest.raises(DataError, match=r"events\.parquet, line 3: user is empty"):
            read("table", tmp_path)
        dataset = read("table", tmp_path, on_bad_row="drop")
        assert dataset.interactions.select(c.USER_ID, c.ITEM_ID).rows() == [("7", "1"), ("8", "2")]
        pl.DataFrame({"user": [7], "item": [1.5]}).write_parquet(tmp_path / "events.parquet")
        with pytest.raises(DataError, match=r"item is 1\.5, which is no id"):
            read("table", tmp_path)

    def test_further_columns_keep_their_names_and_get_types(self, tmp_path: Path) -> None:
        text = "user;item;qty;weight;zip;page\na;x;1;0,5;01067;p\na;y;2;1;99;\n"
        found = self.read(tmp_path, text).interactions.select("qty", "weight", "zip", "page")
        assert found.schema == {"qty": pl.Int64, "weight": pl.Float64, "zip": pl.String, "page": pl.String}
        assert found.rows() == [(1, 0.5, "01067", "p"), (2, 1.0, "99", None)]

    def test_a_column_without_any_value_is_left_out(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, "user,item,page,note\na,x,p,\na,y,,\n").interactions
        assert found.columns == [*c.INTERACTION_COLUMNS, "page"]

    def test_without_times_the_order_of_rows_counts(self, tmp_path: Path) -> None:
        dataset = self.read(tmp_path, "user,item\na,y\nb,x\na,x\n")
        assert dataset.sequences.timestamps is None
        assert dataset.interactions[c.ITEM_ID].to_list() == ["y", "x", "x"]
        assert "order of rows is the order of time" in told(dataset)
        same = self.read(tmp_path, "user,item,time\na,y,2\nb,x,1\na,x,1\n", timestamp=False)
        assert same.interactions[c.ITEM_ID].to_list() == ["y", "x", "x"]

    def test_a_file_without_header(self, tmp_path: Path) -> None:
        text = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n"
        with pytest.raises(DataError, match="no header") as caught:
            self.read(tmp_path, text)
        assert "columns" in caught.value.remedy
        dataset = self.read(tmp_path, text, columns=["user", "item", "rating", "timestamp"])
        assert events_of(dataset)[0] == ("196", "242", 881_250_949_000)

    def test_one_flat_table_tells_its_items(self, tmp_path: Path) -> None:
        text = "customer,sku,product_name,price,note\na,x,,1,n\na,y,Why,2,\nb,x,Ex &amp; Co,3,\nb,y,Wye,4,\n"
        dataset = self.read(tmp_path, text)
        assert dataset.items.select(c.ITEM_ID, c.TITLE).rows() == [("x", "Ex & Co"), ("y", "Why")]
        assert dataset.interactions.columns == [*c.INTERACTION_COLUMNS, "price", "note"]
        assert "items are told by the same rows" in told(dataset)
        named = self.read(tmp_path, text, title="note", price="price").items
        assert named.select(c.TITLE, c.PRICE).rows() == [("n", 1.0), ("", 2.0)]
        with pytest.raises(ConfigError, match="lacks the column 'titel'"):
            self.read(tmp_path, text, title="titel")

    def test_encodings(self, tmp_path: Path) -> None:
        text = "user;item;Größe\na;Crème;1\n"
        assert self.read(tmp_path, text, encoding="cp1252").interactions.row(0, named=True)["Größe"] == 1
        assert self.read(tmp_path, text, encoding="utf-16").interactions[c.ITEM_ID][0] == "Crème"
        (tmp_path / "events.csv").write_text(text, encoding="cp1252")
        with pytest.raises(DataError, match="is not utf-8") as caught:
            read("table", tmp_path / "events.csv")
        assert "encoding" in caught.value.remedy

    @pytest.mark.parametrize(
        ("separator", "written", "price"),
        [
            (",", "$1299.50", 1299.5),
            (";", "1.299,50 €", 1299.5),
            (";", "1,299.50", 1299.5),
            (",", "free", None),
            ("\t", "12", 12.0),
        ],
    )
    def test_prices(self, separator: str, written: str, price: float | None, tmp_path: Path) -> None:
        (tmp_path / "clicks.csv").write_text(f"user{separator}item\nu{separator}a\n", encoding="utf-8")
        (tmp_path / "items.csv").write_text(
            f"item{separator}price\na{separator}{written}\n", encoding="utf-8"
        )
        dataset = read("table", tmp_path)
        assert dataset.items.get_column(c.PRICE, default=pl.Series([None])).to_list() == [price]
        assert ("1 prices can't be read" in told(dataset)) == (price is None)

    def test_paths_and_tags_are_two_things(self, tmp_path: Path) -> None:
        (tmp_path / "clicks.csv").write_text("user,item\nu,a\n", encoding="utf-8")
        text = (
            "item,category,genres,brand\na,Home > Kitchen & Co,Action|Comedy|Action,Unknown\nb,,,B &amp; C\n"
        )
        (tmp_path / "items.csv").write_text(text, encoding="utf-8")
        items = read("table", tmp_path).items
        assert items[c.CATEGORIES].to_list() == [["Home", "Kitchen & Co"], []]
        assert items[c.TAGS].to_list() == [["Action", "Comedy"], []]
        assert items[c.BRAND].to_list() == ["", "B & C"]
        other = read("table", tmp_path, categories=False, tags="category", tag_separator=">").items
        assert other[c.TAGS].to_list() == [["Home", "Kitchen & Co"], []]
        assert other["genres"].to_list() == ["Action|Comedy|Action", None]

    def test_a_quote_that_is_never_closed(self, tmp_path: Path) -> None:
        text = 'user\titem\tsize\nu\ta\t5" tube\nu\tb\t"6 tube\nu\tc\t7\n'
        assert len(self.read(tmp_path, text, quoted=False).interactions) == 3


class TestFaults:
    def test_columns_that_fit_equally_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "events.csv").write_text("uid,user,item\n1,2,3\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"events\.csv .* the user: uid, user") as caught:
            read("table", tmp_path)
        assert "option user" in caught.value.remedy
        assert read("table", tmp_path, user="uid").interactions[c.USER_ID].to_list() == ["1"]
        with pytest.raises(ConfigError, match=r"lacks the column 'who' .* it has uid, user, item"):
            read("table", tmp_path / "events.csv", user="who")

    def test_files_that_fit_equally_are_named(self, tmp_path: Path) -> None:
        for name in ("clicks", "orders"):
            (tmp_path / f"{name}.csv").write_text("user,item\n1,2\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"clicks\.csv, .*orders\.csv") as caught:
            read("table", tmp_path)
        assert "option interactions" in caught.value.remedy
        assert read("table", tmp_path, interactions="orders.csv").notes["read"]["format"] == "table"

    def test_a_folder_without_interactions_shows_what_it_has(self, tmp_path: Path) -> None:
        (tmp_path / "people.csv").write_text("who,age\n1,2\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"people\.csv \(who, age\)"):
            read("table", tmp_path)

    def test_times_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "events.csv").write_text("user,item,when\n1,2,1601466248000\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"events\.csv: when is .* in s") as caught:
            read("table", tmp_path, unit="s")
        assert "unit: ms" in caught.value.remedy

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        write_parquet(tmp_path, pl.DataFrame(EVENTS), "events")
        raw = (tmp_path / "events.parquet").read_bytes()
        (tmp_path / "events.parquet").write_bytes(raw[: len(raw) // 2])
        with pytest.raises(DataError, match=r"events\.parquet is damaged"):
            read("table", tmp_path / "events.parquet")
        (tmp_path / "events.csv.gz").write_bytes(gzip.compress(b"user,item\n" + b"1,2\n" * 9999)[:-20])
        with pytest.raises(DataError, match=r"events\.csv\.gz .*"):
            read("table", tmp_path / "events.csv.gz")

    def test_types_that_do_not_fit_together(self, tmp_path: Path) -> None:
        (tmp_path / "e1.jsonl").write_text('{"user": 1, "item": 2, "page": [1]}\n', encoding="utf-8")
        (tmp_path / "e2.jsonl").write_text('{"user": 1, "item": "x", "page": {"a": 1}}\n', encoding="utf-8")
        with pytest.raises(DataError, match="types that don't fit together"):
            read("table", tmp_path)

    def test_empty_files(self, tmp_path: Path) -> None:
        for text, message in (
            ("", "it has none"),
            ("user,item", "no interactions"),
            ("user,item\n", "no interactions"),
        ):
            (tmp_path / "e.csv").write_text(text, encoding="utf-8")
            with pytest.raises(DataError, match=message):
                read("table", tmp_path / "e.csv")

    def test_parts_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "e1.csv").write_text("user,item\n1,2\n", encoding="utf-8")
        (tmp_path / "e2.csv").write_text("user,thing\n1,2\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"e2\.csv lacks the column 'item'"):
            read("table", tmp_path / "e*.csv")


class TestImport:
    def test_urls_and_patterns(self, tmp_path: Path) -> None:
        memory = fsspec.filesystem("memory")
        memory.put(str(case("own-csv")), f"/{tmp_path.name}", recursive=True)
        assert call(["data", "import", f"memory://{tmp_path.name}", "-o", str(tmp_path / "a")]) == 0
        pattern = str(case("own-csv") / "click*.csv")
        assert call(["data", "import", pattern, "-o", str(tmp_path / "b"), "-s", "items=products.csv"]) == 0
        first, second = (Dataset.load(tmp_path / name) for name in "ab")
        assert first.interactions.equals(second.interactions)
        assert first.items.equals(second.items)

    def test_a_read_that_fails_leaves_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(["data", "import", str(case("own-csv")), "-o", str(tmp_path / "a"), "-s", "unit=ms"]) == 2
        assert "set unit: iso" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

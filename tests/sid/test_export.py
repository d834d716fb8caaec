from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.data import read
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.sid.export import EXPORTS, convert, export_index
from itemic.sid.format import TOKEN_FORMATS
from itemic.sid.index import ItemIndex
from itemic.sid.published import import_index
from tests.sid.helpers import make_dataset, make_index

SIZES = (300, 2, 5)
CODES = [[299, 0, 4], [0, 1, 0], [7, 1, 3], [0, 1, 0]]
DATA = make_dataset(
    ["Cup", "Plate “fine”", "", "Fork"],
    ids=["10", "7", "007", "x y"],
    descriptions=["a < b", "", "päper", ""],
    categories=[["Home", "Kitchen"], ["Home"], [], ["Home", "Arts, Crafts"]],
)


def index_of(data: object = DATA, form: str = "onerec") -> ItemIndex:
    return ItemIndex(DATA.item_ids, np.array(CODES, np.int32), SIZES, form, {"seed": 3})


@pytest.mark.parametrize("form", TOKEN_FORMATS)
@pytest.mark.parametrize("name", EXPORTS)
def test_what_was_exported_comes_back(name: str, form: str, tmp_path: Path) -> None:
    index = index_of(form=form)
    file = tmp_path / ("out.parquet" if name == "openonerec" else "out.json")
    file.write_text("an older file")
    export_index(index, file, name, DATA)
    again = import_index(DATA, file, format=form, sizes=SIZES)
    assert again.digest == index.digest
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


codes_of = st.integers(1, 3).flatmap(
    lambda levels: st.lists(st.lists(st.integers(0, 40), min_size=levels, max_size=levels), min_size=1)
)


@settings(max_examples=40, deadline=None)
@given(codes=codes_of, names=st.sampled_from(["item{}", "{}", "0{}", "-{}", "{}.0"]))
def test_any_codes_and_ids_come_back(
    codes: list[list[int]], names: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("exports")
    ids = [names.format(row) for row in range(len(codes))]
    data = make_dataset(ids, ids=ids)
    index = ItemIndex(ids, np.array(codes, np.int32), (41,) * len(codes[0]))
    for name in EXPORTS:
        file = folder / ("out.parquet" if name == "openonerec" else "out.json")
        export_index(index, file, name, data)
        assert import_index(data, file, sizes=index.sizes).digest == index.digest


def test_conversion_keeps_the_codes_and_changes_the_digest() -> None:
    index = index_of()
    for form in TOKEN_FORMATS:
        other = convert(index, form)
        assert other.codes.tolist() == CODES
        assert (other.item_ids, other.sizes, other.origin) == (index.item_ids, SIZES, {"seed": 3})
        assert (other.digest == index.digest) == (form == "onerec")
        assert convert(other, "onerec").digest == index.digest
        parsed = other.parse(other.text(0))
        assert parsed is not None
        assert parsed.tolist() == CODES[0]
    with pytest.raises(ConfigError, match="unknown token format 'nope'"):
        convert(index, "nope")


def test_files_are_as_the_systems_write_them(tmp_path: Path) -> None:
    export_index(index_of(form="offset"), tmp_path / "a.json", "letter")
    assert (tmp_path / "a.json").read_text().startswith('{"10": ["<a_299>", "<b_0>", "<c_4>"], "7": [')
    export_index(index_of(), tmp_path / "b.json", "onerec-think", DATA)
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))["x y"] == {
        "title": "Fork",
        "description": "",
        "categories": "Home > Arts, Crafts",
        "sid": "<|sid_begin|><s_a_0><s_b_1><s_c_0><|sid_end|>",
    }
    export_index(index_of(), tmp_path / "c.parquet", "openonerec")
    table = pl.read_parquet(tmp_path / "c.parquet")
    assert table.schema == {"pid": pl.String, "sid": pl.List(pl.Int64)}
    assert table.row(0) == ("10", [299, 0, 4])
    plain = make_index([[1], [2]], (3,))
    numbered = ItemIndex(["5", "12"], plain.codes, plain.sizes)
    export_index(numbered, tmp_path / "d.parquet", "openonerec")
    assert pl.read_parquet(tmp_path / "d.parquet").rows() == [(5, [1]), (12, [2])]


@pytest.mark.parametrize(
    "name",
    [
        "scientific/index/rkmeans_native.index.json",
        "scientific/index/rqvae_native.index.json",
        "scientific/index/rkmeans_zcr.index.json",
        "beauty/index/rkmeans_native.index.json",
        "minionerec/index/Industrial_and_Scientific.index.json",
    ],
)
def test_published_indexes_come_out_byte_for_byte(shared: Path, name: str, tmp_path: Path) -> None:
    ids = list(json.loads((shared / name).read_text(encoding="utf-8")))
    index = import_index(make_dataset(ids, ids=ids), shared / name)
    export_index(index, tmp_path / "out.json", "letter")
    assert (tmp_path / "out.json").read_bytes() == (shared / name).read_bytes()


def test_the_published_inline_texts_come_out_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    """All but the texts that reading has cleaned, which are put back here."""
    file = shared / "beauty" / "Beauty.pretrain.json"
    data = read("onerec-think", shared / "beauty")
    export_index(import_index(data, file), tmp_path / "out.json", "onerec-think", data)
    ours = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    theirs = json.loads(file.read_text(encoding="utf-8"))
    assert [record["categories"] for record in ours.values()] == [r["categories"] for r in theirs.values()]
    same = sum(ours[item] == theirs[item] for item in theirs)
    assert same > 0.9 * len(theirs)
    raw = data.items.with_columns(
        pl.Series("title", [record["title"] for record in theirs.values()]),
        pl.Series("description", [record["description"] for record in theirs.values()]),
    )
    export_index(
        import_index(data, file),
        tmp_path / "out.json",
        "onerec-think",
        type(data)(raw, data.interactions, data.name, data.rule),
    )
    assert (tmp_path / "out.json").read_bytes() == file.read_bytes()


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    index, file = index_of(), tmp_path / "out.json"
    with pytest.raises(ConfigError, match="unknown export 'nope'"):
        export_index(index, file, "nope")
    with pytest.raises(ConfigError, match="titles, descriptions"):
        export_index(index, file, "onerec-think")
    with pytest.raises(IndexMismatchError, match="does not fit"):
        export_index(index, file, "letter", make_dataset(["a"]))
    assert not list(tmp_path.iterdir())


def write(folder: Path, pids: object, sids: object) -> Path:
    pl.DataFrame({"pid": pids, "sid": sids}).write_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def test_tables_of_any_integer_type_and_order(tmp_path: Path) -> None:
    data = make_dataset(["a", "b"], ids=["3", "1"])
    sids = pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int32, 2))
    index = import_index(data, write(tmp_path, [1, 3], sids), format="minionerec")
    assert index.texts == ["<a_3><b_4>", "<a_1><b_2>"]
    more = write(tmp_path, [1, 2, 3], [[1], [1], [2]])
    with pytest.raises(IndexMismatchError, match="names 1 items that 'small' doesn't have: '2'"):
        import_index(data, more)
    assert import_index(data, more, unknown="drop").codes.tolist() == [[2], [1]]
    with pytest.raises(IndexMismatchError, match="no semantic ID for 1 items"):
        import_index(data, write(tmp_path, [3], [[1]]))


@pytest.mark.parametrize(
    ("pids", "sids", "fault"),
    [
        ([3, 1, 3], [[1], [2], [1]], "item '3' comes twice"),
        ([3, 1], [[1, 2], [2]], r"item '1' has the codes \[2\], not 2"),
        ([3, 1], [[1, 2], None], "item '1' has the codes None, not 2"),
        ([3, 1], [[1, 2], [None, 1]], r"item '1' has the codes \[None, 1\]"),
        ([3, 1], [[1, 2], [-1, 1]], r"item '1' has the codes \[-1, 1\], below 0"),
        ([3, 1], [[], []], "item '3' has 0 codes"),
        ([3, 1], ["a", "b"], "can't be read as a table"),
    ],
)
def test_broken_tables_name_the_item(pids: object, sids: object, fault: str, tmp_path: Path) -> None:
    data = make_dataset(["a", "b"], ids=["3", "1"])
    with pytest.raises(DataError, match=fault):
        import_index(data, write(tmp_path, pids, sids))


def test_tables_with_other_columns_or_sizes(tmp_path: Path) -> None:
    data = make_dataset(["a", "b"], ids=["3", "1"])
    file = write(tmp_path, [3, 1], [[1, 2], [2, 0]])
    with pytest.raises(DataError, match=r"item '1' has the codes \[2, 0\], not below \[2, 4\]"):
        import_index(data, file, sizes=(2, 4))
    with pytest.raises(DataError, match=r"item '3' has the codes \[1, 2\], not 3"):
        import_index(data, file, sizes=(4, 4, 4))
    pl.DataFrame({"pid": [1]}).write_parquet(file)
    with pytest.raises(DataError, match="'pid' and 'sid'"):
        import_index(data, file)

"""Vectors from files: both formats give the same, and every fault names file and item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic.errors import ConfigError, DataError
from itemic.sid.encoders.npy import write_npy
from itemic.sid.encoders.precomputed import PrecomputedEncoder
from tests.sid.helpers import make_dataset

ITEMS = make_dataset(["a", "b", "c"], ids=["x", "y", "z"]).items
NEW = make_dataset(["d"], ids=["new"]).items
VECTORS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def npy(folder: Path, array: Any) -> str:
    np.save(folder / "vectors.npy", array)
    return str(folder / "vectors.npy")


def parquet(folder: Path, rows: dict[str, Any], **names: str) -> str:
    table = pl.DataFrame({"item_id": list(rows), "vector": list(rows.values())}, strict=False)
    table.rename(names).write_parquet(folder / "vectors.parquet")
    return str(folder / "vectors.parquet")


GOOD: dict[str, Any] = {"z": [5.0, 6.0], "x": [1.0, 2.0], "y": [3.0, 4.0]}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_npy_rows_are_in_the_order_of_the_catalogue(tmp_path: Path, dtype: str) -> None:
    encoder = PrecomputedEncoder(path=npy(tmp_path, VECTORS.astype(dtype)))
    vectors = encoder.fit_transform(ITEMS)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == VECTORS.tolist()
    assert encoder.transform(ITEMS.reverse()).tolist() == VECTORS[::-1].tolist()
    with pytest.raises(
        ConfigError, match=r"vectors\.npy has rows without ids, so none for item 'new'"
    ) as caught:
        encoder.transform(NEW)
    assert "Parquet" in caught.value.remedy


@pytest.mark.parametrize("dtype", [pl.List(pl.Float64), pl.Array(pl.Float32, 2), pl.List(pl.Int16)])
def test_parquet_goes_by_item_id(tmp_path: Path, dtype: Any) -> None:
    table = pl.DataFrame({"item_id": list(GOOD), "vector": list(GOOD.values())})
    table.with_columns(pl.col("vector").cast(pl.List(pl.Float64)).cast(dtype)).write_parquet(
        tmp_path / "v.parquet"
    )
    vectors = PrecomputedEncoder(path=str(tmp_path / "v.parquet")).fit_transform(ITEMS)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == VECTORS.tolist()


def test_a_folder_of_parts_numbers_as_ids_and_other_names(tmp_path: Path) -> None:
    for row in range(3):
        part = pl.DataFrame({"asin": [row], "emb": [VECTORS[row].tolist()], "more": ["x"]})
        part.write_parquet(tmp_path / f"{row}.parquet")
    items = make_dataset(["a", "b", "c"], ids=["0", "1", "2"]).items
    encoder = PrecomputedEncoder(path=str(tmp_path), id_column="asin", vector_column="emb", normalize=True)
    np.testing.assert_allclose(
        encoder.fit_transform(items), VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), atol=1e-6
    )


def test_new_items_in_the_same_file_or_another(tmp_path: Path) -> None:
    both = parquet(tmp_path, GOOD | {"new": [7.0, 8.0]})
    with pytest.raises(DataError, match=r"1 items that the catalogue doesn't have, first 'new'"):
        PrecomputedEncoder(path=both).fit_transform(ITEMS)
    encoder = PrecomputedEncoder(path=both, unknown="drop")
    assert encoder.fit_transform(ITEMS).tolist() == VECTORS.tolist()
    assert encoder.transform(NEW).tolist() == [[7.0, 8.0]]
    (tmp_path / "other").mkdir()
    for rows, fault in (
        ({"new": [7.0, 8.0]}, None),
        ({"new": [7.0, 8.0], "y": [3.0, 4.001]}, None),
        ({"new": [7.0, 8.0], "y": [4.0, 3.0]}, "has another vector for item 'y' than"),
        ({"new": [7.0, 8.0, 9.0]}, "has vectors of 3 numbers, the file that was fitted 2"),
        ({"y": [3.0, 4.0]}, "has no vector for 1 of 1 items, first 'new'"),
    ):
        again = PrecomputedEncoder(path=parquet(tmp_path / "other", rows))
        again.restore(encoder.state)
        assert again.identity == encoder.identity
        if fault is None:
            assert again.transform(NEW).tolist() == [[7.0, 8.0]]
        else:
            with pytest.raises(DataError, match=fault):
                again.transform(NEW)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"x": [1.0, 2.0], "z": [5.0, 6.0]}, "has no vector for 1 of 3 items, first 'y'"),
        (GOOD | {"y": [3.0, float("nan")]}, r"for 1 items, first row 1 \(item 'y'\)"),
        (GOOD | {"y": [3.0, float("inf")]}, r"first row 1 \(item 'y'\)"),
        (GOOD | {"y": [3.0, None]}, r"NaN, null or infinite .* \(item 'y'\)"),
        (GOOD | {"y": None}, "a vector of 0 numbers for item 'y'"),
        (GOOD | {"z": [1.0]}, "a vector of 1 numbers for item 'z', and of 2 for item 'x'"),
        (GOOD | {"x": []}, "a vector of 0 numbers for item 'x'"),
        (dict.fromkeys(GOOD, "1 2"), "holds String, not lists of numbers"),
        ({item: ["1", "2"] for item in GOOD}, r"holds List\(String\), not lists"),
    ],
)
def test_faults_of_parquet_name_file_and_item(tmp_path: Path, rows: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        PrecomputedEncoder(path=parquet(tmp_path, rows)).fit_transform(ITEMS)
    assert "vectors.parquet" in caught.value.message


def test_repeated_items_and_other_columns(tmp_path: Path) -> None:
    table = pl.DataFrame({"item_id": ["x", "y", "z", "y"], "vector": [[1.0]] * 4})
    table.write_parquet(tmp_path / "v.parquet")
    with pytest.raises(DataError, match="has item 'y' more than once"):
        PrecomputedEncoder(path=str(tmp_path / "v.parquet")).fit_transform(ITEMS)
    with pytest.raises(DataError, match="has no column 'emb', but item_id, vector"):
        PrecomputedEncoder(path=str(tmp_path / "v.parquet"), vector_column="emb").fit_transform(ITEMS)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (VECTORS[:2], r"of the shape \[2, 2\], the catalogue 3 items"),
        (VECTORS[:, 0], r"of the shape \[3\]"),
        (np.array([["a"], ["b"], ["c"]]), "holds <U1"),
        (np.array([[1.0], [np.nan], [2.0]]), r"row 1 \(item 'y'\)"),
        (np.array([[1.0], [1e39], [2.0]]), r"row 1 \(item 'y'\)"),
        (np.array([{}, {}, {}], dtype=object), "can't be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_faults_of_npy_name_file_and_item(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        PrecomputedEncoder(path=npy(tmp_path, array)).fit_transform(ITEMS)
    assert "vectors.npy" in caught.value.message


@pytest.mark.parametrize("name", ["none.npy", "none.parquet", "text.parquet", "text.npy"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("hello")
    with pytest.raises(DataError, match=f"{name} can't be read"):
        PrecomputedEncoder(path=str(tmp_path / name)).fit_transform(ITEMS)


@pytest.mark.parametrize("options", [{"path": ""}, {"unknown": "keep"}])
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PrecomputedEncoder(**{"path": "some.npy", **options})


def test_npy_with_ids_goes_by_them(tmp_path: Path) -> None:
    """As ``itemic sid embed`` writes it: any order, and items that come later."""
    file = tmp_path / "X.emb-lsa.npy"
    rows = GOOD | {"new": [7.0, 8.0]}
    write_npy(file, list(rows), np.array(list(rows.values()), np.float32))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["X.emb-lsa.ids.json", "X.emb-lsa.npy"]
    with pytest.raises(DataError, match=r"1 items that the catalogue doesn't have, first 'new'"):
        PrecomputedEncoder(path=str(file)).fit_transform(ITEMS)
    encoder = PrecomputedEncoder(path=str(file), unknown="drop")
    assert encoder.fit_transform(ITEMS).tolist() == VECTORS.tolist()
    assert encoder.transform(NEW).tolist() == [[7.0, 8.0]]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ('["z", "x"]', r"X\.npy holds float64 of the shape \[3, 2\], its list of ids 2 items"),
        ('["z", "x", "x"]', "has item 'x' more than once"),
        ('{"z": 0}', r"X\.ids\.json holds no list of item ids"),
        ('["z"', r"X\.ids\.json is no JSON"),
    ],
)
def test_ids_that_don_t_fit_their_rows(tmp_path: Path, ids: str, said: str) -> None:
    np.save(tmp_path / "X.npy", VECTORS)
    (tmp_path / "X.ids.json").write_text(ids, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        PrecomputedEncoder(path=str(tmp_path / "X.npy")).fit_transform(ITEMS)

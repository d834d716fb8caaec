"""What items can be asked for by."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from itemic.control.labels import Labels
from itemic.control.want import Want
from itemic.errors import ConfigError, DataError, ItemicError
from tests.control.catalogues import dataset, tagged

PATHS = [
    ["Beauty", "Makeup", "Lipstick"],
    ["Beauty", "Makeup"],
    ["Beauty", "Hair"],
    [],
    ["Tools", "Hair"],
    ["Beauty > Makeup"],
]


def test_categories_are_all_beginnings_of_a_path() -> None:
    labels = Labels.of(dataset(PATHS))
    assert labels.names == [
        "Beauty",
        "Beauty > Makeup",
        "Beauty > Makeup > Lipstick",
        "Beauty > Hair",
        "Tools",
        "Tools > Hair",
    ]
    assert labels.rows("Beauty").tolist() == [0, 1, 2]
    assert labels.rows("Beauty > Makeup").tolist() == [0, 1, 5]
    assert [labels.finest(row) for row in range(6)] == [
        "Beauty > Makeup > Lipstick",
        "Beauty > Makeup",
        "Beauty > Hair",
        None,
        "Tools > Hair",
        "Beauty > Makeup",
    ]
    assert labels.sizes.tolist() == [3, 3, 1, 1, 1, 1]
    assert labels.numbers_of(0).tolist() == [0, 1, 2]
    assert labels.mask(0).tolist() == [True, True, True, False, False, False]
    assert repr(labels) == "<Labels: 6 of 6 items, by categories>"


def test_names_are_exact_or_an_error_that_tells_what_is_near() -> None:
    labels = Labels.of(dataset(PATHS))
    assert labels.rows("Lipstick").tolist() == [0]
    with pytest.raises(ConfigError, match="'Hair' may mean 'Beauty > Hair', 'Tools > Hair'"):
        labels.rows("Hair")
    with pytest.raises(ConfigError, match=r"no item has the label 'lipstick'; did you mean .*'Lipstick'"):
        labels.rows("lipstick")
    with pytest.raises(ConfigError, match="there are 'Beauty', 'Beauty > Makeup'"):
        labels.rows("Qqqq")
    both = Labels.of(dataset([["War"], ["Peace"]], tags=[["War"], ["Drama"]]), ["categories", "tags"])
    assert both.names == ["categories=War", "Peace", "tags=War", "Drama"]
    with pytest.raises(ConfigError, match="'War' may mean 'categories=War', 'tags=War'"):
        both.rows("War")


def test_several_paths_and_lists_without_order() -> None:
    paths = pl.Series([[["A", "B"], ["A", "C"]], [["A"]], None], dtype=pl.List(pl.List(pl.String)))
    labels = Labels.of(dataset([()] * 3, categories=paths))
    assert labels.names == ["A", "A > B", "A > C"]
    assert [labels.finest(row) for row in range(3)] == ["A > C", "A", None]
    tags = tagged([["War", "Drama", "War"], ["Drama"], ["Drama", "Love"], []])
    assert [tags.finest(row) for row in range(4)] == ["War", "Drama", "Love", None]
    assert tags.matrix.dtype == np.bool_
    assert tags.sizes.tolist() == [1, 3, 1]


def test_brands_columns_and_bands() -> None:
    found = dataset(
        [()] * 8,
        users=[[0, 1, 0, 0, 4, 4], [0, 1, 0, 0, 2], [0, 3, 5, 0, 0]],
        brand=["Nike", "Nike", "", "Puma", "", "", "", ""],
        price=[1.0, 2.0, 2.0, 3.0, None, 8.0, 9.0, 9.5],
        used=[True, False, None, True, True, True, True, True],
    )
    labels = Labels.of(found, ["brand", "price", "used", "popularity", "novelty"])
    assert labels.rows("brand=Nike").tolist() == labels.rows("Nike").tolist() == [0, 1]
    assert labels.said(labels.number("Nike")) == 'the brand "Nike"'
    assert [name for name in labels.names if name.startswith("price")] == [
        "price=up to 2",
        "price=above 2 up to 3",
        "price=above 3 up to 8",
        "price=above 8",
    ]
    assert labels.rows("price=above 8").tolist() == [6, 7]
    assert labels.rows("used=false").tolist() == [1]
    bands = [labels.rows(f"popularity={word}") for word in ("low", "middle", "high")]
    assert sorted(np.concatenate(bands).tolist()) == list(range(8))
    train = np.bincount(found.train.items, minlength=8)
    assert train[bands[0]].max() < train[bands[2]].min()
    assert 0 in bands[2].tolist()
    new = labels.rows("novelty=new").tolist()
    assert new
    assert not set(new) & set(labels.rows("novelty=old").tolist())
    assert labels.said(labels.number("high")) == "high popularity"
    many = Labels.of(dataset([()] * 100, price=np.arange(100.0)), ["price"])
    assert many.sizes.tolist() == [25, 25, 25, 25]


def test_columns_that_give_no_labels() -> None:
    found = dataset(PATHS)
    with pytest.raises(ConfigError, match="no column 'categorie'; did you mean 'categories'"):
        Labels.of(found, ["categorie"])
    with pytest.raises(DataError, match="no item of 'dataset' has a label by brand"):
        Labels.of(found, ["brand"])
    with pytest.raises(ConfigError, match="gives no labels"):
        Labels.of(dataset([()], odd=pl.Series([{"a": 1}])), ["odd"])
    with pytest.raises(ConfigError, match="each once"):
        Labels.of(found, ["brand", "brand"])
    timeless = dataset(PATHS)
    no_times = timeless.interactions.with_columns(pl.lit(None, pl.Int64).alias("timestamp"))
    with pytest.raises(DataError, match="needs the times"):
        Labels.of(type(timeless)(timeless.items, no_times), ["novelty"])


LABELS = tagged([["Drama"], ["Drama", "War"], ["War"], ["Love"], []])


@pytest.mark.parametrize(
    ("want", "history", "told"),
    [
        ({"wanted": ["Drame"]}, (), "no item has the label 'Drame'; did you mean 'Drama'"),
        ({"wanted": ["Drama"], "unwanted": ["Drama"]}, (), "'Drama' is wanted as well"),
        ({"wanted": ["Drama"], "unwanted": ["tags=Drama"]}, (), "no item has the label 'tags=Drama'"),
        ({"count": 6}, (), "6 items are wanted, and 5 may come"),
        ({"count": 2, "wanted": ["Love"]}, (), "2 items are wanted, and 1 may come"),
        ({"count": 1, "wanted": ["Love"], "avoid": [3]}, (), "all 1 items that .*Love.* leaves"),
        ({"count": 1, "wanted": ["Love"]}, (3,), "all 1 items that .*Love.* leaves"),
        ({"count": 1, "wanted": ["Love"], "candidates": [0, 1]}, (), "no item is of 'Love'"),
        ({"count": 1, "candidates": [0, 1], "unwanted": ["Drama"]}, (), "without 'Drama' nothing is left"),
        ({"count": 1, "candidates": [9]}, (), "item row 9 is a candidate, and the catalogue has 5 items"),
        ({"count": 1}, (7,), "item row 7 is avoided or in the history"),
        ({"count": 4, "shares": [("Drama", "at least", 0.75)]}, (), "at least 0.75 of 4 .* 2 may come"),
        ({"count": 4, "shares": [("Drama", "at most", 0.1)]}, (), "only 3 others may come"),
        (
            {"count": 2, "shares": [("Drama", "at most", 0.2), ("Drama", "at least", 0.6)]},
            (),
            "can't be met together: at most 0.2 of 'Drama', at least 0.6 of 'Drama'",
        ),
        (
            {"count": 2, "wanted": ["Drama"], "shares": [("Drama", "about", 0.5)]},
            (),
            "only 0 others may come",
        ),
        ({"count": 0}, (), "count"),
        ({"candidates": []}, (), "so nothing may come"),
        ({"shares": [("Drama", "nearly", 0.5)]}, (), "at most"),
        ({"shares": [("Drama", "about", 1.5)]}, (), "less than or equal to 1"),
    ],
)
def test_wants_that_cannot_be(want: dict[str, object], history: tuple[int, ...], told: str) -> None:
    with pytest.raises(ItemicError, match=told):
        Want(**want).check(LABELS, history)  # type: ignore[arg-type]


def test_empty_labels_and_two_names_of_one() -> None:
    matrix = LABELS.matrix[:, [0, 0]].tocsr()
    empty = Labels(["Drama", "Love"], ["tags"] * 2, ["Drama", "Love"], matrix, LABELS.finest_labels)
    empty.matrix.data[:] = False
    empty.matrix.eliminate_zeros()
    with pytest.raises(ItemicError, match="no item is of 'Drama'"):
        Want(1, wanted=("Drama",)).check(empty)
    found = Labels.of(dataset([["A", "B"], ["C"]]))
    with pytest.raises(ConfigError, match="'A > B' is wanted and unwanted"):
        Want(1, wanted=("B",), unwanted=("A > B",)).check(found)

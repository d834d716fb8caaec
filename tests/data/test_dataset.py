"""The dataset: sequences, requests, folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from itemic.data import Dataset, SplitRule
from itemic.errors import DataError

from .test_split import THREE, make


def test_sequences_are_rows_of_the_catalogue() -> None:
    sequences = make(THREE, SplitRule()).sequences
    assert list(sequences.users) == ["a", "b", "c"]
    assert sequences.offsets.tolist() == [0, 4, 6, 9]
    assert sequences.items.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert (sequences.items.dtype, sequences.offsets.dtype) == ("int32", "int64")
    assert sequences[1].tolist() == [5, 6]
    assert len(sequences) == 3


def test_items_not_in_the_catalogue_and_scattered_users_are_errors() -> None:
    dataset = make(THREE, SplitRule())
    with pytest.raises(DataError, match="'9'"):
        _ = replace(dataset, items=dataset.items.head(9)).sequences
    with pytest.raises(DataError, match="not contiguous"):
        _ = replace(
            dataset, interactions=pl.concat([dataset.interactions, dataset.interactions.head(1)])
        ).sequences


def test_requests_can_be_taken_in_any_order() -> None:
    requests = make(THREE, SplitRule("leave-last-out")).split("valid")
    some = requests.take(np.array([2, 0]))
    assert some.users.tolist() == ["c", "a"]
    for place, request in enumerate((2, 0)):
        assert some.history(place).tolist() == requests.history(request).tolist()
        assert some.targets[place] == requests.targets[request]
    assert some.catalogue == requests.catalogue
    assert len(requests.take(np.zeros(0, np.int64))) == 0


def test_requests_can_be_cut() -> None:
    requests = make(THREE, SplitRule("leave-last-out")).split("valid")
    part = requests[1:3]
    assert list(part.users) == ["b", "c"]
    assert [part.history(i).tolist() for i in range(2)] == [[5], [7, 8]]
    assert part.targets.tolist() == [6, 9]
    assert len(requests[3:1]) == 0
    with pytest.raises(ValueError, match="step 1"):
        _ = requests[::2]


def test_a_folder_brings_everything_back(tmp_path: Path) -> None:
    dataset = replace(
        make(THREE, SplitRule("temporal", 3), list(range(9))), name="three", notes={"read": {"n": 1}}
    )
    dataset.save(tmp_path)
    again = Dataset.load(tmp_path)
    assert again.items.equals(dataset.items)
    assert again.interactions.equals(dataset.interactions)
    assert (again.name, again.rule, again.notes) == ("three", SplitRule("temporal", 3), {"read": {"n": 1}})


def test_folders_that_are_no_dataset_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a dataset folder"):
        Dataset.load(tmp_path / "nowhere")
    dataset = make(THREE, SplitRule())
    dataset.save(tmp_path)
    dataset.items.drop("title").write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet lacks the columns title"):
        Dataset.load(tmp_path)
    dataset.save(tmp_path)
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a dataset folder"):
        Dataset.load(tmp_path)
    dataset.save(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "x"}), encoding="utf-8")
    with pytest.raises(DataError, match="not a dataset folder"):
        Dataset.load(tmp_path)

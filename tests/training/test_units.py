"""Row groups of files, listed and read."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import DataError
from itemic.tasks.conversation import read_part
from itemic.training.language import units
from itemic.training.language.units import RowGroups, Span
from tests.training.letters import numbered, table, write


def listed(folder: Path) -> RowGroups:
    return RowGroups.scan(sorted(str(file) for file in folder.iterdir()))


def test_the_row_groups_are_those_of_the_footers(tmp_path: Path) -> None:
    groups = listed(write(tmp_path, [7, 0, 5], row_group=3, sources=("b", "a")))
    found = []
    for file in groups.files:
        metadata = pq.read_metadata(file)
        found += [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
    assert groups.rows.tolist() == [n for n in found if n]
    assert groups.total == 12
    assert groups.sources == ("a", "b")
    assert groups.file.tolist() == [0] * (len(groups) - 2) + [2] * 2
    assert groups.start[0] == 0
    assert groups.place([Span(len(groups) - 1, 1, 2)], 0).endswith("part-002.parquet, row 4")


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_spans_are_the_slices_of_the_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spans")
    counts = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=3))
    groups = listed(write(folder, counts, data.draw(st.integers(1, 9))))
    spans = []
    for group, rows in enumerate(groups.rows.tolist()):
        edges = sorted(data.draw(st.sets(st.integers(0, rows), max_size=4)))
        spans += [Span(group, a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    batch = units.BATCH
    try:
        units.BATCH = data.draw(st.integers(1, 8))
        found = groups.read(spans)
    finally:
        units.BATCH = batch
    expected = []
    for group, begin, stop in spans:
        frame = read_part(groups.files[groups.file[group]])
        start = int(groups.start[group])
        expected += frame["messages"][start + begin : start + stop].to_list()
    assert found["messages"].to_list() == expected
    assert found.columns == read_part(groups.files[0]).columns
    for row, text in enumerate(expected):
        file, _, number = groups.place(spans, row).rpartition(", row ")
        assert read_part(file)["messages"][int(number)] == text


def test_only_the_asked_part_of_a_file_is_fetched(tmp_path: Path) -> None:
    texts = [os.urandom(500).hex() + "A" for _ in range(4000)]
    table(texts).write_parquet(tmp_path / "a.parquet", row_group_size=100)
    groups = listed(tmp_path)
    read = 0
    real = fsspec.implementations.local.LocalFileOpener.read

    def counted(self: object, *arguments: int) -> bytes:
        nonlocal read
        found: bytes = real(self, *arguments)
        read += len(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsspec.implementations.local.LocalFileOpener, "read", counted)
        assert groups.read([Span(7, 0, 100)])["messages"].to_list() == texts[700:800]
    assert 0 < read < (tmp_path / "a.parquet").stat().st_size / 5


def test_sources_without_a_name_and_columns_that_are_missing(tmp_path: Path) -> None:
    frame = table(numbered(3), sources=["x", "y", "x"]).drop("segments", "metadata")
    frame.with_columns(source=pl.Series(["x", None, "x"])).write_parquet(tmp_path / "a.parquet")
    groups = listed(tmp_path)
    assert groups.sources == ("unnamed", "x")
    assert groups.read([Span(0, 1, 3)])["metadata"].to_list() == [None, None]


def test_faults_name_the_file(tmp_path: Path) -> None:
    write(tmp_path, [5, 5])
    file = tmp_path / "part-001.parquet"
    groups = listed(tmp_path)
    whole = file.read_bytes()
    table(numbered(6)).write_parquet(file)
    with pytest.raises(DataError, match=r"part-001\.parquet has changed"):
        groups.read([Span(1, 0, 2)])
    file.write_bytes(b"\0" * len(whole))
    with pytest.raises(DataError, match=r"part-001\.parquet can't be read"):
        groups.read([Span(1, 0, 2)])
    with pytest.raises(DataError, match=r"part-001\.parquet can't be read"):
        listed(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"part-001\.parquet is gone"):
        groups.read([Span(1, 0, 2)])
    table(numbered(2)).drop("source").write_parquet(file)
    with pytest.raises(DataError, match=r"part-001\.parquet lacks the columns source"):
        listed(tmp_path)


def test_the_digest_sees_names_sizes_and_rows_but_not_where_the_folder_is(tmp_path: Path) -> None:
    one = listed(write(tmp_path / "one", [5, 6])).digest
    assert listed(write(tmp_path / "two", [5, 6])).digest == one
    assert listed(write(tmp_path / "three", [6, 5])).digest != one
    (tmp_path / "two" / "part-001.parquet").rename(tmp_path / "two" / "part-007.parquet")
    assert listed(tmp_path / "two").digest != one

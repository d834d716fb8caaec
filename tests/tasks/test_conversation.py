from __future__ import annotations

import json
import uuid
from pathlib import Path

import fsspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic import schema as c
from itemic.errors import DataError
from itemic.tasks.conversation import (
    SCHEMA,
    Conversations,
    ConversationWriter,
    decode,
    json_strings,
    make_uuids,
)


def table(rows: int, start: int = 0) -> pl.DataFrame:
    said = [json.dumps([{"role": "user", "content": f"q{i}"}]) for i in range(start, start + rows)]
    names = [f"n{i}" for i in range(start, start + rows)]
    return pl.DataFrame(
        {c.UUID: names, c.SOURCE: "s", c.MESSAGES: said, c.SEGMENTS: None, c.METADATA: "{}"}, schema=SCHEMA
    )


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_json_strings_are_what_json_reads(texts: list[str]) -> None:
    encoded = json_strings(pl.Series(texts, dtype=pl.String))
    assert [json.loads(text) for text in encoded] == texts


def test_uuids_are_valid_distinct_and_a_function_of_their_arguments() -> None:
    names = make_uuids("C", 3, 0, 5000).to_list()
    assert len(set(names)) == 5000
    assert {uuid.UUID(name).version for name in names} == {8}
    assert {uuid.UUID(name).variant for name in names} == {uuid.RFC_4122}
    assert make_uuids("C", 3, 100, 50).to_list() == names[100:150]
    assert not set(names) & set(make_uuids("D", 3, 0, 5000)) | set(names) & set(make_uuids("C", 4, 0, 5000))
    assert make_uuids("C", 3, 0, 0).to_list() == []


def test_the_writer_holds_back_no_more_than_a_part(tmp_path: Path) -> None:
    with ConversationWriter(tmp_path / "x", rows_per_part=4) as writer:
        for start, rows in ((0, 3), (3, 2), (5, 6)):
            writer.write(table(rows, start))
    assert [len(pl.read_parquet(file)) for file in writer.files] == [4, 4, 3]
    assert writer.rows == 11
    found = Conversations.open(tmp_path / "x")
    assert found.read()[c.UUID].to_list() == [f"n{i}" for i in range(11)]
    assert len(found) == 11


def test_files_folders_globs_lists_and_remote_paths_are_one(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"d{number}").mkdir()
        table(2, 2 * number).write_parquet(tmp_path / f"d{number}" / "p.parquet")
    (tmp_path / "list.json").write_text(
        json.dumps([str(tmp_path / "d2"), str(tmp_path / "d0" / "p.parquet")])
    )
    (tmp_path / ".partial").mkdir()
    table(2, 90).write_parquet(tmp_path / ".partial" / "p.parquet")

    def names(source: object) -> list[str]:
        return [row.uuid for row in Conversations.open(source)]  # type: ignore[arg-type]

    assert names(tmp_path) == [f"n{i}" for i in range(6)]
    assert names(str(tmp_path / "d[12]" / "*.parquet")) == ["n2", "n3", "n4", "n5"]
    assert names(tmp_path / "list.json") == ["n4", "n5", "n0", "n1"]
    assert names([tmp_path / "d1", tmp_path / "d0"]) == ["n2", "n3", "n0", "n1"]
    assert names(table(2)) == names(table(2).lazy()) == names(Conversations.open(table(2))) == ["n0", "n1"]
    with fsspec.open("memory://bucket/a/p.parquet", "wb") as stream:
        table(2, 7).write_parquet(stream)
    assert names("memory://bucket/a") == names("memory://bucket/a/*.parquet") == ["n7", "n8"]


def test_messages_win_and_contents_may_be_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {
        c.UUID: "1",
        c.SOURCE: "s",
        c.MESSAGES: json.dumps([{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]),
        c.SEGMENTS: json.dumps(parts),
    }
    found = decode(row)
    assert found.messages == [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]
    assert found.text is None
    assert decode(row | {c.MESSAGES: None}).text == "ab"
    pl.DataFrame([row]).write_parquet(
        tmp_path / "foreign.parquet"
    )  # without metadata, as others may write it
    assert next(iter(Conversations.open(tmp_path / "foreign.parquet"))).metadata == {}


@pytest.mark.parametrize(
    "change",
    [
        {c.MESSAGES: None},
        {c.MESSAGES: "[{"},
        {c.MESSAGES: '[{"role": "user"}]'},
        {c.MESSAGES: '[{"role": "user", "content": 5}]'},
        {c.MESSAGES: None, c.SEGMENTS: '[{"type": "image", "text": "x"}]'},
        {c.METADATA: "[]"},
    ],
)
def test_a_broken_row_is_named(change: dict[str, str | None]) -> None:
    row = {
        c.UUID: "u7",
        c.SOURCE: "s",
        c.MESSAGES: '[{"role": "user", "content": "x"}]',
        c.SEGMENTS: None,
        c.METADATA: None,
    }
    assert decode(row).metadata == {}
    with pytest.raises(DataError, match="conversation 'u7' is broken"):
        decode(row | change)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no conversations at"):
        Conversations.open(tmp_path)
    with pytest.raises(DataError, match="no conversations at"):
        Conversations.open(tmp_path / "none.parquet")
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"half\.parquet can't be read"):
        Conversations.open(tmp_path / "half.parquet").read()
    pl.DataFrame({c.UUID: ["1"]}).write_parquet(tmp_path / "few.parquet")
    with pytest.raises(DataError, match=r"few\.parquet lacks the columns source, messages or segments"):
        Conversations.open(tmp_path / "few.parquet").read()
    (tmp_path / "list.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="no list of paths"):
        Conversations.open(tmp_path / "list.json")


def test_lists_that_name_themselves_or_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps([str(second)]))
    second.write_text(json.dumps([str(first)]))
    with pytest.raises(DataError, match=r"a\.json lists itself"):
        Conversations.open(first)
    second.write_text("[]")
    with pytest.raises(DataError, match=r"b\.json lists no files"):
        Conversations.open(first)

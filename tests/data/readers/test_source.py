"""Folders, batches of lines and damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.data.readers.source import Lines, Source
from itemic.errors import DataError


@given(
    lines=st.lists(
        st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")), max_size=30
    ),
    size=st.integers(1, 40),
    ends=st.booleans(),
)
def test_batches_are_whole_lines_and_lose_nothing(
    lines: list[bytes], size: int, ends: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    if content.startswith(b"\xef\xbb\xbf"):
        content = b"x" + content
    folder = tmp_path_factory.mktemp("source")
    for name, raw in (("a.txt", content), ("a.txt.gz", gzip.compress(content))):
        (folder / name).write_bytes(raw)
        batches = list(Source(folder).batches(name, size))
        assert b"".join(batch.data for batch in batches) == content
        assert all(batch.data.endswith(b"\n") for batch in batches[:-1])
        numbered = [pair for batch in batches for pair in batch]
        assert numbered == list(enumerate(content.splitlines(), 1))
        assert [batch.first for batch in batches] == [
            1 + sum(earlier.count for earlier in batches[:i]) for i in range(len(batches))
        ]


def test_a_header_is_left_out_and_still_counted() -> None:
    assert list(Lines(1, b"h\na\nb\n").without_first()) == [(2, b"a"), (3, b"b")]


def test_a_truncated_file_gives_its_whole_lines_first(tmp_path: Path) -> None:
    raw = gzip.compress(b"".join(b"line %d\n" % i for i in range(50_000)))
    (tmp_path / "a.gz").write_bytes(raw[:-1000])
    got: list[Lines] = []
    with pytest.raises(DataError, match="whole lines could be read") as caught:
        got.extend(Source(tmp_path).batches("a.gz", 10_000))
    read = sum(batch.count for batch in got)
    assert f"; {read} whole lines" in caught.value.message
    assert 40_000 < read < 50_000


def test_head_looks_without_failing(tmp_path: Path) -> None:
    raw = gzip.compress(b"".join(b"line %d\n" % i for i in range(50_000)))
    (tmp_path / "cut.gz").write_bytes(raw[:-1000])
    (tmp_path / "no.gz").write_bytes(b"plain")
    source = Source(tmp_path)
    assert source.head("cut.gz", 2) == ["line 0", "line 1"]
    assert source.head("no.gz") == []


def test_files_are_found_two_levels_deep(tmp_path: Path) -> None:
    for name in ("a.csv", "train/b.csv", "x/y/z.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1", encoding="utf-8")
    source = Source(tmp_path)
    assert source.files == ["a.csv", "train/b.csv"]
    assert source.match("train/*.csv") == ["train/b.csv"]
    assert source.match("*.csv") == ["a.csv", "train/b.csv"]


def test_a_file_and_a_pattern_of_files_are_sources(tmp_path: Path) -> None:
    for name in ("a1.csv", "a2.csv", "b.csv", "in/a3.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    one = Source(tmp_path / "b.csv")
    assert (one.files, one.name, one.folder) == (["b.csv"], "b", str(tmp_path))
    assert one.open("b.csv").read() == b"b.csv"
    assert one.where("b.csv") == str(tmp_path / "b.csv")
    assert one.beside("a*.csv").files == ["a1.csv", "a2.csv"]
    assert Source(tmp_path / "a?.csv").files == ["a1.csv", "a2.csv"]
    assert Source(f"{tmp_path}/*/a?.csv").files == ["in/a3.csv"]


def test_zstandard_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv.zst").write_bytes(pyarrow.compress(b"a,b\n1,2\n" * 9, codec="zstd", asbytes=True))
    assert Source(tmp_path).open("a.csv.zst").read() == b"a,b\n1,2\n" * 9
    assert sum(lines.count for lines in Source(tmp_path).batches("a.csv.zst", 10)) == 18
    cut = (tmp_path / "a.csv.zst").read_bytes()[:-4]
    (tmp_path / "a.csv.zst").write_bytes(cut)
    with pytest.raises(DataError, match="cut short"):
        list(Source(tmp_path).batches("a.csv.zst"))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        Source(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"x\*\.csv holds no files"):
        Source(tmp_path / "x*.csv")
    with pytest.raises(DataError, match="can't be opened"):
        Source("nosuchprotocol://x")

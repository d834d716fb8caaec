from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import DataError
from itemic.forest.rows import TokenRows
from itemic.model.shorten import HistoryMarks
from itemic.training.language.rows import shorten, training_rows
from itemic.training.language.stage import OVERLONG


def conversations(texts: list[str], groups: list[str | None], sources: list[str]) -> pl.DataFrame:
    metadata = [json.dumps({"task": "x"} | ({"group": group} if group else {})) for group in groups]
    return pl.DataFrame(
        {
            "uuid": [str(i) for i in range(len(texts))],
            "source": sources,
            "messages": texts,
            "segments": pl.Series([None] * len(texts), dtype=pl.String),
            "metadata": metadata,
        }
    )


def by_letters(batch: pl.DataFrame) -> TokenRows:
    """Letters are tokens, capitals are learned."""
    texts = batch["messages"].to_list()
    return TokenRows.of(
        [[ord(ch) for ch in t] for t in texts], [[float(ch.isupper()) for ch in t] for t in texts]
    )


TABLE = conversations(
    ["abC", "abD", "zZ", "none", "longlonG", "abE"],
    ["u1", "u1", None, "u2", "u1", "u1"],
    ["C", "C", "A", "A", "C", "A"],
)


def test_rows_weights_groups_and_sources(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "itemic"):
        data = training_rows(TABLE, by_letters, encoder="letters", max_length=5, overlong="drop")
    texts = ["".join(map(chr, data.rows[row])) for row in range(len(data.rows))]
    assert texts == ["abC", "abD", "zZ", "abE"]
    assert data.rows.weights is not None
    assert data.rows.weights.tolist() == [0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1]
    assert [data.names[s] for s in data.sources] == ["C", "C", "A", "A"]
    one, two, alone, other = data.groups.tolist()
    assert one == two
    assert len({one, alone, other}) == 3  # another source is another group, and a row without one is alone
    assert (data.notes["overlong"], data.notes["without_answer"], data.notes["conversations"]) == (1, 1, 6)
    assert "1 of 6 rows over 5 tokens dropped, 1 without an answer" in caplog.text


def test_long_rows_are_cut_by_rule() -> None:
    end = training_rows(TABLE, by_letters, encoder="letters", max_length=3, overlong="keep-end")
    assert "".join(map(chr, end.rows[3])) == "onG"
    with pytest.raises(DataError, match="nothing to learn from"):
        training_rows(TABLE[4:5], by_letters, encoder="letters", max_length=3, overlong="keep-start")
    split = training_rows(TABLE, by_letters, encoder="letters", max_length=3, overlong="split")
    assert split.notes["overlong"] == end.notes["overlong"]
    assert split.notes["without_answer"] == end.notes["without_answer"]
    assert all(length <= 3 for length in split.rows.lengths)


def test_the_oldest_items_go_first(caplog: pytest.LogCaptureFixture) -> None:
    marks = HistoryMarks(np.array([ord("i")], np.int32), np.array([ord("|")], np.int32))
    table = conversations(["next?i1i2i3|I4", "next?i1|I4", "quitealongtexT"], ["u"] * 3, ["C"] * 3)
    with caplog.at_level(logging.WARNING, "itemic"):
        data = training_rows(table, by_letters, encoder="letters", max_length=10, marks=marks)
    assert ["".join(map(chr, data.rows[row])) for row in range(3)] == [
        "next?i3|I4",
        "next?i1|I4",
        "ealongtexT",
    ]
    assert (data.notes["overlong"], data.notes["shortened"]) == (2, 1)
    told = "1 of 3 rows over 10 tokens without their oldest items, 1 of 3 rows over 10 tokens cut to their last tokens"
    assert told in caplog.text
    short = training_rows(table[1:2], by_letters, encoder="letters", max_length=10, marks=marks)
    dropping = training_rows(table[1:2], by_letters, encoder="letters", max_length=10, overlong="drop")
    assert short.digest == dropping.digest  # where nothing is too long the rule changes nothing


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=6),
    st.integers(1, 6),
    st.sampled_from(OVERLONG),
)
@settings(max_examples=80, deadline=None)
def test_shorten_like_slices(lists: list[list[int]], length: int, rule: str) -> None:
    rows, numbers, count = shorten(
        TokenRows.of(lists, [[float(t) for t in row] for row in lists]), length, rule
    )
    assert count == sum(len(row) > length for row in lists)
    if rule == "drop":
        expected = [(i, row) for i, row in enumerate(lists) if len(row) <= length]
    elif rule == "split":
        pieces = [(i, at) for i, row in enumerate(lists) for at in range(0, max(len(row), 1), length)]
        expected = [(i, lists[i][at : at + length]) for i, at in pieces]
    else:
        expected = [
            (i, row[:length] if rule == "keep-start" else row[-length:]) for i, row in enumerate(lists)
        ]
    assert [(int(n), rows[i].tolist()) for i, n in enumerate(numbers)] == expected
    assert rows.weights is not None
    assert rows.weights.tolist() == [float(t) for t in rows.tokens]


def test_a_folder_is_encoded_once(tmp_path: Path) -> None:
    folder = tmp_path / "conversations"
    folder.mkdir()
    TABLE[:3].write_parquet(folder / "part-0.parquet")
    TABLE[3:].write_parquet(folder / "part-1.parquet")
    calls = []

    def encode(batch: pl.DataFrame) -> TokenRows:
        calls.append(len(batch))
        return by_letters(batch)

    first = training_rows(folder, encode, encoder="letters", max_length=5, overlong="drop")
    assert calls == [3, 3]
    second = training_rows(folder, encode, encoder="letters", max_length=5, overlong="drop")
    assert calls == [3, 3]
    memory = training_rows(TABLE, by_letters, encoder="letters", max_length=5, overlong="drop")
    assert first.digest == second.digest == memory.digest
    assert isinstance(second.rows.tokens, np.memmap)
    for one, two in ((first, memory), (second, memory)):
        assert (one.rows.tokens == two.rows.tokens).all()
        assert (one.groups == two.groups).all()
        assert one.notes == two.notes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conversations", "conversations.tokens"]
    training_rows(folder, encode, encoder="other letters", max_length=5, overlong="drop")
    training_rows(folder, encode, encoder="letters", max_length=6, overlong="drop")
    assert len(calls) == 6
    TABLE[3:5].write_parquet(folder / "part-1.parquet")
    assert len(training_rows(folder, encode, encoder="letters", max_length=5, overlong="drop").rows) == 3


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "c.parquet")
    whole = training_rows(
        tmp_path / "c.parquet", by_letters, encoder="letters", max_length=5, overlong="drop"
    )
    (folder,) = (tmp_path / "c.parquet.tokens").iterdir()
    (folder / "tokens.npy").write_bytes((folder / "tokens.npy").read_bytes()[:40])
    again = training_rows(
        tmp_path / "c.parquet", by_letters, encoder="letters", max_length=5, overlong="drop"
    )
    assert again.digest == whole.digest
    shutil.rmtree(folder.parent)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no conversations at"):
        training_rows(tmp_path, by_letters, encoder="letters", max_length=5, overlong="drop")
    with pytest.raises(DataError, match="lacks the columns source"):
        training_rows(TABLE.drop("source"), by_letters, encoder="letters", max_length=5, overlong="drop")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"x\.parquet"):
        training_rows(tmp_path, by_letters, encoder="letters", max_length=5, overlong="drop")

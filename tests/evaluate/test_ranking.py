from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.data.sequences import Requests
from itemic.errors import ArtifactError, DataError
from itemic.evaluate.ranking import Ranking, RankingWriter, part_path

IDS = [f"item-{row}" for row in range(6)]


def ask(count: int, targets: list[int] | None = None) -> Requests:
    return Requests(
        np.array([f"user {number}" for number in range(count)], object),
        np.arange(count + 1, dtype=np.int64) * 2,
        (np.arange(2 * count) % len(IDS)).astype(np.int32),
        np.array(targets or [0] * count, np.int32),
    )


def test_a_part_on_disk_reads_like_a_table(tmp_path: Path) -> None:
    writer = RankingWriter(tmp_path / "r", "mine", ask(2, [3, -1]), IDS, 3, sids=[f"<{i}>" for i in range(6)])
    writer.write(
        0, np.array([[3, 1, -1], [-1, -1, -1]], np.int32), np.array([[-1, -2, -9], [0, 0, 0]], np.float32)
    )
    table = pl.read_parquet(tmp_path / "r" / "part-00000.parquet")
    assert tuple(table.columns) == c.RANKING_COLUMNS
    assert table.to_dicts() == [
        {
            c.REQUEST: 0,
            c.USER_ID: "user 0",
            c.TARGET_ID: "item-3",
            c.HISTORY_LENGTH: 2,
            c.SHORTENED: False,
            c.RANKED_ITEMS: ["item-3", "item-1"],
            c.RANKED_SCORES: [-1.0, -2.0],
            c.RANKED_SIDS: ["<3>", "<1>"],
        },
        {
            c.REQUEST: 1,
            c.USER_ID: "user 1",
            c.TARGET_ID: None,
            c.HISTORY_LENGTH: 2,
            c.SHORTENED: False,
            c.RANKED_ITEMS: [],
            c.RANKED_SCORES: [],
            c.RANKED_SIDS: [],
        },
    ]


def test_without_an_index_there_are_no_sids(tmp_path: Path) -> None:
    writer = RankingWriter(tmp_path, "mine", ask(1), IDS, 2)
    table = writer.write(0, np.array([[3, 1]], np.int32), np.zeros((1, 2), np.float32))
    assert table[c.RANKED_SIDS].to_list() == [None]
    assert table.schema[c.RANKED_SIDS] == pl.List(pl.String)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(data: st.DataObject) -> None:
    count, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    items = rng.integers(-1, len(IDS), (count, k)).astype(np.int32)
    scores = np.where(items >= 0, rng.normal(size=(count, k)), -np.inf).astype(np.float32)
    requests = ask(count, rng.integers(-1, len(IDS), count).tolist())
    writer = RankingWriter(None, "mine", requests, IDS, k, part_size=data.draw(st.integers(1, 13)))
    for part in writer.ranking.missing:
        start, stop = writer.head.bounds(part)
        writer.write(part, items[start:stop], scores[start:stop])
    parts = list(Ranking.load(writer.folder).arrays())
    assert (np.concatenate([part.items for part in parts]) == items).all()
    assert (np.concatenate([part.scores for part in parts])[items >= 0] == scores[items >= 0]).all()
    assert (np.concatenate([part.targets for part in parts]) == requests.targets).all()
    assert (np.concatenate([part.requests for part in parts]) == np.arange(count)).all()
    assert (np.concatenate([part.history_lengths for part in parts]) == 2).all()


def test_users_are_numbered(tmp_path: Path) -> None:
    requests = Requests(
        np.array(["b", "a", "b"], object), np.arange(4), np.zeros(3, np.int32), np.zeros(3, np.int32)
    )
    writer = RankingWriter(tmp_path, "mine", requests, IDS, 1, part_size=2)
    for part in (0, 1):
        writer.write(part, np.zeros((2 - part, 1), np.int32), np.zeros((2 - part, 1), np.float32))
    first, second, third = writer.ranking.users()
    assert first == third != second


def test_an_unfinished_ranking_is_not_read_as_a_whole(tmp_path: Path) -> None:
    writer = RankingWriter(tmp_path, "mine", ask(5), IDS, 1, part_size=2)
    writer.write(1, np.zeros((2, 1), np.int32), np.zeros((2, 1), np.float32))
    assert Ranking.load(tmp_path).missing == [0, 2]
    with pytest.raises(ArtifactError, match="lacks 2 of 3 parts"):
        Ranking.load(tmp_path).arrays()


def test_taking_up_a_folder_keeps_its_parts_and_clears_half_written_ones(tmp_path: Path) -> None:
    RankingWriter(tmp_path, "mine", ask(5), IDS, 1, part_size=2)
    stray = tmp_path / ".part-00000.parquet.123"
    stray.write_bytes(b"half")
    again = RankingWriter(tmp_path, "mine", ask(5), IDS, 1, part_size=3)
    assert again.head.part_size == 2
    assert not stray.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"requests": ask(5, [1, 1, 1, 1, 1])}, "digest"),
        ({"k": 2}, "k"),
        ({"config": {"beams": 3}}, "config"),
        ({"name": "other"}, "name"),
        ({"item_ids": IDS[::-1]}, "catalogue, digest"),
    ],
)
def test_a_folder_of_another_ranking_is_refused(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    first = {"folder": tmp_path, "name": "mine", "requests": ask(5), "item_ids": IDS, "k": 1}
    RankingWriter(**first)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=rf"another {named}\n"):
        RankingWriter(**(first | change))  # type: ignore[arg-type]


def test_no_ranking_and_a_broken_part_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a ranking"):
        Ranking.load(tmp_path)
    writer = RankingWriter(tmp_path, "mine", ask(1), IDS, 1)
    part_path(tmp_path, 0).write_bytes(b"no parquet")
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet"):
        list(writer.ranking.arrays())

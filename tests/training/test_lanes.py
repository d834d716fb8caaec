"""What lanes hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.errors import DataError
from itemic.forest.rows import TokenRows
from itemic.training.language.counts import Counts
from itemic.training.language.lanes import LanePlace, Lanes
from itemic.training.language.rows import training_rows
from itemic.training.language.stage import OVERLONG, PACKING
from itemic.training.language.units import RowGroups, Span
from tests.stages import stage_of
from tests.training.letters import by_letters, fingerprint, rows_of, table, write


def groups_of(rows: list[int]) -> RowGroups:
    """Row groups without files."""
    count = len(rows)
    return RowGroups(
        tuple(f"f{k}" for k in range(count)),
        (0,) * count,
        np.arange(count, dtype=np.int32),
        np.zeros(count, np.int32),
        np.zeros(count, np.int64),
        np.array(rows, np.int64),
        ("all",),
    )


def lanes_of(folder: Path, *, seed: int = 0, **keys: object) -> Lanes:
    files = sorted(str(file) for file in folder.glob("*.parquet"))
    stage = stage_of(
        {
            "data.stream": True,
            **({"data.tokens_per_step": 240, "data.block_tokens": 80, "data.shuffle_buffer": 60} | keys),
        }
    )  # type: ignore[arg-type]
    return Lanes(RowGroups.scan(files), by_letters, stage, seed)


def numbers(lanes: Lanes, lane: int, epoch: int, chunk: int) -> list[int]:
    packets = lanes.chunk(lane, epoch, chunk).packets
    return [row for packet in packets for row in rows_of(packet)]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(1, 200),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_every_row_is_in_one_chunk_of_one_lane(rows: list[int], count: int, buffer: int, epoch: int) -> None:
    stage = stage_of(
        {"data.tokens_per_step": 10 * count, "data.block_tokens": 10, "data.shuffle_buffer": buffer}
    )
    lanes = Lanes(groups_of(rows), by_letters, stage, 3)
    assert len(lanes) == count
    seen = [np.zeros(n, int) for n in rows]
    sizes = []
    for lane in range(count):
        for chunk in range(lanes.chunks(lane)):
            spans = lanes.spans(lane, epoch, chunk)
            assert spans == sorted(spans)
            size = 0
            for group, begin, stop in spans:
                assert begin < stop
                seen[group][begin:stop] += 1
                size += stop - begin
            assert 0 < size <= lanes.chunk_rows
        sizes.append(lanes.line(lane)[1] - lanes.line(lane)[0])
    assert all((hits == 1).all() for hits in seen)
    assert max(sizes) - min(sizes) <= 1
    assert max(1, buffer) >= lanes.chunk_rows * 2 * count or lanes.chunk_rows == 1


def test_a_chunk_is_a_function_of_data_stage_and_seed(tmp_path: Path) -> None:
    folder = write(tmp_path, [50, 30, 40], row_group=20)
    one, two = lanes_of(folder), lanes_of(folder)
    again = [two.chunk(lane, 1, 0) for lane in (2, 0, 1)]  # in another order
    for lane, other in zip((2, 0, 1), again, strict=True):
        mine = one.chunk(lane, 1, 0)
        assert [fingerprint(p) for p in mine.packets] == [fingerprint(p) for p in other.packets]
    assert numbers(one, 0, 0, 0) != numbers(one, 0, 1, 0)
    assert numbers(one, 0, 0, 0) != numbers(lanes_of(folder, seed=1), 0, 0, 0)


def test_the_order_has_nothing_of_the_files_left(tmp_path: Path) -> None:
    """2,000 rows, 250 in the buffer at most: neighbours in a file don't stay neighbours, and where a row stands in
    an epoch says nothing about where it stands in the next."""
    lanes = lanes_of(write(tmp_path, [500] * 4, row_group=100), **{"data.shuffle_buffer": 250})
    orders = []
    for epoch in range(2):
        order = []
        for chunk in range(lanes.chunks(0)):  # chunks of all lanes go on side by side
            for lane in range(len(lanes)):
                order += numbers(lanes, lane, epoch, chunk) if chunk < lanes.chunks(lane) else []
        assert sorted(order) == list(range(2000))
        orders.append(np.argsort(order))
    file = np.arange(2000)
    assert abs(np.corrcoef(orders[0], file)[0, 1]) < 0.1
    assert abs(np.corrcoef(orders[0], orders[1])[0, 1]) < 0.1
    near = np.abs(np.diff(orders[0])) <= 1
    assert (
        near.mean() < 0.08
    )  # a chunk of 41 rows holds pieces of a row group; left as they were it would be 1
    # rows of a row group are spread over the epoch: far beyond what a buffer alone could spread them
    spread = [orders[0][k : k + 100].max() - orders[0][k : k + 100].min() for k in range(0, 2000, 100)]
    assert np.median(spread) > 1000


@pytest.mark.parametrize("packing", PACKING)
def test_packets_hold_a_block_at_most_and_groups_stay_together(packing: str, tmp_path: Path) -> None:
    texts = [f"{'abcdefghij'[k // 12]}{'xyz' * 3}{k % 12:02d}A" for k in range(120)]
    table(texts, groups=[text[0] for text in texts]).write_parquet(tmp_path / "a.parquet")
    lanes = lanes_of(
        tmp_path,
        **{
            "data.packing": packing,
            "data.block_tokens": 60,
            "data.tokens_per_step": 60,
            "data.shuffle_buffer": 240,
        },
    )
    assert (len(lanes), lanes.chunks(0)) == (1, 1)
    chunk = lanes.chunk(0, 0, 0)
    assert sum(forest.row_leaf.size for packet in chunk.packets for forest in packet) == 120
    for packet in chunk.packets:
        assert sum(map(len, packet)) <= 60
        assert (len(packet) == 1) == (packing != "none")
        if packing == "forest":
            assert len({int(t) for t in packet[0].tokens[packet[0].position == 0]}) == 1  # 46 nodes a group


def test_source_weights(tmp_path: Path) -> None:
    folder = write(tmp_path, [300], sources=("a", "b", "c"))
    lanes = lanes_of(folder, **{"data.sources": {"a": 2.5, "b": 0.25, "c": 0.0}, "data.shuffle_buffer": 300})
    times = np.zeros(300, int)
    read = 0
    for lane in range(len(lanes)):
        for chunk in range(lanes.chunks(lane)):
            np.add.at(times, numbers(lanes, lane, 0, chunk), 1)
            read += lanes.chunk(lane, 0, chunk).counts.read
    a, b, c = times[0::3], times[1::3], times[2::3]
    assert set(a.tolist()) == {2, 3}
    assert set(b.tolist()) == {0, 1}
    assert not c.any()
    assert 0.35 < (a == 3).mean() < 0.65
    assert 0.1 < b.mean() < 0.4
    assert read == (times > 0).sum()  # the others aren't even tokenised


@pytest.mark.parametrize("overlong", OVERLONG)
def test_counts_and_weights_are_those_of_kept_rows(overlong: str, tmp_path: Path) -> None:
    texts = ["abC", "zzzz", "abcdefGHIJ", "x" * 30 + "Y", "aB"] * 20
    table(texts, sources=["one", "two"] * 50).write_parquet(tmp_path / "a.parquet")
    lanes = lanes_of(tmp_path, **{"data.max_length": 8, "data.overlong": overlong})
    kept = training_rows(tmp_path / "a.parquet", by_letters, encoder="x", max_length=8, overlong=overlong)
    counts, weight, leaves, shares = Counts(), 0.0, 0, np.zeros(2)
    for lane in range(len(lanes)):
        for number in range(lanes.chunks(lane)):
            chunk = lanes.chunk(lane, 0, number)
            counts += chunk.counts
            for forest in (forest for packet in chunk.packets for forest in packet):
                weight += float(forest.weight.sum())
                leaves += len(forest.row_leaf)
                assert forest.shares is not None
                shares += forest.shares.sum(axis=1)
    assert (counts.read, counts.overlong, counts.mute) == (
        kept.notes["conversations"],
        kept.notes["overlong"],
        kept.notes["without_answer"],
    )
    assert leaves == len(kept.rows)
    first = np.zeros(len(kept.rows.tokens), bool)
    first[kept.rows.offsets[:-1]] = True
    assert kept.rows.weights is not None
    assert weight == pytest.approx(float(kept.rows.weights[~first].sum()))
    assert shares.sum() == pytest.approx(weight)


def test_a_row_that_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    write(tmp_path, [30, 30], row_group=7)
    texts = ["aB"] * 20
    texts[13] = "oh!"
    table(texts).write_parquet(tmp_path / "part-002.parquet", row_group_size=7)
    lanes = lanes_of(tmp_path)
    with pytest.raises(
        DataError, match=r"part-002\.parquet, row 13 \(uuid 'u13'\): ValueError: an exclamation"
    ):
        _ = [lanes.chunk(lane, 0, chunk) for lane in range(len(lanes)) for chunk in range(lanes.chunks(lane))]


def test_an_error_of_no_row_names_the_rows_at_hand(tmp_path: Path) -> None:
    write(tmp_path, [30])
    lanes = lanes_of(tmp_path)

    def encode(batch: object) -> TokenRows:
        if len(batch) > 1:  # type: ignore[arg-type]
            raise MemoryError("too much")
        return by_letters(batch)  # type: ignore[arg-type]

    with pytest.raises(DataError, match=r"part-000\.parquet, row .* … .*can't be tokenised: too much"):
        Lanes(lanes.groups, encode, lanes.stage, 0).chunk(0, 0, 0)


def test_places() -> None:
    place = LanePlace(0, 1, 5, Counts(4, 3, 2, 1))
    assert LanePlace.of(place.to_json()) == place
    assert place.next_chunk(3, Counts(1, 1, 1, 1)) == LanePlace(0, 2, 0, Counts(5, 4, 3, 2))
    assert place.next_chunk(2) == LanePlace(1, 0, 0, Counts(4, 3, 2, 1))
    assert Span(1, 2, 3) < Span(2, 0, 1)

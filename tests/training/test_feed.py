"""Steps from a stream: the same for any number of ranks and processes, and after every interruption."""

from __future__ import annotations

import json
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from itemic import train
from itemic.errors import ArtifactError, ConfigError, DataError, ItemicError
from itemic.forest.rows import TokenRows
from itemic.training.language import crew
from itemic.training.language.feed import NEVER, Feed
from itemic.training.language.rows import training_rows
from itemic.training.language.stream import KeptRows
from tests.stages import stage_of
from tests.training.helpers import VOCABULARY, copy_of, lm_trainer, tiny_lm
from tests.training.letters import all_rows, by_letters, deadly, fingerprint, numbered, rows_of, table, write
from tests.training.test_resume import kill_at_flush
from tests.training.test_run import STAGE, conversations, fresh

KEYS: dict[str, Any] = {
    "data.stream": True,
    "epochs": 2,
    "data.tokens_per_step": 240,
    "data.block_tokens": 60,
    "data.shuffle_buffer": 120,
}


def feed_of(source: Any, *, seed: int = 0, **keys: Any) -> Feed:
    return Feed(source, by_letters, stage_of(KEYS | keys), encoder="letters", seed=seed)


def merged(
    feed: Feed, size: int, state: dict[str, Any] | None = None
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Steps of ``size`` ranks, side by side: the rows of each, and the state of all."""
    streams = [feed.steps(state, rank, size) for rank in range(size)]
    try:
        while True:
            steps = [next(stream) for stream in streams]
            lanes = {lane: place for step in steps for lane, place in step.state["lanes"].items()}
            yield [row for step in steps for row in rows_of(step.blocks)], {"lanes": lanes}
            if min(step.after.epoch for step in steps) >= (feed.stage.epochs or NEVER):
                return
    finally:
        for stream in streams:
            stream.close()


@given(
    st.lists(st.integers(0, 25), min_size=1, max_size=3).filter(any),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(10, 60),
    st.integers(1, 3),
)
@settings(max_examples=12, deadline=None)
def test_every_row_once_in_each_epoch(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    row_group: int,
    lanes: int,
    buffer: int,
    epochs: int,
) -> None:
    folder = write(tmp_path_factory.mktemp("once"), counts, row_group)
    feed = feed_of(
        folder,
        **{"data.tokens_per_step": 40 * lanes, "data.block_tokens": 40, "data.shuffle_buffer": buffer},
        epochs=epochs,
    )
    steps = list(feed.steps())
    rows = all_rows(iter(steps))
    assert sorted(rows) == sorted(list(range(sum(counts))) * epochs)
    assert all(0 < len(step.blocks) <= lanes for step in steps)
    assert [s.after.epoch for s in steps] == sorted(s.after.epoch for s in steps)
    assert steps[-1].after == (epochs, pytest.approx(epochs))
    # an epoch is over when all of it was seen
    for epoch in range(1, epochs + 1):
        seen = all_rows(
            s for s in steps[: next(k for k, s in enumerate(steps) if s.after.epoch >= epoch) + 1]
        )
        assert set(np.flatnonzero(np.bincount(seen) >= epoch)) == set(range(sum(counts)))


def test_the_same_steps_for_any_number_of_ranks(tmp_path: Path) -> None:
    feed = feed_of(write(tmp_path, [70, 50], row_group=9))
    assert len(feed.lanes) == 4
    expected = [sorted(rows) for rows, _ in merged(feed, 1)]
    assert sorted(row for rows in expected for row in rows) == sorted(list(range(120)) * 2)
    for size in (2, 3, 4):
        assert [sorted(rows) for rows, _ in merged(feed, size)] == expected


def test_going_on_after_every_step_also_on_other_ranks(tmp_path: Path) -> None:
    feed = feed_of(write(tmp_path, [40, 25], row_group=9), **{"data.shuffle_buffer": 50})
    whole = list(merged(feed, 1))
    assert max(feed.lanes.chunks(lane) for lane in range(4)) > 1
    for at in range(len(whole) - 1):
        state = json.loads(json.dumps(whole[at][1]))
        rest = list(merged(feed_of(tmp_path, **{"data.shuffle_buffer": 50}), 1 + at % 3, state))
        assert [sorted(rows) for rows, _ in rest] == [sorted(rows) for rows, _ in whole[at + 1 :]]
        assert [found for _, found in rest] == [found for _, found in whole[at + 1 :]]


def test_blocks_and_counts_go_on_bit_for_bit(tmp_path: Path) -> None:
    write(tmp_path, [60], row_group=9)
    table(["aB", "mute", "x" * 20 + "Y"] * 10).write_parquet(tmp_path / "part-001.parquet")
    keys = {
        "data.max_length": 12,
        "data.overlong": "drop",
        "steps": 30,
        "epochs": None,
        "data.sources": {"all": 1.5},
    }
    feed = feed_of(tmp_path, **keys)
    steps = list(islice(feed.steps(), 30))
    whole = [(fingerprint(step.blocks), step.state) for step in steps]
    again = feed_of(tmp_path, **keys)
    rest = [(fingerprint(step.blocks), step.state) for step in islice(again.steps(whole[11][1]), 18)]
    assert rest == whole[12:]
    assert again.counts == feed.counts
    assert feed.counts.overlong > 0
    assert feed.counts.mute > 0
    assert all(step.after.epoch > 0 for step in steps[-3:])  # without end


@pytest.mark.parametrize(("workers", "count"), [(1, 5), (2, None)])
def test_processes_change_nothing_and_leave_nothing(tmp_path: Path, workers: int, count: int | None) -> None:
    write(tmp_path, [200, 150], row_group=40)
    expected = [(fingerprint(step.blocks), step.state) for step in feed_of(tmp_path).steps()]
    stream = feed_of(tmp_path, **{"data.workers": workers}).steps()
    found = [(fingerprint(step.blocks), step.state) for step in islice(stream, 2)]
    assert len(multiprocessing.active_children()) == workers
    found += [(fingerprint(step.blocks), step.state) for step in islice(stream, count)]
    assert found == expected[: len(found)]
    assert count or len(found) == len(expected)
    stream.close()
    assert not multiprocessing.active_children()
    assert not [t for t in threading.enumerate() if t.name == "chunks"]


def test_a_process_that_dies_is_told_and_nothing_hangs(tmp_path: Path) -> None:
    write(tmp_path, [400], row_group=100)
    table([*numbered(30), "#"]).write_parquet(tmp_path / "part-001.parquet")
    feed = Feed(tmp_path, deadly, stage_of(KEYS | {"data.workers": 2}), encoder="deadly")
    with pytest.raises(ItemicError, match=r"died \(killed by signal SIGKILL\), probably at .*parquet, row"):
        list(feed.steps())
    assert not multiprocessing.active_children()
    time.sleep(0.3)
    assert not [t for t in threading.enumerate() if t.name == "chunks" or "_populate_queue" in t.name]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_row_is_named(tmp_path: Path, workers: int) -> None:
    write(tmp_path, [50])
    table([*numbered(6), "oh!"]).write_parquet(tmp_path / "part-001.parquet")
    stream = feed_of(tmp_path, **{"data.workers": workers}).steps()
    with pytest.raises(
        DataError, match=r"part-001\.parquet, row 6 \(uuid 'u6'\): ValueError: an exclamation"
    ):
        list(stream)
    assert not multiprocessing.active_children()


def change(file: Path) -> None:
    other = file.with_name("other")
    table(["aB"]).write_parquet(other)
    other.replace(file)  # in one go: it is being read


def test_a_file_that_goes_or_changes_between_epochs_is_named(tmp_path: Path) -> None:
    write(tmp_path, [60, 60], row_group=20)
    for harm, told in ((Path.unlink, "is gone"), (change, "has changed")):
        feed = feed_of(tmp_path, **{"data.shuffle_buffer": 16})
        stream = feed.steps()
        while next(stream).after.epoch < 1:
            pass
        harm(tmp_path / "part-001.parquet")
        with pytest.raises(DataError, match=rf"part-001\.parquet {told}"):
            list(stream)
        write(tmp_path, [60, 60], row_group=20)


def test_no_more_rows_than_the_buffer_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows asked for and not yet given out whole, at any time."""
    feed = feed_of(write(tmp_path, [500, 500], row_group=100), **{"data.shuffle_buffer": 100})
    size: dict[tuple[int, int, int], int] = {}
    held: set[tuple[int, int, int]] = set()
    most = 0
    ask, get = crew.Crew.ask, crew.Crew.get

    def asked(self: crew.Crew, key: tuple[int, int, int]) -> None:
        nonlocal most
        size[key] = sum(stop - begin for _, begin, stop in feed.lanes.spans(*key))
        held.add(key)
        most = max(most, sum(size[k] for k in held))
        ask(self, key)

    def got(self: crew.Crew, key: tuple[int, int, int]) -> Any:
        held.difference_update([k for k in held if k[0] == key[0] and k[1:] < key[1:]])  # given out before
        return get(self, key)

    monkeypatch.setattr(crew.Crew, "ask", asked)
    monkeypatch.setattr(crew.Crew, "get", got)
    assert len(all_rows(feed.steps())) == 2000
    assert 50 < most <= 100


def test_fewer_rows_than_lanes_and_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path, [0, 3])
    feed = feed_of(tmp_path)
    steps = list(feed.steps())
    assert sorted(all_rows(iter(steps))) == [0, 0, 1, 1, 2, 2]
    assert [sorted(rows) for rows, _ in merged(feed, 4)] == [sorted(rows_of(step.blocks)) for step in steps]
    forever = list(islice(feed_of(tmp_path, steps=5, epochs=None).steps(), 5))
    assert all(len(step.blocks) == 3 for step in forever)
    idle = next(feed_of(tmp_path, steps=5, epochs=None).steps(rank=0, size=4))
    assert idle.after.epoch == NEVER or idle.blocks  # a rank without rows doesn't hold the others back


def test_the_loss_is_that_of_kept_rows(tmp_path: Path) -> None:
    write(tmp_path, [100, 80], row_group=30, sources=("a", "b"))
    for normalizer in ("token", "row"):
        stage = stage_of(KEYS | {"epochs": 1, "objective.normalizer": normalizer})
        feed = Feed(tmp_path, by_letters, stage, encoder="letters")
        kept = KeptRows(training_rows(tmp_path, by_letters, encoder="letters", max_length=1024), stage)
        expected = list(islice(kept.steps(), kept.total_steps()))
        found = list(feed.steps())
        assert sum(step.sizes.weight for step in found) == pytest.approx(
            sum(step.sizes.weight for step in expected)
        )
        for name in ("targets", "row_tokens"):
            given, wanted = (sum(step.sizes.counts[name] for step in each) for each in (found, expected))
            assert given == wanted
        assert feed.names == kept.names


def test_packing_none_takes_the_same_steps_row_by_row(tmp_path: Path) -> None:
    write(tmp_path, [100])
    blocks, rows = (
        list(feed_of(tmp_path, **{"data.packing": packing}).steps()) for packing in ("blocks", "none")
    )
    assert [rows_of(step.blocks) for step in rows] == [rows_of(step.blocks) for step in blocks]
    assert all(len(forest.row_leaf) == 1 for step in rows for forest in step.blocks)


def test_the_number_of_steps_is_about_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [600, 300], row_group=100)
    feed = feed_of(tmp_path)
    with caplog.at_level(logging.INFO, "itemic"):
        estimate = feed.total_steps()
    assert estimate == pytest.approx(len(list(feed.steps())), rel=0.1)
    assert f"about {estimate} steps, by" in caplog.text
    assert "blocks are" in caplog.text
    assert feed_of(tmp_path, epochs=None, steps=7).total_steps() == 7


def test_remote_files_and_lists_of_files(tmp_path: Path) -> None:
    write(tmp_path, [30, 20], row_group=7)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path) + "/", "/feed/", recursive=True)
    local = [fingerprint(step.blocks) for step in feed_of(tmp_path).steps()]
    assert [fingerprint(step.blocks) for step in feed_of("memory://feed").steps()] == local
    parts = sorted(str(file) for file in tmp_path.glob("*.parquet"))
    (tmp_path / "list.json").write_text(json.dumps(parts))
    assert [fingerprint(step.blocks) for step in feed_of(tmp_path / "list.json").steps()] == local
    assert [fingerprint(step.blocks) for step in feed_of(str(tmp_path / "*.parquet")).steps()] == local
    assert feed_of("memory://feed").digest == feed_of(tmp_path).digest
    assert Feed(tmp_path, by_letters, stage_of(KEYS), encoder="other").digest != feed_of(tmp_path).digest


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a table was given"):
        feed_of(table(["aB"]))
    table([]).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="there are no conversations in"):
        feed_of(tmp_path)
    table(["mute", "x" * 50 + "Y"] * 9).write_parquet(tmp_path / "a.parquet")
    for keys in ({}, {"epochs": None, "steps": 4}):
        with pytest.raises(
            DataError, match=r"nothing to learn from .* \d+ are longer than 12 tokens and \d+ have no"
        ):
            next(feed_of(tmp_path, **{"data.max_length": 12, "data.overlong": "drop"}, **keys).steps())
    with pytest.raises(ConfigError, match="sources names zzz"):
        feed_of(tmp_path, **{"data.sources": {"zzz": 2}})


def test_what_was_lost_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table(["aB", "mute", "x" * 20 + "Y"] * 10).write_parquet(tmp_path / "a.parquet")
    feed = feed_of(tmp_path, **{"data.max_length": 12, "data.overlong": "drop"}, epochs=1)
    with caplog.at_level(logging.WARNING, "itemic"):
        assert sum(len(step.blocks) for step in feed.steps()) > 0
    assert "10 of 30 rows over 12 tokens dropped, 10 without an answer dropped" in caplog.text
    assert feed.notes["read"] == 30
    assert feed.notes["overlong"] == 10
    assert feed.notes["without_answer"] == 10


# ------------------------------------------------------------------ training


def small_letters(batch: pl.DataFrame) -> TokenRows:
    """Letters as tokens of the tiny model."""
    rows = by_letters(batch)
    return TokenRows(rows.tokens % VOCABULARY, rows.offsets, rows.weights)


LEARN = {
    "learning_rate": 1e-2,
    "objective.dropout": 0.2,
    "checkpoints.every": 2,
    "logs.every": 1,
    "engine.precision": "float32",
}


def learn(data: str, folder: str, die_at: int | None) -> None:
    """One process: trains from a stream to the end, or until a flush to the disk kills it."""
    torch.set_num_threads(1)
    if die_at is not None:
        kill_at_flush(die_at)
    lm, root = tiny_lm(tied=False), Path(folder)
    feed = Feed(data, small_letters, stage_of(KEYS | LEARN | {"data.shuffle_buffer": 40}), encoder="small")
    lm_trainer(lm, feed, feed.stage, folder=root).run()
    save_file({name: weight.clone() for name, weight in lm.state_dict().items()}, root / "final.part")
    (root / "final.part").rename(root / "final.safetensors")


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_feed", "torch.utils.tensorboard"])
    return context


def test_a_killed_training_ends_with_the_same_weights(processes: Any, tmp_path: Path) -> None:
    write(tmp_path / "data", [90, 60], row_group=20)

    def start(folder: str, die_at: int | None) -> int:
        child = processes.Process(target=learn, args=(str(tmp_path / "data"), str(tmp_path / folder), die_at))
        child.start()
        child.join()
        return int(child.exitcode)

    assert start("whole", None) == 0
    assert [start("killed", die_at) for die_at in (6, 9, None)] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    one, two = ((tmp_path / name / "final.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == two
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    losses = [[json.loads(line)["loss"] for line in found] for found in lines]
    assert losses[0] == losses[1]
    assert json.loads(lines[0][-1])["epoch"] == 2


def hold(data: str, names: Any) -> None:
    """Start a stream's processes, tell who they are, and wait to be killed."""
    stream = feed_of(data, **{"data.workers": 2}).steps()
    next(stream)
    names.put([child.pid for child in multiprocessing.active_children()])
    time.sleep(600)


def test_processes_end_with_a_training_that_is_killed(processes: Any, tmp_path: Path) -> None:
    write(tmp_path, [50])
    names = processes.Queue()
    child = processes.Process(target=hold, args=(str(tmp_path), names))
    child.start()
    pids = names.get(timeout=120)
    assert len(pids) == 2
    child.kill()
    child.join()
    until = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_training_from_files_with_the_model_s_own_tokenizer(tmp_path: Path) -> None:
    pl.concat([conversations()] * 6).write_parquet(tmp_path / "c.parquet", row_group_size=10)
    stage = STAGE | {"data.stream": True, "data.shuffle_buffer": 64, "validation.every": 3}

    def run(name: str, validate: Any = lambda _: {"ndcg@10": 0}, **keys: Any) -> dict[str, torch.Tensor]:
        output = tmp_path / name
        model = train(
            fresh(), tmp_path / "c.parquet", stage=stage_of(stage | keys), output=output, validate=validate
        )
        return copy_of(model.lm)

    def pull_the_plug(_: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    straight = run("straight")
    with pytest.raises(KeyboardInterrupt):
        run("other", pull_the_plug)
    other = run("other", **{"data.workers": 1})  # goes on with a process
    assert all(torch.equal(other[name], weight) for name, weight in straight.items())
    record = json.loads((tmp_path / "straight" / "training.json").read_text())
    assert record["rows"]["conversations"] == 78
    assert record["rows"]["sources"] == ["C", "sequence"]
    assert record["rows"]["read"] > 0
    assert not (tmp_path / "c.parquet.tokens").exists()
    log = [json.loads(line) for line in (tmp_path / "straight" / "log.jsonl").read_text().splitlines()]
    assert "loss/source sequence" in log[0] or "loss/source sequence" in log[2]
    fill = [line["block_fill"] for line in log if "block_fill" in line]
    assert all(0 < value <= 1 for value in fill)
    with pytest.raises(ArtifactError, match="shuffle_buffer was 64, now 32"):
        run("straight", **{"data.shuffle_buffer": 32})

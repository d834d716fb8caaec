"""One suite for all trackers: numbers go in, a run that goes on adds to them, a missing library is named."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from itemic.errors import ConfigError
from itemic.train.journal import journal
from itemic.train.stage import TRACKERS as NAMES
from itemic.train.trackers import TRACKERS


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "SWANLAB_MODE"):
        monkeypatch.setenv(name, "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))


def installed(name: str) -> str:
    if importlib.util.find_spec(TRACKERS[name].package.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    return name


def numbers(name: str, folder: Path) -> dict[int, dict[str, float]]:
    """What a tracker's files hold, by step; for those whose files can be read."""
    found: dict[int, dict[str, float]] = {}
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
        for key in events.Tags()["scalars"]:
            for event in events.Scalars(key):
                found.setdefault(event.step, {})[key] = event.value
    if name == "wandb":
        from wandb.proto.wandb_internal_pb2 import Record

        for file in sorted(folder.rglob("*.wandb")):
            for data in log_records(file.read_bytes()):
                record = Record()
                record.ParseFromString(data)
                if record.WhichOneof("record_type") == "history":
                    items = {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                    own = {key: value for key, value in items.items() if not key.startswith("_")}
                    found.setdefault(items["_step"], {}).update(own)
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, behind W&B's own seven bytes: blocks of 32 KiB, each piece with
    checksum, length and kind (1 whole, 2 first, 3 middle, 4 last)."""
    at, pieces = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        pieces += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield pieces
            pieces = b""


def test_the_table_and_the_stage_know_the_same() -> None:
    assert tuple(TRACKERS) == NAMES


@pytest.mark.parametrize("name", TRACKERS)
def test_numbers_arrive_and_a_second_part_adds_to_them(name: str, tmp_path: Path) -> None:
    installed(name)
    folder = tmp_path / "run" / "train.all"
    with journal(folder, "all", 0, 4, trackers=[name], config={"learning_rate": 0.1}) as book:
        book.write(1, 0.25, {"loss": 2.5, "loss/text": 1.5})
        book.write(2, 0.5, {"loss": 2.0, "samples": [{"prompt": "p"}]})
    with journal(folder, "all", 2, 4, trackers=[name], config={"learning_rate": 0.1}) as book:
        book.write(3, 0.75, {"loss": 1.75})
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 2.5), (2, 2.0), (3, 1.75)]
    if name != "trackio":
        assert any((folder / name).rglob("*")), "it left no file"
    if name in ("tensorboard", "wandb"):
        expected = {
            1: {"train/loss": 2.5, "loss/text": 1.5},
            2: {"train/loss": 2.0},
            3: {"train/loss": 1.75},
        }
        assert numbers(name, folder / name) == expected


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_named_before_anything_is_done(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, TRACKERS[name].package, None)
    with pytest.raises(ConfigError, match=f"tracker {name} needs"):
        journal(tmp_path, "all", 0, 4, trackers=[name]).__enter__()

"""One suite for all trackers: numbers and tables go in, a run that goes on adds to them, a missing library is named."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from itemic.errors import ConfigError
from itemic.trackers import TRACKERS, check_trackers, open_trackers
from itemic.trackers.tracker import markdown_table
from itemic.training.journal import journal


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
    if name == "trackio":
        from trackio.sqlite_storage import SQLiteStorage

        for row in SQLiteStorage.get_logs(
            "itemic", f"{folder.parents[1].name} {folder.parent.name.removesuffix('.partial')}"
        ):
            own = {key: value for key, value in row.items() if key not in ("step", "timestamp")}
            found.setdefault(row["step"], {}).update(own)
    if name == "wandb":
        import wandb
        from wandb.proto.wandb_internal_pb2 import Record

        wandb.teardown()  # the process that writes its files ends, and has written all
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


@pytest.mark.parametrize("name", TRACKERS)
def test_numbers_arrive_and_a_second_part_adds_to_them(name: str, tmp_path: Path) -> None:
    installed(name)
    folder = tmp_path / "run" / "train.all"
    with journal(folder, "all", 0, 4, trackers=[name], config={"learning_rate": 0.1}) as book:
        book.write(1, 0.25, {"loss": 2.5, "loss/text": 1.5})
        book.write(2, 0.5, {"loss": 2.0, "samples": [{"prompt": "p"}]})
    if name == "wandb":
        time.sleep(1)  # its folders are named by the second
    with journal(folder, "all", 2, 4, trackers=[name], config={"learning_rate": 0.1}) as book:
        book.write(3, 0.75, {"loss": 1.75})
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 2.5), (2, 2.0), (3, 1.75)]
    if name != "trackio":
        assert any((folder / name).rglob("*")), "it left no file"
    if name != "swanlab":
        expected = {
            1: {"train/loss": 2.5, "loss/text": 1.5},
            2: {"train/loss": 2.0},
            3: {"train/loss": 1.75},
        }
        found = numbers(name, folder / name)
        losses = {
            step: {k: v for k, v in values.items() if not k.startswith("samples")}
            for step, values in found.items()
        }
        assert losses == expected


def shown(name: str, folder: Path) -> str:
    """All text that a tracker's files hold of tables."""
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
        assert events.Tags()["tensors"] == ["predictions/text_summary"]
        return "".join(
            e.tensor_proto.string_val[0].decode() for e in events.Tensors("predictions/text_summary")
        )
    if name == "trackio":
        return json.dumps(numbers(name, folder), ensure_ascii=False)
    kind = "*.table.json" if name == "wandb" else "*"
    files = [file for file in sorted(folder.rglob(kind)) if file.is_file()]
    return "".join(file.read_text(encoding="utf-8", errors="ignore") for file in files)


@pytest.mark.parametrize("name", TRACKERS)
def test_tables_arrive_with_what_stands_in_them(name: str, tmp_path: Path) -> None:
    installed(name)
    columns, rows = ["user", "history", "score"], [["u1", "[/red] café", 0.5], ["u2", "plain", 1.0]]
    folder = tmp_path / "run" / "evaluate.partial"
    with open_trackers([name], folder, {"beams": 5}, run=folder) as trackers:
        trackers.write(10, {"hr@10": 0.25})
        trackers.table(10, "predictions", columns, rows)
        trackers.table(10, "nothing", columns, [])
    text = shown(name, folder / name)
    for word in (*columns, "u1", "[/red] café", "plain"):
        assert word in text, text[:2000]


def test_markdown_shows_what_it_is_given() -> None:
    text = markdown_table(["a", "b"], [["x|y\n<b>*z*", 0.123456], ["`q`", 3]])
    assert text.splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| x&#124;y<br>&lt;b>&#42;z&#42; | 0.1235 |",
        "| &#96;q&#96; | 3 |",
    ]


def test_nobody_logged_in_is_offline_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("wandb"), installed("swanlab")
    for key in ("WANDB_MODE", "SWANLAB_MODE", "WANDB_API_KEY", "SWANLAB_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    for key in ("HOME", "SWANLAB_SAVE_DIR"):
        monkeypatch.setenv(key, str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.chdir(tmp_path)
    told = check_trackers(["tensorboard", "wandb", "swanlab", "wandb"])
    assert [line.partition(":")[0] for line in told] == ["tracker wandb", "tracker swanlab"]
    with open_trackers(["wandb", "swanlab"], tmp_path / "run" / "all") as trackers:
        trackers.write(1, {"loss": 1.0})
    assert list((tmp_path / "run" / "all" / "wandb").rglob("offline-run-*"))
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password " + "a" * 40)
    monkeypatch.setenv("SWANLAB_API_KEY", "k" * 21)
    assert check_trackers(["wandb", "swanlab"]) == []
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.example")
    assert len(check_trackers(["wandb"])) == 1
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert check_trackers(["wandb"]) == []


def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'board'"):
        check_trackers(["board"])
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match="tracker trackio needs trackio") as caught:
        check_trackers(["trackio"])
    assert "itemic[trackio]" in str(caught.value)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_named_before_anything_is_done(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, TRACKERS[name].package, None)
    with pytest.raises(ConfigError, match=f"tracker {name} needs"):
        journal(tmp_path, "all", 0, 4, trackers=[name]).__enter__()

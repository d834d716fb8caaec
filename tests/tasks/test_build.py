from __future__ import annotations

import json
from pathlib import Path

import pytest

from itemic import schema as c
from itemic.errors import ArtifactError, ConfigError
from itemic.tasks import TASKS, Conversations, build_conversations
from itemic.tasks.build import mixture
from tests.tasks.helpers import small


def test_on_disk_and_in_memory_are_the_same_rows(tmp_path: Path) -> None:
    dataset, index = small()
    tasks = [{"task": "A", "limit": 30}, {"task": "C", "windows": ["all"]}, {"task": "sequence"}]
    held = build_conversations(dataset, index, tasks, seed=5)
    built = build_conversations(dataset, index, tasks, seed=5, output=tmp_path / "out", rows_per_part=20)
    assert built.read().equals(held.read())
    assert Conversations.open(tmp_path / "out").read().sort(c.UUID).equals(held.read().sort(c.UUID))
    assert built.counts == held.counts == dict(held.read()[c.SOURCE].value_counts().iter_rows())
    assert json.loads((tmp_path / "out" / "conversations.json").read_text())["counts"] == built.counts
    assert len(list((tmp_path / "out" / "A").glob("*.parquet"))) == 2
    assert not (tmp_path / "out" / ".partial").exists()
    alone = TASKS["A"].build(dataset, index, seed=5, limit=30)
    assert held.read().filter(held.read()[c.SOURCE] == "A").equals(alone)


def test_a_second_build_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    dataset, index = small()
    build_conversations(dataset, index, [{"task": "A"}, {"task": "D"}], output=tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "part-00000.parquet").write_text("precious")
    build_conversations(dataset, index, [{"task": "D"}], output=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["D", "conversations.json", "mine"]
    with pytest.raises(ArtifactError, match="mine is not of an earlier build"):
        build_conversations(dataset, index, [{"task": "D", "source": "mine"}], output=tmp_path)
    assert (tmp_path / "mine" / "part-00000.parquet").read_text() == "precious"
    assert (tmp_path / "D" / "part-00000.parquet").exists()


def test_a_build_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, index = small()
    before = build_conversations(dataset, index, [{"task": "A"}], output=tmp_path).read()

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("polars.DataFrame.write_parquet", full)
    with pytest.raises(OSError, match="No space"):
        build_conversations(dataset, index, [{"task": "A", "seed": 9}], output=tmp_path)
    assert Conversations.open(tmp_path).read().equals(before)
    assert not (tmp_path / ".partial").exists()


def test_one_task_twice_under_two_names() -> None:
    dataset, index = small()
    tasks = [
        {"task": "C", "source": "long", "windows": ["all"]},
        {"task": "C", "source": "short", "windows": [2]},
    ]
    built = build_conversations(dataset, index, tasks)
    assert set(built.counts) == {"long", "short"}
    assert built.read()[c.UUID].n_unique() == sum(built.counts.values())


@pytest.mark.parametrize(
    ("counts", "weights", "expected"),
    [
        ([100, 50, 70], [None, None, None], [100, 50, 70]),
        ([100, 50, 70], [1, 1, None], [50, 50, 70]),
        ([100, 50], [0.8, 0.2], [100, 25]),
        ([100, 10], [1, 9], [1, 10]),
        ([100, 0], [1, 1], [100, 0]),
        ([], [], []),
    ],
)
def test_mixture(counts: list[int], weights: list[float | None], expected: list[int]) -> None:
    assert mixture(counts, weights) == expected


def test_weights_and_limits_thin_the_rows() -> None:
    dataset, index = small()
    whole = build_conversations(dataset, index, [{"task": "A"}, {"task": "C"}])
    tasks = [{"task": "A", "weight": 3, "limit": 90}, {"task": "C", "weight": 1}]
    thin = build_conversations(dataset, index, tasks)
    assert thin.counts == {"A": 90, "C": 30}
    assert set(thin.read()[c.MESSAGES]) <= set(whole.read()[c.MESSAGES])


def test_all_faulty_entries_are_named_at_once() -> None:
    dataset, index = small()
    tasks = [
        {"task": "Q"},
        {"limit": 3},
        {"task": "A", "limit": 0},
        {"task": "A", "weight": -1},
        {"task": "A", "colour": 1},
        {"task": "B", "seed": "x"},
        {"task": "D", "source": "a/b"},
        {"task": "C"},
        {"task": "C"},
    ]
    with pytest.raises(ConfigError) as caught:
        build_conversations(dataset, index, tasks)
    said = caught.value.message
    for number in (0, 1, 2, 3, 4, 5, 6, 8):
        assert f"tasks[{number}]" in said
    assert "tasks[7]" not in said
    with pytest.raises(ConfigError, match="tasks is empty"):
        build_conversations(dataset, index, [])

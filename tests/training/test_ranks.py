"""What ranks tell each other, and what they say when one is lost."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from itemic.errors import ConfigError, ItemicError
from itemic.training.ranks import ALONE, joined, told_of_loss
from tests.training import processes


def talk(folder: str) -> None:
    with joined() as ranks, joined() as inner:
        assert inner is ranks
        found = {
            "total": ranks.total([ranks.rank + 1, 0.5]),
            "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
            "gather": ranks.gather({"rank": ranks.rank}),
            "share": ranks.share(f"from {ranks.rank}"),
        }
        file = Path(folder) / "made"
        ranks.first(lambda: None if file.exists() else file.write_text(str(ranks.rank)))
        found["first"] = file.read_text()
        (Path(folder) / f"{ranks.rank}.json").write_text(json.dumps(found))


def test_every_rank_hears_the_same(tmp_path: Path) -> None:
    processes.run(talk, 3, str(tmp_path), folder=tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert (
        found
        == [
            {
                "total": [6.0, 1.5],
                "any": [True, False],
                "gather": [{"rank": 0}, {"rank": 1}, {"rank": 2}],
                "share": "from 0",
                "first": "0",
            }
        ]
        * 3
    )


def test_one_process_is_its_only_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as ranks:
        assert ranks is ALONE
    assert ALONE.total([1, 2]) == [1, 2]
    assert ALONE.gather("x") == ["x"]
    assert ALONE.first(lambda: 3) == 3


def lose(folder: str) -> None:
    with joined() as ranks:
        ranks.wait()
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            ranks.wait()
        except RuntimeError as error:
            with (
                pytest.raises(ItemicError, match=r"rank 0 of 2 lost another rank") as caught,
                told_of_loss(ranks),
            ):
                raise
            Path(folder, "told").write_text(caught.value.remedy)
            raise SystemExit(0) from error


def test_a_lost_rank_is_an_error_and_no_hang(tmp_path: Path) -> None:
    with processes.ended(processes.begin(lose, 2, str(tmp_path), folder=tmp_path)) as children:
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, -signal.SIGKILL]
    assert "Start the same command again" in (tmp_path / "told").read_text()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), told_of_loss(ALONE):
        raise RuntimeError("size mismatch")


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "RANK is ''"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR, MASTER_PORT is missing"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK is 2"),
    ],
)
def test_half_a_launcher_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=text), joined():
        pass

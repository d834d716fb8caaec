from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate import stream
from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.counting import Ranked
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.stream import Watch, rank_all
from itemic.metrics import hit_rate, ranks_of
from tests.evaluate.helpers import make_dataset, random_dataset

# ranks slowly, so that there is time to kill it
KILLED = """
import sys, time
from itemic.evaluate.baselines import Transitions
from itemic.evaluate.stream import rank_all
from tests.evaluate.helpers import random_dataset
dataset = random_dataset(200)
class Slow(Transitions):
    def rank(self, *arguments):
        time.sleep(.05)
        return super().rank(*arguments)
rank_all(Slow(dataset), dataset.split("test"), dataset.item_ids, k=10, output=sys.argv[1], part_size=5)
"""


def test_equals_ranking_at_once() -> None:
    dataset = random_dataset(60)
    test = dataset.split("test")
    ranker = Transitions(dataset)
    ranking = rank_all(ranker, test, dataset.item_ids, k=7, part_size=11)
    items, scores = ranker.rank(test, 7)
    parts = list(ranking.arrays())
    assert len(parts) == 6
    assert (np.concatenate([part.items for part in parts]) == items).all()
    assert np.allclose(np.concatenate([part.scores for part in parts]), scores)


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "ranking"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], cwd=Path(__file__).parents[2], env=os.environ
    )
    deadline = time.monotonic() + 60
    while len(list(folder.glob("part-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("part-*")}
    assert 3 <= len(before) < 40

    dataset = random_dataset(200)
    asked: list[int] = []

    class Counting(Transitions):
        def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> Ranked:
            asked.append(len(requests))
            return super().rank(requests, k, exclude_history)

    ranker, test = Counting(dataset), dataset.split("test")
    ranking = rank_all(ranker, test, dataset.item_ids, k=10, output=folder, part_size=5)
    assert sum(asked) == len(test) - 5 * len(before)
    after = {file.name: file.stat().st_mtime_ns for file in folder.glob("part-*")}
    assert {name: after[name] for name in before} == before
    whole = np.concatenate([part.items for part in ranking.arrays()])
    assert (whole == ranker.rank(test, 10)[0]).all()
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [*after, "ranking.json", "catalogue.parquet"]
    )


def test_interim_metrics_every_twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = random_dataset(200)
    test = dataset.split("test")
    ranker = Popularity(dataset)
    monkeypatch.setattr(stream, "LINES_APART", 0.0)
    told: list[tuple[int, dict[str, float]]] = []
    watch = Watch(lambda done, numbers: told.append((done, numbers)))
    lines: list[str] = []
    monkeypatch.setattr(stream.log, "info", lambda text, *values: lines.append(text % values))
    rank_all(ranker, test, dataset.item_ids, k=10, part_size=2, watch=watch)
    assert [done for done, _ in told] == list(range(10, 201, 10))
    assert len(lines) == 10
    exact = hit_rate(ranks_of(ranker.rank(test, 10)[0], test.targets), 10).mean()
    assert told[-1][1]["hr@10"] == pytest.approx(exact)
    assert f"HR@10 {exact:.4f}" in lines[-1]
    assert "200 of 200" in lines[-1]


def test_unknown_targets_are_ranked_without_metrics(caplog: pytest.LogCaptureFixture) -> None:
    dataset = make_dataset({"u": list("abc"), "v": list("bca")}, list("abc"))
    test = dataset.split("test")
    test = Requests(test.users, test.offsets, test.items, np.full(2, -1, np.int32))
    ranking = rank_all(Popularity(dataset), test, dataset.item_ids, k=2)
    assert [part.targets.tolist() for part in ranking.arrays()] == [[-1, -1]]
    assert "HR@" not in caplog.text


def test_a_ranking_without_a_folder_lives_as_long_as_it_is_held() -> None:
    dataset = random_dataset(5)
    ranking = rank_all(Popularity(dataset), dataset.split("test"), dataset.item_ids, k=1)
    folder = ranking.folder
    assert len(Ranking.load(folder)) == 5
    del ranking
    assert not folder.exists()


def test_k_below_one_is_refused() -> None:
    dataset = random_dataset(5)
    with pytest.raises(ConfigError):
        rank_all(Popularity(dataset), dataset.split("test"), dataset.item_ids, k=0)

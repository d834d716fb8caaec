"""A teacher's server, in a process of its own, asked over a real socket by many at once."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.data.sequences import Requests
from itemic.errors import DataError
from itemic.teacher.desk import Body, Desk
from itemic.teacher.serve import Busy, Queue
from itemic.teacher.teacher import Teacher
from tests.runs import start

from ..sid.helpers import make_dataset
from .helpers import tiny

ITEMS = 30
IDS = [str(100 + row) for row in range(ITEMS)]
PATHS = [["A", "B"] if row < 4 else ["A"] if row < 10 else ["Z"] for row in range(ITEMS)]


def write(root: Path, ids: Sequence[str] = IDS) -> tuple[Teacher, Dataset]:
    """What the command finds of a run."""
    teacher = tiny(item_ids=list(IDS))
    teacher.save(root / "teacher")
    titles = [f"t{row}" for row in range(ITEMS)]
    data = make_dataset(titles, {"u": [0, 1, 2]}, ids=ids, categories=PATHS)
    data.save(root / "data")
    return teacher, data


@dataclass
class Served:
    teacher: Teacher
    url: str
    process: subprocess.Popen[str]
    client: httpx.Client

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def lists(self, histories: Sequence[Sequence[str]], k: int, **more: Any) -> list[list[str]]:
        """As RecLM-gen's client sends it, but for the number of requests."""
        lengths = [len(history) for history in histories]
        users = [f"u{i}" for i in range(len(histories))]
        told = {"users": users, "item_lengths": lengths, "item_lists": histories, "k": k, "immediately": 1}
        answer = self.post("/inference", **(told | more))
        assert answer.status_code == 200, answer.text
        found: list[list[str]] = answer.json()["inference"]
        return found


@contextmanager
def serving(root: Path) -> Iterator[Served]:
    teacher, _ = write(root)
    process = start("teacher", "serve", root, "--port", "0")
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        assert found is not None, process.communicate()
        limits = httpx.Limits(max_connections=None)
        with httpx.Client(base_url=found[0], timeout=60, limits=limits) as client:
            yield Served(teacher, found[0], process, client)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("run")) as found:
        yield found


def drawn(count: int, seed: int = 0) -> list[list[str]]:
    """Histories, an empty one among them."""
    rng = np.random.default_rng(seed)
    return [[IDS[row] for row in rng.integers(0, ITEMS, length)] for length in rng.integers(0, 12, count)]


def best(teacher: Teacher, history: Sequence[str], k: int, **masks: Any) -> list[str]:
    """What the teacher itself says of one request."""
    items, _ = teacher.rank(_request(history), k, exclude_history=True, **masks)
    return [IDS[row] for row in items[0] if row >= 0]


def _request(history: Sequence[str]) -> Requests:
    rows = np.array([IDS.index(item) for item in history], np.int32)
    nobody = np.array(["u"], object)
    return Requests(nobody, np.array([0, len(rows)]), rows, np.array([-1], np.int32))


@pytest.mark.parametrize("immediately", [0, 1, False, True])
def test_lists_are_the_teacher_s(served: Served, immediately: int) -> None:
    histories = drawn(9)
    found = served.lists(histories, 5, immediately=immediately)
    assert found == [best(served.teacher, history, 5) for history in histories]
    assert not any(set(one) & set(history) for one, history in zip(found, histories, strict=True))


@pytest.mark.parametrize("immediately", [0, 1])
def test_ranks_are_places_in_the_teacher_s_list(served: Served, immediately: int) -> None:
    histories = drawn(6, seed=1)
    candidates = [[IDS[i], IDS[i + 9], IDS[29 - i], IDS[i]] for i in range(6)]
    told = {"users": ["a"] * 6, "item_lists": histories, "candidate_item_lists": candidates}
    answer = served.post("/ranking", **told, immediately=immediately)
    assert answer.status_code == 200, answer.text
    for history, items, ranks in zip(histories, candidates, answer.json()["ranking"], strict=True):
        whole = best(served.teacher, history, ITEMS)
        whole += [item for item in IDS if item in history]  # behind all others, in the catalogue's order
        assert ranks == [whole.index(item) for item in items]


def test_categories_and_candidates_are_hard(served: Served) -> None:
    history = [IDS[0], IDS[12]]
    inside = np.arange(4, dtype=np.int32)
    assert served.lists([history], 10, target_category=["+A, B"]) == [
        best(served.teacher, history, 10, allowed=[inside])
    ]
    for name, rows in (("A", range(10)), ("A, B", range(4)), ("A > B", range(4)), ("Z", range(10, ITEMS))):
        (within,) = served.lists([history], ITEMS, target_category=[f"+{name}"])
        (without,) = served.lists([history], ITEMS, target_category=[f"-{name}"])
        named = {IDS[row] for row in rows}
        assert set(within) == named - set(history)  # as many as there are, none from elsewhere
        assert set(without) == set(IDS) - named - set(history)
    given = [IDS[3], IDS[12], IDS[5], IDS[20]]
    (found,) = served.lists([history], 10, candidate_item_lists=[given])
    assert found == best(served.teacher, history, 10, allowed=[np.array([3, 5, 20], np.int32)])
    (both,) = served.lists([history], 10, candidate_item_lists=[given], target_category=["-A, B"])
    assert both == [item for item in found if item != IDS[3]]
    assert served.lists([history], 3, candidate_item_lists=[[]]) == [[]]
    two = served.lists([history, []], 30, target_category=["+A", "-A"])
    assert [len(one) for one in two] == [9, 20]


def test_many_clients_at_once_get_their_own_answers(served: Served) -> None:
    """Of requests that may wait, each asked alone on its own connection, many are computed at once."""
    histories = drawn(60, seed=2)
    before = served.client.get("/").json()

    def ask(i: int) -> list[str]:
        if i % 3 == 0:
            return served.lists([histories[i]], 1 + i % 10)[0]
        signs = {"target_category": ["-Z"]} if i % 3 == 1 else {}
        return served.lists([histories[i]], 1 + i % 10, immediately=0, **signs)[0]

    with ThreadPoolExecutor(60) as pool:
        found = list(pool.map(ask, range(60)))
    for i, one in enumerate(found):
        masks = {"excluded": [np.arange(10, ITEMS, dtype=np.int32)]} if i % 3 == 1 else {}
        assert one == best(served.teacher, histories[i], 1 + i % 10, **masks)
    after = served.client.get("/").json()
    assert after["answered"] - before["answered"] == 60
    assert after["computations"] - before["computations"] < 60 - 10  # 40 of them might wait


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("/inference", {"item_lists": [["nowhere"]], "item_lengths": [1]}, ["'nowhere'", "trained on"]),
        ("/inference", {"target_category": ["+Aa"]}, ["'Aa'", "Did you mean 'A'"]),
        ("/inference", {"target_category": ["A"]}, ["no sign", "+C or -C"]),
        ("/inference", {"target_category": ["+A", "-A"]}, ["1 users and 2 target categories"]),
        ("/inference", {"k": None}, ["k is missing"]),
        ("/inference", {"k": 0}, ["k: ", "greater than or equal to 1"]),
        ("/inference", {"item_lengths": [3]}, ["item_lengths"]),
        ("/inference", {"item_lists": []}, ["1 users and 0 item_lists"]),
        ("/inference", {"item_lists": None}, ["item_lists: "]),
        ("/inference", {"users": []}, ["users: "]),
        ("/inference", {"item_lists": "101"}, ["item_lists: "]),
        ("/inference", {"target_categories": ["+A"]}, ["target_categories: ", "target_category"]),
        ("/inference", {"candidate_item_lists": [["101", "x"]]}, ["candidate_item_lists, 0", "'x'"]),
        ("/ranking", {}, ["candidate_item_lists is missing"]),
        ("/ranking", {"candidate_item_lists": [["x"]]}, ["'x'"]),
        ("/ranking", {"candidate_item_lists": [["101"]], "target_category": ["+A"]}, ["/inference"]),
    ],
)
def test_bad_requests_say_what_to_do(
    served: Served, path: str, change: dict[str, Any], said: list[str]
) -> None:
    body = {"users": ["u"], "item_lengths": [1], "item_lists": [["101"]], "k": 3, "immediately": 0} | change
    answer = served.post(path, **body)
    assert answer.status_code == 422
    told = answer.json()
    assert set(told) == {"detail", "remedy"}
    assert told["remedy"]
    assert not [words for words in said if words not in answer.text.replace('\\"', '"')], answer.text


def test_what_is_no_json_is_refused(served: Served) -> None:
    answer = served.client.post("/inference", content=b"{users", headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "JSON" in answer.json()["detail"]
    assert served.post("/elsewhere").status_code == 404
    assert served.client.get("/inference").status_code == 405


def test_who_leaves_early_disturbs_nobody(served: Served) -> None:
    body = json.dumps({"users": ["u"], "item_lists": [["101"]], "k": 3, "immediately": 0}).encode()
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as gone:
        head = b"POST /inference HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        gone.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert served.lists([[IDS[1]]], 3, immediately=0) == [best(served.teacher, [IDS[1]], 3)]


def test_sigterm_ends_it_and_who_waits_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        assert served.client.get("/").json() == {
            "teacher": "SASRec",
            "items": ITEMS,
            "categories": 4,
            "waiting": 0,
            "answered": 0,
            "computations": 0,
        }
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(served.lists, [[IDS[i]]], 3, immediately=0) for i in range(4)]
            _until_open(served, 4)
            served.process.send_signal(signal.SIGTERM)
            for i, one in enumerate(waiting):
                assert one.result(timeout=60) == [best(served.teacher, [IDS[i]], 3)]
        assert served.process.wait(timeout=60) == 0
        assert served.process.stderr is not None
        assert "Traceback" not in served.process.stderr.read()


def _until_open(served: Served, count: int) -> None:
    """Wait until the server holds so many requests, which none of them has an answer to yet."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if served.client.get("/").json()["waiting"] >= count:
            return
        threading.Event().wait(0.02)
    raise AssertionError("the requests didn't arrive")


def test_a_teacher_alone_knows_no_categories() -> None:
    body = {"users": ["u"], "item_lists": [[IDS[1]]], "k": 3}
    teacher = tiny(item_ids=list(IDS))
    desk = Desk(teacher)
    assert desk.answer(desk.lists(Body(**body))) == [best(teacher, [IDS[1]], 3)]
    with pytest.raises(DataError) as caught:
        desk.lists(Body(**body, target_category=["+A"]))
    assert "--dataset" in caught.value.remedy


def test_so_many_wait_and_no_more() -> None:
    desk = Desk(tiny(item_ids=list(IDS)))
    one = desk.lists(Body(users=["u"], item_lists=[[IDS[1]]], k=3))

    async def ask() -> tuple[list[Any], int]:
        queue = Queue(desk, wait=60.0, batch=3, most=3)
        first = [asyncio.create_task(queue.ask(one)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 requests wait already"):
            await queue.ask([*one, *one])
        third = await queue.ask(one)  # as many as are computed together
        return [*(await asyncio.gather(*first)), third], queue.open

    found, left = asyncio.run(ask())
    assert found == [[best(desk.teacher, [IDS[1]], 3)]] * 3
    assert (left, desk.computations) == (0, 1)


def test_what_can_t_be_served_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [f"x{row}" for row in range(ITEMS)])
    assert call(["teacher", "serve", str(tmp_path), "--port", "0"]) == 2
    assert "catalogue" in capsys.readouterr().err
    assert call(["teacher", "serve", str(tmp_path / "nowhere")]) == 2
    assert "is not a teacher" in capsys.readouterr().err
    write(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert call(["teacher", "serve", str(tmp_path), "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert f"127.0.0.1:{port} can't be listened at" in told
    assert "--port" in told

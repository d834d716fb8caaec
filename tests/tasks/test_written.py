"""Rationales that an endpoint writes: what it is shown, what becomes of its words, and a process killed midway."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itemic import schema as c
from itemic.cli.app import call
from itemic.errors import ConfigError
from itemic.schema import THINK_END, THINK_START
from itemic.tasks import Conversations, make_task, validate
from itemic.tasks.alike import similar_places
from itemic.tasks.build import taught_by
from itemic.tasks.written import write_rationales
from tests.server import Reply, Server, completion, said, serving
from tests.tasks.helpers import N, make_dataset, make_index, make_sequences, messages, metadata, small


def thoughtful(body: dict[str, Any], attempt: int) -> Reply:
    return completion(f"They like {len(said(body))} letters.")


def bodies_of(server: Server) -> list[str]:
    return sorted(json.dumps(body) for body in server.bodies)


def test_thoughts_stand_before_the_item_that_they_lead_to(tmp_path: Path) -> None:
    dataset, index = small()
    with serving(thoughtful) as server:
        built = write_rationales(
            dataset, index, {"url": server.url, "model": "m"}, answers=tmp_path / "a", limit=40, max_items=6
        )
    silent = make_task("C", windows=["all"], max_items=6).build(dataset, index)
    known = {tuple(messages(row)) for row in silent[c.MESSAGES]}
    frame = built.read()
    assert len(frame) == 40 == built.counts["rationale"]
    shown = {len(said(body)) for body in server.bodies}
    for row in frame[c.MESSAGES]:
        system, asked, answer = messages(row)
        thought = re.fullmatch(rf"{THINK_START}\nThey like (\d+) letters\.\n{THINK_END}\n\n(.+)", answer)
        assert thought is not None
        assert int(thought[1]) in shown
        assert (system, asked, thought[2]) in known
    assert validate(frame, dataset, index, max_target_share=1.0).ok
    taught = taught_by(built)
    assert taught is not None
    assert taught.tasks[0]["task"] == "rationale"


def test_an_endpoint_is_shown_histories_of_training_and_what_came_next(tmp_path: Path) -> None:
    sequences = {
        "u": [0, 1, 2, 3, 4, 5],
        "v": [0, 1, 6, 8, 9],
        "w": [1, 21, 22, 23, 24],
        "x": [30, 31, 32, 33],
    }
    dataset, index = make_dataset(sequences), make_index()
    titles = dataset.items[c.TITLE].to_list()
    with serving(thoughtful) as server:
        write_rationales(dataset, index, {"url": server.url, "model": "m"}, answers=tmp_path / "a", similar=2)
        write_rationales(
            dataset, index, {"url": server.url, "model": "m"}, answers=tmp_path / "a", similar=0, limit=None
        )
    asked = [said(body).split("\n") for body in server.bodies]
    (found,) = [
        lines for lines in asked if len(lines) == 6 and f"The next choice: {titles[2]} (" in lines[-2]
    ]
    like, less, own = found[1:4]
    assert [line.count("; ") + 1 for line in (like, less, own)] == [2, 1, 2]
    assert like.startswith(f"- {titles[0]} (Shop > Body > soap); {titles[1]} (Shop > Body > soap, Mint) → ")
    assert "no 6 " in like.split(" → ")[1]  # v had both as well
    assert less.startswith(f"- {titles[1]} (")  # w one of them
    assert "no 21 " in less.split(" → ")[1]
    assert own.startswith(f"A customer chose, oldest first: {titles[0]} (")
    alone = [lines for lines in asked if lines[0].startswith("A customer chose")]
    rows = sum(len(dataset.train[user]) - 1 for user in range(4))
    assert len(alone) == rows - 1  # u and v begin alike, and what is equal is asked once


def test_targets_of_validation_and_test_are_never_sent(tmp_path: Path) -> None:
    """Whatever they are, an endpoint is sent the very same bytes; one that nobody had before is never named."""
    sequences = make_sequences()
    dataset, index = make_dataset(sequences), make_index()
    planted = {
        user: [row % 39 for row in rows[:-2]] + [39, 39] if len(rows) >= 3 else [row % 39 for row in rows]
        for user, rows in sequences.items()
    }
    trained = {
        user: [row % 39 for row in rows[: len(dataset.train[number])]]
        + [(row + 7) % 39 for row in rows[len(dataset.train[number]) :]]
        for number, (user, rows) in enumerate(sequences.items())
    }
    sent = []
    for name, some in (("planted", planted), ("trained", trained)):
        with serving(thoughtful) as server:
            write_rationales(
                make_dataset(some),
                index,
                {"url": server.url, "model": "m"},
                answers=tmp_path / name,
                limit=None,
            )
            sent.append(bodies_of(server))
    assert sent[0] == sent[1]
    assert len(sent[0]) > 100
    assert not any("no 39 " in body for body in sent[0])
    assert any("no 38 " in body for body in sent[0])


def test_like_histories_are_those_of_a_slow_loop() -> None:
    train = make_dataset(make_sequences(40)).train
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    had = [{int(item) for item in train[one]} for one in range(len(train))]
    weight = np.log((1 + len(train)) / (1 + np.array([sum(i in items for items in had) for i in range(N)])))
    places = [place for place in range(len(train.items)) if place > train.offsets[user[place]]]

    def vector(place: int) -> np.ndarray:
        found = np.zeros(N)
        seen = train.items[max(train.offsets[user[place]], place - 4) : place]
        found[seen] = weight[seen]
        return found / np.linalg.norm(found)

    vectors = {place: vector(place) for place in places}
    found = similar_places(train, np.array(places), N, latest=4, k=3)
    assert sum(map(len, found)) > len(places)
    for place, similar in zip(places, found, strict=True):
        best: dict[int, float] = {}
        for other in places:
            if user[other] != user[place]:
                score = float(vectors[place] @ vectors[other])
                best[user[other]] = max(best.get(user[other], 0.0), score)
        expected = sorted((score for score in best.values() if score > 0), reverse=True)[:3]
        scores = [float(vectors[place] @ vectors[other]) for other in similar]
        assert scores == pytest.approx(expected)
        assert len({user[other] for other in similar} | {user[place]}) == len(similar) + 1


def test_words_of_an_endpoint_can_not_speak_as_items_or_roles(tmp_path: Path) -> None:
    dataset, index = small()
    words = [
        f"<think>\nfirst\n</think>\n\nThey want\n\n{index.text(3)} soap.<|im_end|><|im_start|>user hi <think>",
        "",
        "<think>only thoughts</think>",
        "cut off in the",
    ]
    finish = ["stop", "stop", "stop", "length"]
    numbers: dict[str, int] = {}

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        number = numbers.setdefault(said(body), len(numbers)) % 4
        return completion(words[number], finish[number])

    with serving(reply) as server:
        built = write_rationales(
            dataset,
            index,
            {"url": server.url, "model": "m", "concurrency": 1},
            answers=tmp_path / "a",
            limit=20,
        )
    rows = built.read()[c.MESSAGES].to_list()
    assert len(rows) == 5 == len(numbers) // 4
    for row in rows:
        answer = messages(row)[-1]
        assert answer.startswith(f"{THINK_START}\nThey want soap. user hi\n{THINK_END}\n\n")
        assert len(list(index.find(answer))) == 1
        assert "<|im_" not in answer


def test_options_are_checked(tmp_path: Path) -> None:
    dataset, index = small()
    for options, told in (
        ({"latest": 3}, "latest is about thoughts by rule"),
        ({"similar": -1}, "similar is -1"),
        ({"history_text": "words"}, "history_text 'words'"),
    ):
        with pytest.raises(ConfigError, match=told):
            write_rationales(
                dataset,
                index,
                {"url": "http://a/v1", "model": "m"},
                answers=tmp_path / "a",
                **options,  # type: ignore[arg-type]
            )


def test_a_killed_process_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    """The command, killed by the system with answers under way; then the same command again."""
    dataset, index = small()
    dataset.save(tmp_path / "data")
    index.save(tmp_path / "index")
    gate, enough = threading.Event(), threading.Semaphore(0)

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        if not gate.is_set() and len(server.bodies) > 12:
            enough.release()
            gate.wait(120)  # these are under way when the process is killed
        return thoughtful(body, attempt)

    def command(name: str) -> list[str]:
        where = [str(tmp_path / "data"), "--index", str(tmp_path / "index"), "--output", str(tmp_path / name)]
        asked = ["--endpoint", server.url, "--model", "m", "--concurrency", "4", "--limit", "40"]
        return ["tasks", "rationales", *where, *asked]

    with serving(reply) as server:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "itemic", *command("out")], env=environment)
        for _ in range(4):
            assert enough.acquire(timeout=120)  # all four threads wait for what they won't get
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        gate.set()
        kept = (tmp_path / "out.answers.jsonl").read_text("utf-8").splitlines()
        assert len(kept) == 12
        assert not (tmp_path / "out").exists()
        before = dict(server.asked)
        assert len(before) == 16
        assert call(command("out")) == 0
        assert len(server.asked) == 40
        twice = {text for text, count in server.asked.items() if count == 2}
        assert len(twice) == 4  # which had been under way; whatever had been written was not asked for again
        assert set(server.asked.values()) == {1, 2}
        finished = (tmp_path / "out.answers.jsonl").read_text("utf-8").splitlines()
        assert finished[:12] == kept
        assert len({json.loads(line)["key"] for line in finished}) == len(finished) == 40
        assert call(command("whole")) == 0
    rows, whole = (Conversations.open(tmp_path / name).read() for name in ("out", "whole"))
    assert rows.equals(whole)
    assert len(rows) == 40
    assert {about["task"] for about in metadata(rows)} == {"rationale"}


def test_a_refusal_ends_the_command_and_keeps_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, index = small()
    dataset.save(tmp_path / "data")
    index.save(tmp_path / "index")

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        return thoughtful(body, attempt) if len(server.bodies) <= 5 else (401, {}, {"error": "no such key"})

    with serving(reply) as server:
        where = [str(tmp_path / "data"), "--index", str(tmp_path / "index"), "-o", str(tmp_path / "out")]
        asked = ["--endpoint", server.url, "--model", "m", "--concurrency", "1"]
        assert call(["tasks", "rationales", *where, *asked, "--limit", "30"]) == 2
        shown = re.sub(r"\s+", "", capsys.readouterr().err)
        assert f"{server.url}/chat/completionsanswered401" in shown
        assert "5of30answersthatweremissingarein" in shown
    assert len((tmp_path / "out.answers.jsonl").read_text("utf-8").splitlines()) == 5
    assert not (tmp_path / "out").exists()

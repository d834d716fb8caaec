"""The client of tests: against a server that fails, hangs and lies, and against transformers' with a model of ours."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from itemic.control.client import ask
from itemic.control.tests import ListTests
from itemic.endpoint import HOPELESS, Endpoint, ask_all
from itemic.errors import EndpointError
from itemic.model import Model
from itemic.pipeline.lists import Where, asking_of_run, evaluate_control
from itemic.tasks.conversation import Conversations
from tests.server import Reply, completion, said, serving


def turns(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def echo(body: dict[str, Any], attempt: int) -> Reply:
    return completion(f" about {said(body)}\n")


def test_texts_come_as_they_are_and_in_order(tmp_path: Path) -> None:
    questions = [f"q{i}" for i in range(40)] + ["q3"]
    with serving(echo) as server:
        endpoint = Endpoint(server.url, "m", concurrency=8, temperature=0.0)
        for _ in range(2):
            found = ask(turns(*questions), endpoint, tmp_path / "a.jsonl", more={"top_k": 20})
            assert found == [f" about {each}\n" for each in questions]
        assert set(server.asked.values()) == {1}
        assert all(body["top_k"] == 20 and body["temperature"] == 0 for body in server.bodies)
        ask(turns("q0"), endpoint, tmp_path / "a.jsonl")
        assert server.asked["q0"] == 2  # sent with something else, it is another question


def test_answers_that_are_no_whole_text_are_counted(tmp_path: Path) -> None:
    replies = {"a": completion("1. Jaws\n2. C", "length"), "b": completion(None), "c": completion("1. Jaws")}
    counts: Counter[str] = Counter()
    with serving(lambda body, attempt: replies[said(body)]) as server:
        found = ask(turns("a", "b", "c"), Endpoint(server.url, "m"), tmp_path / "a.jsonl", counts=counts)
    assert found == ["1. Jaws\n2. C", "", "1. Jaws"]
    assert counts == {"cut": 1, "empty": 1, "refused": 0}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_that_is_refused_alone_has_no_text_and_stops_nobody(status: int, tmp_path: Path) -> None:
    short = threading.Event()

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        return (
            (status, {}, {"error": "too long"})
            if said(body) == "long" and not short.is_set()
            else echo(body, attempt)
        )

    file, counts = tmp_path / "a.jsonl", Counter[str]()
    with serving(reply) as server:
        endpoint = Endpoint(server.url, "m", concurrency=1)
        assert ask(turns("a", "long", "b"), endpoint, file, counts=counts) == [" about a\n", "", " about b\n"]
        assert counts == {"refused": 1, "cut": 0, "empty": 0}
        again = ask(turns("a", "long", "b"), endpoint, file)  # nothing but what is refused is left to ask
        assert again == [" about a\n", "", " about b\n"]
        with pytest.raises(
            EndpointError, match=f"answered {status}: .*too long"
        ):  # where nothing may be lost
            ask_all(endpoint, turns("a", "long"), file)
        short.set()
        assert ask(turns("a", "long", "b"), endpoint, file)[1] == " about long\n"
        assert server.asked == {"a": 1, "b": 1, "long": 4}


def test_who_refuses_all_is_named(tmp_path: Path) -> None:
    questions = [f"q{i}" for i in range(200)]
    with serving(lambda body, attempt: (400, {}, {"error": "no such model"})) as server:
        endpoint = Endpoint(server.url, "m", concurrency=4)
        with pytest.raises(EndpointError, match=r"answered 400: .*no such model") as caught:
            ask(turns(*questions), endpoint, tmp_path / "a.jsonl")
        assert "0 of 200" in caught.value.remedy
        assert sum(server.asked.values()) <= HOPELESS + 2 * 4
        with pytest.raises(EndpointError, match="no such model"):
            ask(turns("alone"), endpoint, tmp_path / "b.jsonl")


def test_a_server_that_fails_and_hangs_is_asked_again(tmp_path: Path) -> None:
    """The first attempt fails, the second says nothing for longer than the client waits."""
    over = threading.Event()

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        if attempt == 1:
            return 503, {"Retry-After": "0"}, {"error": "busy"}
        if attempt == 2:
            over.wait(60)
        return echo(body, attempt)

    with serving(reply) as server:
        endpoint = Endpoint(server.url, "m", timeout=0.5, retries=2)
        found = ask(turns("a", "b"), endpoint, tmp_path / "a.jsonl")
        over.set()
        assert found == [" about a\n", " about b\n"]
        assert server.asked == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    "lie",
    [
        b"<html>",
        b"",
        b"\xff\xfe",
        {},
        [],
        {"choices": None},
        {"choices": [{"message": {"content": ["Jaws"]}}]},
        {"choices": [{"message": {"content": {"text": "Jaws"}}}]},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"text": "Jaws"}]},
    ],
)
def test_who_lies_is_named_and_what_was_true_is_kept(lie: Any, tmp_path: Path) -> None:
    lying = threading.Event()
    file = tmp_path / "a.jsonl"
    with serving(lambda body, attempt: (200, {}, lie) if lying.is_set() else echo(body, attempt)) as server:
        endpoint = Endpoint(server.url, "m")
        ask(turns("a"), endpoint, file)
        lying.set()
        with pytest.raises(EndpointError, match="something that is no chat completion"):
            ask(turns("a", "b"), endpoint, file)
        lying.clear()
        assert ask(turns("a", "b"), endpoint, file) == [" about a\n", " about b\n"]
        assert server.asked["a"] == 1


def test_halves_of_characters_are_replaced(tmp_path: Path) -> None:
    with serving(lambda body, attempt: completion("Ja\ud83dws")) as server:
        for _ in range(2):
            assert ask(turns("a"), Endpoint(server.url, "m"), tmp_path / "a.jsonl") == ["Ja?ws"]


# ---------------------------------------------------------------------------- transformers serve


def lively(model: Model, folder: Path) -> Path:
    """The model with larger random weights, which doesn't say the same all the time."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.lm.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn_like(weight) * 0.5)
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def served(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Endpoint]]:
    """A model of the run's with other weights, and where transformers serves it."""
    pytest.importorskip("openai", reason="transformers serve needs it")
    pytest.importorskip("uvicorn", reason="transformers serve needs it")
    model = Model.load(finished / "run" / "train.all")
    folder = lively(model, tmp_path_factory.mktemp("served") / "model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-c",
        "from transformers.cli.transformers import main; main()",
        "serve",
        str(folder),
    ]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _until_up(process, port)
        url = f"http://127.0.0.1:{port}/v1"
        yield model, Endpoint(url, str(folder), concurrency=3, max_tokens=12, temperature=0.0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def written(model: Model, prompt: Sequence[Mapping[str, str]]) -> str:
    tokens = torch.tensor([model.chat.prompt(prompt)])
    found = model.lm.generate(tokens, max_new_tokens=12, do_sample=False)[0, tokens.shape[1] :]  # type: ignore[operator]
    return str(model.tokenizer.decode(found, skip_special_tokens=True))


@pytest.mark.slow
def test_against_transformers_serve(served: tuple[Model, Endpoint], finished: Path, tmp_path: Path) -> None:
    """Both kinds of prompts are answered with the text that ``generate`` writes, those of many at once too."""
    model, endpoint = served
    told = [row for row in Conversations.open(finished / "run" / "conversations") if row.messages]
    prompts = [row.messages[:-1] for row in told[:6] if row.messages]
    expected = [written(model, prompt) for prompt in prompts]
    assert len(set(expected)) > 1
    assert ask(prompts, endpoint, tmp_path / "a.jsonl") == expected
    texts = [model.chat.prompt_text(prompt) for prompt in prompts]
    assert ask(texts, endpoint, tmp_path / "a.jsonl") == expected


@pytest.mark.slow
def test_test_tasks_against_transformers_serve(
    served: tuple[Model, Endpoint], finished: Path, tmp_path: Path
) -> None:
    """Chats and plain texts come to the same table, and the answers are those of ``generate``."""
    model, endpoint = served
    tests = ListTests(tasks=("SFTTestSeqRec", "SFT+TestPersonalControlRec"), users=3, topk=3, mode="free")
    tables = []
    for plain in (False, True):
        where, folder = Where(endpoint, plain), tmp_path / str(plain)
        (found,) = evaluate_control(None, tests, dataset=finished / "run", where=where, output=folder)
        tables.append(found.lines)
        kept = {json.loads(line)["text"] for line in (folder / "served-answers.jsonl").open(encoding="utf-8")}
        own = asking_of_run(finished / "run", tests, folder)
        (test, _) = tests.tests
        for one in own.questions(test).asked:
            said = own.answerer.messages(
                one, own.spoken(test), own.drawer(test).labels, False, len(one.shown)
            )
            assert written(model, said) in kept
    assert tables[0] == tables[1]
    assert [line.asked for line in tables[0]] == [3, 3]


def _until_up(process: subprocess.Popen[str], port: int) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            threading.Event().wait(0.2)
    raise AssertionError("the server didn't come up")

"""Answers of an endpoint, against a real server: each is asked for once, whatever happens in between."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from itemic.endpoint import Endpoint, ask_all, opened
from itemic.errors import ArtifactError, ConfigError, DataError, EndpointError
from tests.server import Reply, completion, said, serving


def turns(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def echo(body: dict[str, Any], attempt: int) -> Reply:
    return completion(f"about {said(body)}")


def test_answers_come_in_order_and_equal_questions_are_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "a secret")
    file = tmp_path / "new" / "answers.jsonl"
    questions = [f"question {i} é 😀\n" for i in range(30)] + ["question 3 é 😀\n"]
    with serving(echo) as server:
        endpoint = Endpoint(server.url, "m", key="SHOP_KEY", concurrency=3, max_tokens=9, temperature=0.5)
        expected: list[str | None] = [f"about {each}".strip() for each in questions]
        assert ask_all(endpoint, turns(*questions), file) == expected
        assert set(server.asked.values()) == {1}
        assert len(server.asked) == 30
        assert {*server.paths} == {"/v1/chat/completions"}
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer a secret"}
        assert "a secret" not in file.read_text("utf-8")
        for body in server.bodies:
            assert {key: body[key] for key in ("model", "max_tokens", "temperature")} == {
                "model": "m",
                "max_tokens": 9,
                "temperature": 0.5,
            }
        more = [*questions, "one more"]
        assert ask_all(endpoint, turns(*more), file) == [*expected, "about one more"]
        assert set(server.asked.values()) == {1}
        ask_all(Endpoint(server.url, "another model"), turns("one more"), file)
        assert server.asked["one more"] == 2
    again = Endpoint("http://127.0.0.1:9/v1", "m", max_tokens=9, temperature=0.5)  # nobody is asked
    assert ask_all(again, turns(*questions), file) == expected


def test_so_many_are_open_at_once(tmp_path: Path) -> None:
    """Nobody is answered before three ask, so this ends only if three do; and never do four."""
    three = threading.Barrier(3, timeout=60)

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        three.wait()
        return echo(body, attempt)

    with serving(reply) as server:
        found = ask_all(Endpoint(server.url, "m", concurrency=3), turns(*"abcdefghi"), tmp_path / "a.jsonl")
        assert found == [f"about {each}" for each in "abcdefghi"]
        assert server.most_open == 3


def test_without_a_key_none_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(echo) as server:
        ask_all(Endpoint(f"{server.url}/chat/completions/", "m"), turns("a"), tmp_path / "a.jsonl")
        assert "Authorization" not in server.headers[0]
        assert server.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_who_is_busy_is_asked_again(status: int, tmp_path: Path) -> None:
    def busy(body: dict[str, Any], attempt: int) -> Reply:
        return (status, {"Retry-After": "0"}, {"error": "busy"}) if attempt < 3 else echo(body, attempt)

    with serving(busy) as server:
        found = ask_all(Endpoint(server.url, "m", retries=2), turns("a", "b"), tmp_path / "a.jsonl")
        assert found == ["about a", "about b"]
        assert server.asked == {"a": 3, "b": 3}


def test_who_stays_busy_is_named(tmp_path: Path) -> None:
    with serving(lambda body, attempt: (503, {"Retry-After": "0"}, {"error": "overloaded"})) as server:
        with pytest.raises(
            EndpointError, match=r"/v1/chat/completions answered 503: .*overloaded.*, 2 times"
        ):
            ask_all(Endpoint(server.url, "m", retries=1), turns("a"), tmp_path / "a.jsonl")
        assert server.asked["a"] == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(
            EndpointError, match=rf"{nobody}/chat/completions can't be reached \(ConnectError"
        ):
            ask_all(Endpoint(nobody, "m", retries=0), turns("a"), tmp_path / "a.jsonl")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_names_url_and_status_and_keeps_what_was_written(status: int, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    refusing = threading.Event()

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        return (status, {}, {"error": "wrong \x1b[31mkey"}) if refusing.is_set() else echo(body, attempt)

    with serving(reply) as server:
        endpoint = Endpoint(server.url, "m", concurrency=2)
        ask_all(endpoint, turns("a", "b"), file)
        before = file.read_bytes()
        refusing.set()
        with pytest.raises(
            EndpointError, match=f"{server.url}/chat/completions answered {status}: .*wrong"
        ) as caught:
            ask_all(endpoint, turns(*"abcdefghijklmnop"), file)
        assert "\x1b" not in str(caught.value)
        assert f"0 of 14 answers that were missing are in {file} now" in caught.value.remedy
        assert file.read_bytes() == before
        assert sum(server.asked.values()) <= 2 + 2  # what hadn't been sent by either wasn't
        refusing.clear()
        assert ask_all(endpoint, turns(*"abcdefghijklmnop"), file) == [
            f"about {x}" for x in "abcdefghijklmnop"
        ]
        assert server.asked["a"] == server.asked["b"] == 1


@pytest.mark.parametrize("answer", [b"<html>", {"choices": []}, {"text": "a"}, []])
def test_what_is_no_completion_is_named(answer: Any, tmp_path: Path) -> None:
    with (
        serving(lambda body, attempt: (200, {}, answer)) as server,
        pytest.raises(EndpointError, match="answered 200 with something that is no chat completion"),
    ):
        ask_all(Endpoint(server.url, "m"), turns("a"), tmp_path / "a.jsonl")


def test_empty_and_cut_answers_are_none_and_not_asked_for_again(tmp_path: Path) -> None:
    replies = {"a": completion(None), "b": completion("and then", "length"), "c": completion(" \n")}
    with serving(lambda body, attempt: replies[said(body)]) as server:
        for _ in range(2):
            found = ask_all(Endpoint(server.url, "m"), turns("a", "b", "c"), tmp_path / "a.jsonl")
            assert found == [None, None, None]
        assert server.asked == {"a": 1, "b": 1, "c": 1}


def test_a_torn_line_is_asked_for_again_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    with serving(echo) as server:
        endpoint = Endpoint(server.url, "m", concurrency=1)
        expected = ask_all(endpoint, turns(*"abcd"), file)
        whole = file.read_bytes()
        *_, last, _ = whole.split(b"\n")
        for torn in (whole[:-1], whole[:-7], whole[: -len(last)]):
            file.write_bytes(torn)
            assert ask_all(endpoint, turns(*"abcd"), file) == expected
            assert file.read_bytes() == whole
        assert server.asked == {"a": 1, "b": 1, "c": 1, "d": 4}


def test_a_file_of_something_else_or_of_another_process_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m")
    for text in ("title,brand\n", "{}\n", '[1]\n{"key": "a", "text": "b", "finish": "stop"}\n'):
        file.write_text(text)
        with pytest.raises(DataError, match=r"answers\.jsonl, line 1 is no kept answer"):
            ask_all(endpoint, turns("a"), file)
        assert file.read_text() == text
    file.unlink()
    with opened(file), pytest.raises(ArtifactError, match="another process is writing"):
        ask_all(endpoint, turns("a"), file)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigError, match="needs httpx") as caught:
        ask_all(Endpoint("http://127.0.0.1:9/v1", "m"), turns("a"), tmp_path / "a.jsonl")
    assert "itemic[endpoint]" in caught.value.remedy


def test_what_is_no_address_and_no_key_is_said_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EndpointError, match="is no address"):
        ask_all(Endpoint("http://a:b:c/v1", "m"), turns("a"), tmp_path / "a.jsonl")
    for secret in ("top\nsecret", "tøp secret"):
        monkeypatch.setenv("SHOP_KEY", secret)
        with pytest.raises(ConfigError, match="SHOP_KEY holds is no API key") as caught:
            ask_all(Endpoint("http://127.0.0.1:9/v1", "m", key="SHOP_KEY"), turns("a"), tmp_path / "a.jsonl")
        assert "secret" not in str(caught.value)


def test_settings_are_checked() -> None:
    for wrong, said_of_it in (
        ({"url": "localhost:8000"}, "begins with http"),
        ({"model": ""}, "model"),
        ({"concurrency": 0}, "concurrency"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0.0}, "timeout"),
    ):
        with pytest.raises(ConfigError, match=said_of_it):
            Endpoint(**({"url": "http://a/v1", "model": "m"} | wrong))  # type: ignore[arg-type]


def test_lines_are_whole_whoever_writes_them(tmp_path: Path) -> None:
    """Long answers of many threads: every line is one answer."""
    with serving(lambda body, attempt: completion(said(body) * 3000)) as server:
        endpoint = Endpoint(server.url, "m", concurrency=8)
        questions = [f"{i}é" for i in range(40)]
        ask_all(endpoint, turns(*questions), tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["text"] for line in lines) == sorted(each * 3000 for each in questions)

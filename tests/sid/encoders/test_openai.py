"""Against a real HTTP server: the protocol, patience, and what is told when it goes wrong."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

from itemic.errors import ConfigError, DataError, ItemicError
from itemic.sid.encoders import http
from itemic.sid.encoders.openai import OpenAIEncoder, embeddings_url
from itemic.sid.text import item_texts
from itemic.sid.vectors import normalize
from tests.sid.encoders.cases import FRESH, ITEMS
from tests.sid.encoders.server import DIMS, Embedder, embed, hash_words, reply
from tests.sid.helpers import make_dataset

KEY = "sk-very-secret-0123456789"
EXPECTED = normalize(np.array([hash_words(text) for text in item_texts(ITEMS)]))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)


def encoder(server: Embedder, **options: Any) -> OpenAIEncoder:
    return OpenAIEncoder(**{"model": "words", "base_url": server.url, "batch_size": 8, **options})


def test_what_is_sent_and_what_comes(server: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    vectors = encoder(
        server, key_env="SOME_KEY", fields=["title"], instruction="to: ", dims=16
    ).fit_transform(ITEMS)
    assert vectors.shape == (60, 16)
    assert set(server.paths) == {"/v1/embeddings"}
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert all(set(body) == {"model", "input", "dimensions"} for body in server.bodies)
    assert sorted(len(body["input"]) for body in server.bodies) == [1, 4, *[8] * 7]
    assert "to: Title: red soap number 0" in server.texts


@pytest.mark.parametrize("parallel", [1, 4])
def test_vectors_come_back_to_their_items(server: Embedder, parallel: int) -> None:
    shuffled = lambda body: reply({"data": embed(body)[::-1]})  # noqa: E731
    server.always = shuffled
    np.testing.assert_allclose(encoder(server, parallel=parallel).fit_transform(ITEMS), EXPECTED, atol=1e-6)
    assert "Authorization" not in server.headers[0]


def test_it_tries_again_after_what_can_pass(server: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    busy = lambda body: reply({"error": {"message": "slow down"}}, 429, Retry_After="0.01")  # noqa: E731
    down = lambda body: reply("oh", 503)  # noqa: E731
    server.next = [busy, down, lambda body: None]
    with caplog.at_level(logging.INFO, logger="itemic"):
        vectors = encoder(server, parallel=1).fit_transform(ITEMS)
    np.testing.assert_allclose(vectors, EXPECTED, atol=1e-6)
    assert "slow down" in caplog.text
    assert "attempt 2 in 0.0 s" in caplog.text
    assert "503" in caplog.text
    assert len(server.bodies) == 3 + 9


def test_a_time_out_is_tried_again(server: Embedder) -> None:
    import time

    def slow(body: dict[str, Any]) -> None:
        time.sleep(1.5)

    server.next = [slow]
    vectors = encoder(server, timeout=1.0, parallel=1, retries=8).fit_transform(ITEMS[:3])
    np.testing.assert_allclose(vectors, EXPECTED[:3], atol=1e-6)


def test_waits_double_and_heed_the_server(server: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(http, "FIRST_WAIT", 1.0)
    poster = http.Poster(f"{server.url}/v1/embeddings", None, 10, 4)
    monkeypatch.setattr(poster._stopped, "wait", lambda seconds: bool(waits.append(seconds)))
    down = lambda body: reply("oh", 500)  # noqa: E731
    asked = lambda body: reply("oh", 429, Retry_After="7")  # noqa: E731
    far = lambda body: reply("oh", 429, Retry_After="7000")  # noqa: E731
    server.next = [down, down, asked, far]
    assert poster.post({"input": ["x"]})["data"]
    assert 0.75 <= waits[0] <= 1.25
    assert 1.5 <= waits[1] <= 2.5
    assert waits[2:] == [7, http.LONGEST_WAIT]


def test_it_gives_up_in_the_end(server: Embedder) -> None:
    server.always = lambda body: reply({"error": "asleep"}, 503)
    with pytest.raises(ConfigError, match=r"failed 3 times, last with: 503 .*asleep"):
        encoder(server, retries=2).fit_transform(ITEMS)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        (400, DataError, "max_chars"),
        (401, ConfigError, "key_env"),
        (404, ConfigError, "base_url"),
        (413, DataError, "max"),
    ],
)
def test_refusals_are_told_at_once_and_without_the_key(
    server: Embedder, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[ItemicError], remedy: str
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    server.always = lambda body: reply({"error": {"message": f"not with {KEY}"}}, status)
    with pytest.raises(kind, match=f"refused with {status}.*not with …") as caught:
        encoder(server, key_env="SOME_KEY").fit_transform(ITEMS)
    assert remedy in caught.value.remedy
    assert KEY not in str(caught.value)
    assert len(server.bodies) == 1


def test_a_redirect_does_not_take_the_key_elsewhere(server: Embedder) -> None:
    server.always = lambda body: reply({}, 307, Location="http://elsewhere.invalid/v1")
    with pytest.raises(ConfigError, match=r"307 .*to http://elsewhere\.invalid/v1"):
        encoder(server).fit_transform(ITEMS)


def test_the_key_is_nowhere_but_in_the_header(
    server: Embedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    server.next = [lambda body: reply(KEY, 500)]
    made = encoder(server, key_env="SOME_KEY", cache=str(tmp_path))
    with caplog.at_level(logging.DEBUG):
        made.fit_transform(ITEMS)
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    state = b"".join(array.tobytes() for array in made.state.values())
    said = json.dumps([made.identity, made.precision, made.notes]) + caplog.text + repr(vars(made))
    assert KEY not in said
    assert KEY.encode() not in kept + state
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ConfigError, match="SOME_KEY is not set"):
        encoder(server, key_env="SOME_KEY").fit_transform(ITEMS)
    with pytest.raises(ConfigError) as caught:
        encoder(server, key_env=KEY)
    assert KEY not in str(caught.value)


def spoilt(change: Any) -> Any:
    def answer(body: dict[str, Any]) -> Any:
        data = embed(body)
        if len(data) > 1:  # the probe is answered properly
            data = change(data) or data
        return reply({"data": data})

    return answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "answered with 7 vectors"),
        (lambda data: data[0].update(index=1), r"indexes \[1, 1, 2"),
        (lambda data: data[0].update(index=None), r"indexes \[None, 1"),
        (lambda data: data[2]["embedding"].pop() and None, f"of the lengths {DIMS - 1}, {DIMS}"),
        (lambda data: data[2].update(embedding="AAAA"), "of the lengths no list"),
        (lambda data: data[2]["embedding"].__setitem__(0, "x"), "aren't numbers"),
        (lambda data: {"not": "a list"}, "without a list"),
        (
            lambda data: [entry["embedding"].pop() for entry in data] and None,
            f"{DIMS} and of {DIMS - 1}|{DIMS - 1}",
        ),
    ],
)
def test_answers_that_make_no_sense(server: Embedder, change: Any, message: str) -> None:
    server.next = [spoilt(lambda data: None), spoilt(lambda data: None)]
    server.always = spoilt(change)
    with pytest.raises(DataError, match=message):
        encoder(server, parallel=1).fit_transform(ITEMS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_nan_names_the_item(server: Embedder, value: float | None) -> None:
    def answer(body: dict[str, Any]) -> Any:
        data = embed(body)
        for entry, text in zip(data, body["input"], strict=True):
            if "white mirror number 1" in text:
                entry["embedding"][5] = value
        return reply({"data": data})

    server.always = answer
    with pytest.raises(DataError, match=r"NaN or infinite .* for 1 of 8 .*row 39 \(item 'item39'\)"):
        encoder(server).fit_transform(ITEMS)


def test_an_answer_that_is_no_json(server: Embedder) -> None:
    server.always = lambda body: (200, {}, b"<html>Welcome</html>")
    with pytest.raises(DataError, match="not JSON: '<html>Welcome"):
        encoder(server).fit_transform(ITEMS)


def test_a_server_without_indexes_is_taken_at_its_order(server: Embedder) -> None:
    server.always = lambda body: reply({"data": [{"embedding": entry["embedding"]} for entry in embed(body)]})
    np.testing.assert_allclose(encoder(server).fit_transform(ITEMS), EXPECTED, atol=1e-6)


def test_long_texts_are_cut(server: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="itemic"):
        encoder(server, max_chars=12).fit_transform(make_dataset(["x" * 20, "y"]).items)
    assert server.texts[1:] == ["Title: xxxxx", "Title: y"]
    assert "1 of 2 texts were cut to 12 characters" in caplog.text


def test_another_model_under_the_same_name_is_refused(server: Embedder) -> None:
    first = encoder(server)
    first.fit_transform(ITEMS)
    again = encoder(server)
    again.restore(first.state)
    assert again.transform(FRESH).shape == (2, DIMS)
    turned = encoder(server)
    turned.restore(first.state)
    server.always = lambda body: reply(
        {"data": [entry | {"embedding": entry["embedding"][::-1]} for entry in embed(body)]}
    )
    with pytest.raises(ConfigError, match="another model 'words' than the encoder was fitted with"):
        turned.transform(FRESH)


def test_nobody_listens() -> None:
    with pytest.raises(ConfigError, match=r"failed 2 times.*refused"):
        OpenAIEncoder(model="words", base_url="http://127.0.0.1:9", retries=1).fit_transform(ITEMS)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/embeddings"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/embeddings"),
        ("https://some.org/api/v3", "https://some.org/api/v3/embeddings"),
        ("https://some.org/openai", "https://some.org/openai/v1/embeddings"),
        ("https://some.org/v1/embeddings", "https://some.org/v1/embeddings"),
    ],
)
def test_addresses(base: str, url: str) -> None:
    assert embeddings_url(base) == url


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": ""},
        {"base_url": "localhost:80"},
        {"base_url": "http://me:pass@host"},
        {"base_url": "http://h?k=1"},
        {"parallel": 0},
        {"retries": -1},
        {"timeout": 0},
        {"max_chars": 0},
        {"model": ""},
    ],
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIEncoder(**{"model": "words", "base_url": "http://host", **options})
    assert "pass@" not in str(caught.value)

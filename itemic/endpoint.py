"""Answers of any OpenAI-compatible endpoint, each asked for once: a file keeps them, and an interrupted run goes on.

The file has one JSON object a line, ``{"key": …, "text": …, "finish": …}``: the key is a digest of what was asked
(model, messages and how to sample, not the address), so that another run finds it, whichever server of that model it
asks.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from filelock import FileLock, Timeout
from pydantic import Field, field_validator

from itemic.artifact import digest_of
from itemic.errors import ArtifactError, ConfigError, DataError, EndpointError, missing_extra
from itemic.progress import log, progress_bar
from itemic.settings import Amount, Count, NotNegative, Positive, Text, settings, wrong
from itemic.text import shown

if TYPE_CHECKING:
    import httpx

Message = Mapping[str, str]
Prompt = Sequence[Message] | str  # a conversation, or a text to go on with
REFUSED = "refused"  # why there is no answer, where the endpoint takes others but not this prompt
OF_ONE = (400, 413, 422)  # statuses that may be about one prompt, such as one that is too long
HOPELESS = 20  # so many prompts are refused before any is answered, and no more are tried
WHOLE = "stop"  # why an answer ended, where it came to its end
PASSING = (408, 409, 425, 429)  # statuses that may be gone when asked again, as all from 500 on
LONGEST_WAIT = 60.0  # seconds between two attempts
QUOTED = 300  # characters of an endpoint's own words in an error


@settings(frozen=True)
class Endpoint:
    """Where to ask, and how.

    Attributes:
        url: the root of the API, as ``http://localhost:8000/v1``; ``/chat/completions`` is added.
        model: its name there.
        key: the variable of the environment that holds the API key; none is sent where it isn't set.
        concurrency: requests that are open at once.
        retries: how often a request is made again where the endpoint is busy, fails or can't be reached, each time
            after about twice as long.
        timeout: seconds without a sign of an answer.
        max_tokens: the longest answer.
        temperature: of sampling.
    """

    url: Text
    model: Annotated[Text, Field(min_length=1)]
    key: Text = "OPENAI_API_KEY"
    concurrency: Count = 8
    retries: Amount = 6
    timeout: Positive = 300.0
    max_tokens: Count = 512
    temperature: NotNegative = 0.7

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise wrong(f"is {url!r}; give an address that begins with http:// or https://", url)
        return url.rstrip("/").removesuffix("/chat/completions")

    def body(self, messages: Prompt) -> dict[str, Any]:
        """What is sent to ask for the next turn, or for how a text goes on."""
        text = isinstance(messages, str)
        asked = {"prompt": messages} if text else {"messages": [dict(message) for message in messages]}  # type: ignore[arg-type]
        sampled = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return {"model": self.model, **asked, **sampled}


@dataclass(frozen=True)
class Answer:
    """What an endpoint said.

    Attributes:
        text: as it came.
        finish: why it ended: ``stop``, ``length`` where it was cut off, ``refused`` where there is none.
    """

    text: str
    finish: str


class Answers:
    """The answers in a file, for one process at a time; see :func:`opened`.

    Attributes:
        refused: keys of prompts that were refused while others were answered. They have no answer here.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        found = _read(file)
        self.refused = {key for key, answer in found.items() if answer["finish"] == REFUSED}
        self._found = {key: answer for key, answer in found.items() if key not in self.refused}
        self._lock = threading.Lock()
        self._out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __len__(self) -> int:
        return len(self._found)

    def answer(self, key: str) -> Answer:
        """What was answered."""
        return Answer(self._found[key]["text"], self._found[key]["finish"])

    def add(self, key: str, text: str, finish: str) -> None:
        """Keep an answer: when this returns, its line is on the disk."""
        answer = {"key": key, "text": text, "finish": finish}
        line = json.dumps(answer, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._out, line) :]
            os.fsync(self._out)
            if finish == REFUSED:
                self.refused.add(key)
            else:
                self._found[key] = answer
                self.refused.discard(key)

    def close(self) -> None:
        os.close(self._out)


@contextmanager
def opened(file: str | Path) -> Iterator[Answers]:
    """Hold a file of answers for this process.

    Raises:
        ArtifactError: another process holds it.
        DataError: it holds something else.
    """
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ArtifactError(
            f"another process is writing answers to {path}", "Wait for it to end, or give another file."
        ) from error
    try:
        answers = Answers(path)
        try:
            yield answers
        finally:
            answers.close()
    finally:
        lock.release()


def _read(file: Path) -> dict[str, dict[str, str]]:
    """What a file holds by key. A last line without an end is what a killed process left, and is cut off."""
    whole = file.read_bytes() if file.exists() else b""
    kept, _, torn = whole.rpartition(b"\n")
    if torn:
        log.warning("%s: its last line was not written to its end, and is asked for again", file)
        os.truncate(file, len(whole) - len(torn))
    found = {}
    for number, line in enumerate(kept.split(b"\n") if kept else [], 1):
        try:
            answer = json.loads(line)
            found[answer["key"]] = {name: str(answer[name]) for name in ("key", "text", "finish")}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number} is no kept answer: {error}", "Give another file for the answers."
            ) from error
    return found


def ask_all(
    endpoint: Endpoint, conversations: Sequence[Sequence[Message]], file: str | Path
) -> list[str | None]:
    """The next turn of each conversation, asked for where the file doesn't have it yet.

    Each answer is on the disk as soon as it is there. Whoever is killed or refused and asks again goes on from them.

    Args:
        endpoint: where to ask.
        conversations: messages that end with a user's; equal ones are asked once.
        file: of the answers.

    Returns:
        the texts, in order; None for one that was empty or cut off at ``max_tokens``.

    Raises:
        as :func:`answered`.
    """
    found = answered(endpoint, conversations, file)
    return [one.text.strip() or None if one.finish == WHOLE else None for one in found]


def answered(
    endpoint: Endpoint,
    prompts: Sequence[Prompt],
    file: str | Path,
    *,
    more: Mapping[str, Any] | None = None,
    spare: bool = False,
) -> list[Answer]:
    """What the endpoint says to each prompt, as it came, asked for where the file doesn't have it yet.

    Args:
        endpoint: where to ask.
        prompts: messages that end with a user's, or plain texts (``/completions``); equal ones are asked once.
        file: of the answers.
        more: what else is sent with each, as vLLM's ``skip_special_tokens``.
        spare: a prompt that is refused where others are answered has an answer that says so. It is asked again next
            time.

    Raises:
        ConfigError: the package ``httpx`` is missing, or the key is no key.
        EndpointError: the endpoint refuses, can't be reached, or answers something else; what was written is kept.
        ArtifactError: another process writes to the file.
        DataError: the file holds something else.
    """
    try:
        import httpx
    except ImportError:
        raise missing_extra("asking an endpoint", "httpx", "endpoint") from None
    bodies = [endpoint.body(prompt) | dict(more or {}) for prompt in prompts]
    keys = [digest_of(body) for body in bodies]
    refused: dict[str, EndpointError] = {}
    with opened(file) as answers:
        missing = {key: body for key, body in zip(keys, bodies, strict=True) if key not in answers}
        if missing:
            log.info("%s: %d of %d answers are to be asked for", endpoint.url, len(missing), len(set(keys)))
            limits = httpx.Limits(max_connections=endpoint.concurrency)
            with httpx.Client(headers=_secret(endpoint), timeout=endpoint.timeout, limits=limits) as client:
                asker = _Asker(endpoint, client, answers, spare)
                _fetch(asker, missing)
                refused = asker.refused
        return [Answer("", REFUSED) if key in refused else answers.answer(key) for key in keys]


def _secret(endpoint: Endpoint) -> dict[str, str]:
    """The header with the API key. It is checked here, where it isn't shown: httpx would quote it in an error."""
    secret = os.environ.get(endpoint.key, "").strip()
    if not (secret.isascii() and secret.isprintable()):
        raise ConfigError(f"what ${endpoint.key} holds is no API key", "Set the variable to the key alone.")
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def _fetch(asker: _Asker, missing: Mapping[str, dict[str, Any]]) -> None:
    """Ask for all of them side by side; the first refusal stops those that haven't been sent."""
    pool = ThreadPoolExecutor(asker.endpoint.concurrency, thread_name_prefix="endpoint")
    try:
        open_: set[Future[None]] = {pool.submit(asker.ask, key, body) for key, body in missing.items()}
        with progress_bar("answers", len(missing)) as bar:
            while open_:
                done, open_ = wait(open_, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                bar.advance(len(done))
        asker.check_hope(0)
        for key in asker.refused.keys() - asker.answers.refused:
            asker.answers.add(key, "", REFUSED)
    except EndpointError as error:
        asker.stopped.set()
        pool.shutdown(cancel_futures=True)  # what is under way comes in, and is kept
        kept = sum(key in asker.answers for key in missing)
        raise EndpointError(
            error.message,
            f"{error.remedy} {kept} of {len(missing)} answers that were missing are in {asker.answers.file} now; "
            "the same command goes on from there.",
        ) from error
    finally:
        asker.stopped.set()
        pool.shutdown(cancel_futures=True)


class _Asker:
    """Asks for one answer at a time, in any thread."""

    def __init__(
        self, endpoint: Endpoint, client: httpx.Client, answers: Answers, spare: bool = False
    ) -> None:
        self.endpoint, self.client, self.answers, self.spare = endpoint, client, answers, spare
        self.refused: dict[str, EndpointError] = {}
        self.stopped = threading.Event()
        self._before = len(answers)

    def ask(self, key: str, body: dict[str, Any]) -> None:
        """Ask until there is an answer, and keep it; nothing is sent any more once one was refused.

        Raises:
            EndpointError: there is none.
        """
        try:
            found = self._persist(body)
        except _OfOne as error:
            self.refused[key] = error
            if not self.spare:
                self.stopped.set()
                raise
            self.check_hope(HOPELESS)
            return
        except EndpointError:
            self.stopped.set()
            raise
        if found is not None:
            self.answers.add(key, *found)

    def check_hope(self, most: int) -> None:
        """Raises:
        EndpointError: more than so many prompts were refused, and none was answered; those that were refused before,
            beside others, don't count.
        """
        new = [error for key, error in list(self.refused.items()) if key not in self.answers.refused]
        if len(new) > most and len(self.answers) == self._before:
            self.stopped.set()
            raise new[0]

    def _persist(self, body: dict[str, Any]) -> tuple[str, str] | None:
        """Text and why it ended; None where all are to stop."""
        said, url = "", self._url(body)
        for attempt in range(self.endpoint.retries + 1):
            if self.stopped.is_set():
                return None
            found = self._post(body)
            if not isinstance(found, _Busy):
                return found
            said = found.said
            if attempt < self.endpoint.retries:
                pause = min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(
                    0.75, 1.25
                )  # not all at once again
                self.stopped.wait(pause if found.after is None else min(LONGEST_WAIT, found.after))
        raise EndpointError(
            f"{url} {said}, {self.endpoint.retries + 1} times",
            "Make sure that it is up, or ask less of it at once (concurrency).",
        )

    def _url(self, body: Mapping[str, Any]) -> str:
        return f"{self.endpoint.url}/{'completions' if 'prompt' in body else 'chat/completions'}"

    def _post(self, body: dict[str, Any]) -> tuple[str, str] | _Busy:
        """Text and why it ended; or that asking again may help.

        Raises:
            EndpointError: it won't.
        """
        import httpx

        url = self._url(body)
        try:
            response = self.client.post(url, json=body)
        except httpx.InvalidURL as error:
            raise EndpointError(f"{url} is no address: {error}", "Correct the url.") from error
        except httpx.RequestError as error:
            return _Busy(f"can't be reached ({type(error).__name__}: {error})")
        status, words = response.status_code, shown(response.text[:QUOTED])
        if status in PASSING or status >= 500:
            return _Busy(f"answered {status}: {words}", _seconds(response.headers.get("Retry-After")))
        if status != 200:
            raise (_OfOne if status in OF_ONE else EndpointError)(
                f"{url} answered {status}: {words}",
                f"Check url, model {self.endpoint.model!r} and the key in ${self.endpoint.key}.",
            )
        try:
            choice = response.json()["choices"][0]
            text = choice["text"] if "prompt" in body else choice["message"]["content"]
            if not isinstance(text, str | None):
                raise TypeError("the answer is no text")
            whole = (text or "").encode("utf-8", "replace").decode()  # a server may cut a pair into halves
            return whole, str(choice.get("finish_reason") or WHOLE)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            kind = "completion" if "prompt" in body else "chat completion"
            raise EndpointError(
                f"{url} answered {status} with something that is no {kind}: {words}",
                "Give the root of an OpenAI-compatible API, as http://localhost:8000/v1.",
            ) from error


class _OfOne(EndpointError):
    """A refusal that may be about one prompt alone."""


class _Busy:
    """Why there is no answer yet, and after how many seconds to ask again, where the endpoint says so."""

    def __init__(self, said: str, after: float | None = None) -> None:
        self.said, self.after = said, after


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:  # a date, which nobody sends here
        return None

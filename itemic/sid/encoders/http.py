"""JSON over HTTP with patience: what can pass is tried again, what can't is told."""

from __future__ import annotations

import json
import random
import threading
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from itemic.errors import ConfigError, DataError, ItemicError
from itemic.progress import log

AGAIN = (408, 409, 425, 429)  # and every 5xx
FIRST_WAIT = 1.0  # seconds before the second attempt; doubles with each
LONGEST_WAIT = 60.0


class Poster:
    """Sends JSON to one address and gives back the JSON that comes.

    Safe to use from several threads. Redirects aren't followed: they would carry the key to another server.

    Args:
        url: where to.
        key: sent as bearer token; it appears in no message.
        timeout: seconds per attempt.
        retries: further attempts after a time-out, a broken connection, or a status that says "later".
    """

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        self.url = url
        self.timeout = timeout
        self.retries = retries
        self._key = key
        self._stopped = threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirects)

    def stop(self) -> None:
        """Give up waiting between attempts."""
        self._stopped.set()

    def post(self, body: dict[str, Any]) -> Any:
        """The answer to ``body``.

        Raises:
            ConfigError: the server can't be reached, refuses the key or doesn't know address or model.
            DataError: it refuses the texts, or answers something that isn't JSON.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._once(body)
            except _Later as later:
                if attempt == self.retries:
                    raise ConfigError(
                        f"{self.url} failed {attempt + 1} times, last with: {later}",
                        "Try later, or raise retries and timeout; what is in the cache is not asked for again.",
                    ) from later
                wait = (
                    later.wait
                    if later.wait is not None
                    else FIRST_WAIT * 2**attempt * random.uniform(0.75, 1.25)
                )
                wait = min(wait, LONGEST_WAIT)
                log.info("%s: %s; attempt %d in %.1f s", self.url, later, attempt + 2, wait)
                if self._stopped.wait(wait):
                    raise ConfigError(f"{self.url} failed: {later}", "Try later.") from later
        raise AssertionError("the last attempt returns or raises")

    def _once(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "itemic"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise self._told(error) from error
        except (OSError, HTTPException) as error:  # time-outs and broken connections among them
            reason = getattr(error, "reason", None) or error
            raise _Later(self._masked(f"{type(error).__name__}: {reason}")) from error
        try:
            return json.loads(content)
        except ValueError as error:
            said = self._masked(content[:80].decode(errors="replace"))
            raise DataError(
                f"{self.url} answered with something that is not JSON: {said!r}",
                "Check that base_url is an OpenAI-compatible server.",
            ) from error

    def _told(self, error: urllib.error.HTTPError) -> Exception:
        """The fault that a status stands for."""
        said = f"{error.code} {error.reason}: {self._masked(self._message(error))}"
        if error.code in AGAIN or error.code >= 500:
            return _Later(said, _seconds(error.headers.get("Retry-After")))
        kind: type[ItemicError] = ConfigError
        if error.code in (401, 403):
            remedy = "Put a valid key into the environment variable that key_env names."
        elif error.code == 404:
            remedy = "Check base_url and model."
        elif error.code < 400:
            said += f" (to {error.headers.get('Location')})"
            remedy = "Give the address that it points to as base_url, if you trust it."
        else:
            kind, remedy = (
                DataError,
                "Mend what it complains about: model, dims, or max_chars and batch_size.",
            )
        return kind(f"{self.url} refused with {said}", remedy)

    def _message(self, error: urllib.error.HTTPError) -> str:
        try:
            text = error.read(4096).decode(errors="replace")
        except (OSError, HTTPException):
            return ""
        try:
            said = json.loads(text)
            fault = said.get("error", said)
            text = str(fault["message"] if isinstance(fault, dict) and "message" in fault else fault)
        except (ValueError, AttributeError):
            pass
        return " ".join(text.split())[:300]

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


class _Later(Exception):
    """Worth another attempt, after ``wait`` seconds if the server says so."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _seconds(text: str | None) -> float | None:
    """Of a Retry-After header; a date in it is not waited for."""
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None

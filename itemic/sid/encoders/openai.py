"""Vectors from any server that speaks OpenAI's embeddings protocol: OpenAI, vLLM, TEI, llama.cpp, Ollama, …"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from itemic.errors import ConfigError, DataError
from itemic.progress import log
from itemic.sid.encoders.http import Poster
from itemic.sid.encoders.texts import TextEncoder
from itemic.sid.vectors import Array, Float32

PROBE = "itemic: is this the same model?"
PROBE_COSINE = 0.99  # servers round differently; another model is nowhere near


class OpenAIEncoder(TextEncoder):
    """``POST {base_url}/v1/embeddings`` with ``{"model", "input": [text, …]}``.

    A server doesn't say which weights it has. So the vector of a fixed sentence is remembered, and a restored encoder
    asks for it again before it encodes: a server with another model under the same name is refused.

    Args:
        model: the name that the server knows.
        base_url: of the server, with or without ``/v1``.
        key_env: the *name* of the environment variable that holds the key, sent as bearer token; None sends none.
            The key itself is written nowhere.
        fields: text fields of an item; None for all.
        instruction: text in front of each item's.
        max_chars: longer texts are cut before they are sent, and counted in the log; servers refuse what is longer
            than their model takes. 20,000 are about 5,000 tokens of English.
        batch_size: texts per request.
        parallel: requests under way at a time.
        dims: dimensions to ask for (``dimensions``, for models that can be cut); None for the model's own.
        normalize: whether vectors get length 1.
        timeout: seconds that a request may take.
        retries: how often a request is sent again after a time-out, a broken connection, or the statuses 408, 409,
            429 and 5xx, each time after twice as long, or after as long as the server asks for.
        cache: folder of vectors that are there already, see :mod:`itemic.sid.encoders.cache`.
        seed: not used.
    """

    name = "openai"

    def __init__(
        self,
        *,
        model: str = "",
        base_url: str = "",
        key_env: str | None = None,
        fields: Sequence[str] | None = None,
        instruction: str = "",
        max_chars: int = 20_000,
        batch_size: int = 64,
        parallel: int = 4,
        dims: int | None = None,
        normalize: bool = True,
        timeout: float = 60.0,
        retries: int = 5,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model=model, fields=fields, batch_size=batch_size, dims=dims, normalize=normalize, cache=cache
        )
        if max_chars < 1 or parallel < 1 or retries < 0 or timeout <= 0:
            raise ConfigError(
                f"max_chars, parallel, retries, timeout are {max_chars}, {parallel}, {retries}, {timeout}",
                "Give positive numbers; retries may be 0.",
            )
        if key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", key_env):
            raise ConfigError(  # what stands there may be the key itself, so it isn't repeated
                "key_env is not the name of an environment variable",
                "Put the key into a variable and give the variable's name, e.g. OPENAI_API_KEY.",
            )
        self.url = embeddings_url(base_url)
        self.key_env = key_env
        self.instruction = instruction
        self.max_chars = max_chars
        self.parallel = parallel
        self.timeout = timeout
        self.retries = retries
        self._probe = np.zeros((1, 0), np.float32)
        self._trusted = False  # whether the server was asked for the probe

    @property
    def identity(self) -> dict[str, Any]:
        """Model's name, fields, instruction, length, dimensions, normalisation; the server's address doesn't count."""
        return {
            "name": self.name,
            "model": self.model,
            "fields": list(self.fields),
            "instruction": self.instruction,
            "max_chars": self.max_chars,
            "dims": self.dims,
            "normalize": self.normalize,
        }

    @property
    def precision(self) -> dict[str, Any]:
        """The server: two may well have different models of one name."""
        return {"url": self.url}

    @property
    def state(self) -> dict[str, Array]:
        """``mean [1, d]`` and ``probe [1, d]``."""
        return {**super().state, "probe": self._probe}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over the mean and the probe, which is asked for again before the next text."""
        super().restore(state)
        self._probe = np.asarray(state["probe"], np.float32)
        self._trusted = False

    def encode(self, texts: Sequence[str]) -> Iterator[Float32]:
        """Vectors ``[m, d]`` of the texts, batch by batch."""
        poster = Poster(self.url, self._key(), self.timeout, self.retries)
        self._check_probe(poster)
        given = [(self.instruction + text)[: self.max_chars] for text in texts]
        cut = sum(len(self.instruction) + len(text) > self.max_chars for text in texts)
        if cut:
            log.warning("%d of %d texts were cut to %d characters", cut, len(texts), self.max_chars)
        batches = [given[start : start + self.batch_size] for start in range(0, len(given), self.batch_size)]
        pool = ThreadPoolExecutor(self.parallel)
        waiting = [pool.submit(self._ask, poster, batch) for batch in batches[: self.parallel]]
        following = iter(batches[self.parallel :])
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(self._ask, poster, batch) for batch in islice(following, 1)]
        finally:
            poster.stop()  # after a fault what else is under way is not waited for
            pool.shutdown(wait=False, cancel_futures=True)

    def _key(self) -> str | None:
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ConfigError(
                f"the environment variable {self.key_env} is not set", "Set it to the key of the server."
            )
        return key

    def _check_probe(self, poster: Poster) -> None:
        if self._trusted:
            return
        vector = self._ask(poster, [PROBE])
        if self._probe.shape[1]:
            then = self._probe
            scale = np.linalg.norm(vector) * np.linalg.norm(then)
            if vector.shape != then.shape or not (vector * then).sum() > PROBE_COSINE * scale:
                raise ConfigError(
                    f"the server at {self.url} has another model {self.model!r} than the encoder was fitted with",
                    "Use a server with the same weights, or build the semantic IDs anew.",
                )
        else:
            self._probe = vector
        self._trusted = True

    def _ask(self, poster: Poster, batch: Sequence[str]) -> Float32:
        """The vectors of one request."""
        body: dict[str, Any] = {"model": self.model, "input": list(batch)}
        if self.dims is not None:
            body["dimensions"] = self.dims
        return read_vectors(poster.post(body), len(batch), self.url)


def embeddings_url(base_url: str) -> str:
    """The address of the embeddings of a server; ``base_url`` may end with its version, as in ``/v1``.

    Raises:
        ConfigError: not an address over HTTP, or one with a password in it.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = base_url if "@" not in base_url else "no such address"
        raise ConfigError(f"base_url is {shown!r}", "Give an address such as http://localhost:8000/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"base_url of {parts.hostname} holds a password, a query or a fragment",
            "Give the address alone; a key goes into the variable that key_env names.",
        )
    path = parts.path.rstrip("/")
    if path.endswith("/embeddings"):
        return f"{parts.scheme}://{parts.netloc}{path}"
    version = "" if re.search(r"/v\d+\w*$", path) else "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}{version}/embeddings"


def read_vectors(answer: Any, count: int, url: str) -> Float32:
    """The vectors ``[count, d]`` of an answer, brought into the order of their ``index``.

    Raises:
        DataError: not an answer of the protocol: wrong count, indexes, types or lengths.
    """
    remedy = "Check that base_url is an OpenAI-compatible server of embeddings."
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise DataError(f"{url} answered without a list `data`", remedy)
    places = [entry.get("index") for entry in data]
    if all(place is None for place in places):
        places = list(range(len(data)))
    if sorted(map(str, places)) != sorted(map(str, range(count))):
        raise DataError(
            f"{url} answered with {len(data)} vectors (indexes {places[:5]}…) to {count} texts", remedy
        )
    rows: list[Any] = [None] * count
    for place, entry in zip(places, data, strict=True):
        rows[int(place)] = entry.get("embedding")
    lengths = {len(row) if isinstance(row, list) else -1 for row in rows}
    if len(lengths) > 1 or not all(size > 0 for size in lengths):
        said = ", ".join("no list" if size < 0 else str(size) for size in sorted(lengths))
        raise DataError(f"{url} answered with vectors of the lengths {said}", remedy)
    try:
        return np.array([[np.nan if value is None else value for value in row] for row in rows], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{url} answered with vectors that aren't numbers: {error}", remedy) from error

"""A real HTTP server of embeddings: vectors by hashing words, and faults on demand."""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Answer = tuple[int, dict[str, str], bytes]
DIMS = 128


def hash_words(text: str, dims: int = DIMS) -> list[float]:
    """A sum of one fixed random direction per word."""
    total = np.zeros(DIMS)
    for word in re.findall(r"\w+", text.lower()):
        total += np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIMS)
    return [float(value) for value in total[:dims]]


def embed(body: dict[str, Any]) -> list[dict[str, Any]]:
    dims = body.get("dimensions", DIMS)
    return [
        {"object": "embedding", "index": place, "embedding": hash_words(text, dims)}
        for place, text in enumerate(body["input"])
    ]


def reply(data: Any, status: int = 200, **headers: str) -> Answer:
    return status, headers, json.dumps(data).encode()


class Embedder(ThreadingHTTPServer):
    """Answers as ``next`` says, request by request, and properly when it is empty; keeps what it was sent."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.next: list[Callable[[dict[str, Any]], Answer | None]] = []  # None breaks the connection
        self.always: Callable[[dict[str, Any]], Answer | None] = lambda body: reply({"data": embed(body)})
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def texts(self) -> list[str]:
        """All texts that it was sent."""
        return [text for body in self.bodies for text in body["input"]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Embedder

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            self.server.paths.append(self.path)
            answer = self.server.next.pop(0) if self.server.next else self.server.always
        made = answer(body)
        if made is None:
            self.connection.close()
            return
        status, headers, content = made
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[Embedder]:
    server = Embedder()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

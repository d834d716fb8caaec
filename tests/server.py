"""A small OpenAI-compatible server on a real socket, for tests: it answers by a rule, and counts what it is asked."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], Any]  # status, headers, body


def completion(text: str | None, finish: str = "stop") -> Reply:
    return (
        200,
        {},
        {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]},
    )


def said(body: dict[str, Any]) -> str:
    """The last turn that was sent."""
    return str(body["messages"][-1]["content"])


class Server:
    """What a test sees of it: ``asked`` (how often each last turn came), ``bodies`` and ``headers`` in order."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.reply = reply
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.open = self.most_open = 0
        self.url = ""

    def handle(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        with self.lock:
            self.asked[said(body)] += 1
            attempt = self.asked[said(body)]
            self.bodies.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        try:
            return self.reply(body, attempt)
        finally:
            with self.lock:
                self.open -= 1


@contextmanager
def serving(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[Server]:
    """Serve while the block runs.

    Args:
        reply: from the body of a request, and how often its last turn came by now, to the answer.
    """
    server = Server(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, answer = server.handle(self.path, dict(self.headers), body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # who asked was killed

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()

"""A teacher behind HTTP, as RecLM-gen's clients call it: ``POST /inference`` and ``POST /ranking``."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from itemic.errors import ConfigError, ItemicError, missing_extra
from itemic.teacher.desk import Answer, Body, Desk, Question

if TYPE_CHECKING:
    from fastapi import FastAPI

WAIT = 1.0  # seconds, the longest that a request waits for others
BATCH = 20_480  # requests that are computed together
MOST = 204_800  # requests that wait at all
GRACE = 30  # seconds for what is under way when the server is asked to end


class Busy(ItemicError):
    """Too many requests wait."""


class Queue:
    """Collects questions and has them answered together, once the first has waited long enough or there are many."""

    def __init__(self, desk: Desk, wait: float = WAIT, batch: int = BATCH, most: int = MOST) -> None:
        self.desk, self.wait, self.batch, self.most = desk, wait, batch, most
        self._waiting: list[tuple[Sequence[Question], asyncio.Future[list[Answer]]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._count = self.open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in order.

        Raises:
            Busy: too many wait already.
        """
        if self.open + len(questions) > self.most:
            raise Busy(f"{self.open:,} requests wait already", "Ask again in a second.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Answer]] = loop.create_future()
        self._waiting.append((questions, future))
        self._count += len(questions)
        self.open += len(questions)
        if self._count >= self.batch:
            self._go()
        elif self._timer is None:
            self._timer = loop.call_later(self.wait, self._go)
        try:
            return await future
        finally:
            self.open -= len(questions)

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting, self._timer, self._count = self._waiting, [], None, 0
        task = asyncio.create_task(self._compute(waiting))
        self._tasks.add(task)  # the loop itself doesn't keep it
        task.add_done_callback(self._tasks.discard)

    async def _compute(
        self, waiting: Sequence[tuple[Sequence[Question], asyncio.Future[list[Answer]]]]
    ) -> None:
        questions = [one for asked, _ in waiting for one in asked]
        try:
            answers = await asyncio.to_thread(self.desk.answer, questions)
        except Exception as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        start = 0
        for asked, future in waiting:
            if not future.done():  # who asked may have gone
                future.set_result(answers[start : start + len(asked)])
            start += len(asked)


def application(desk: Desk, queue: Queue | None = None) -> FastAPI:
    """The application; what can't be answered is a 422 with what is wrong and what to do.

    Args:
        desk: who answers.
        queue: of requests that may wait.

    Raises:
        ConfigError: a package is missing.
    """
    try:
        from fastapi import FastAPI
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse
    except ImportError:
        raise missing_extra("a teacher's server", "fastapi", "serve") from None
    app = FastAPI(title="itemic teacher", docs_url=None, redoc_url=None)
    waiting = queue or Queue(desk)

    async def answers(body: Body, questions: Sequence[Question]) -> list[Answer]:
        if body.immediately:
            return await asyncio.to_thread(desk.answer, questions)
        return await waiting.ask(questions)

    @app.post("/inference")
    async def inference(body: Body) -> Any:
        return {"inference": await answers(body, await asyncio.to_thread(desk.lists, body))}

    @app.post("/ranking")
    async def ranking(body: Body) -> Any:
        return {"ranking": await answers(body, await asyncio.to_thread(desk.ranks, body))}

    @app.get("/")
    async def about() -> Any:
        return {
            "teacher": desk.teacher.name,
            "items": len(desk.teacher.item_ids),
            "categories": len(desk.categories or {}),
            "waiting": waiting.open,
            "answered": desk.answered,
            "computations": desk.computations,
        }

    async def refuse(_: Any, error: Any) -> Any:
        busy = isinstance(error, Busy)
        content = {"detail": error.message, "remedy": error.remedy}
        return JSONResponse(content, 503 if busy else 422, {"Retry-After": "1"} if busy else None)

    async def misread(_: Any, error: Any) -> Any:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'the body'}: {fault['msg']}"
            for fault in error.errors()
        ]
        content = {"detail": "; ".join(faults), "remedy": f"Send JSON with {', '.join(Body.model_fields)}."}
        return JSONResponse(content, 422)

    app.add_exception_handler(ItemicError, refuse)
    app.add_exception_handler(RequestValidationError, misread)
    return app


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        ConfigError: the address can't be had.
    """
    try:
        return socket.create_server((host, port), backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}:{port} can't be listened at: {error}", "Give another --host or --port."
        ) from error


def run(desk: Desk, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; what was asked until then is answered.

    Raises:
        ConfigError: a package is missing.
    """
    app = application(desk)
    try:
        import uvicorn
    except ImportError:
        raise missing_extra("a teacher's server", "uvicorn", "serve") from None
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=GRACE
    )
    with suppress(KeyboardInterrupt):  # it hands on the signal that it ended for
        uvicorn.Server(config).run(sockets=[listening])

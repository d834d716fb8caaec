"""Several ranks on one machine: real processes that meet over gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

PRELOAD = [
    "tests.training.processes",
    "itemic.training.loop",
    "itemic.training.language.run",
    "tests.training.preloaded",
    "torch.utils.tensorboard",
]


def context() -> Any:
    """Processes forked from one that has imported everything."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def free_port() -> int:
    with socket.socket() as box:
        box.bind(("127.0.0.1", 0))
        return int(box.getsockname()[1])


def _rank(
    work: Callable[..., None], rank: int, size: int, port: int, log: str, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    try:
        work(*args)
    except BaseException:
        Path(log).write_text(traceback.format_exc(), encoding="utf-8")
        raise


def begin(work: Callable[..., None], size: int, *args: Any, folder: Path) -> list[Any]:
    """Start ``work(*args)`` in ``size`` processes, each with a launcher's variables; what one dies of is in
    ``rank-N.txt``."""
    port = free_port()
    made = []
    for rank in range(size):
        log = folder / f"rank-{rank}.txt"
        log.unlink(missing_ok=True)
        child = context().Process(target=_rank, args=(work, rank, size, port, str(log), args))
        child.start()
        made.append(child)
    return made


def run(work: Callable[..., None], size: int, *args: Any, folder: Path) -> None:
    """The same to the end; fails with what the ranks died of."""
    with ended(begin(work, size, *args, folder=folder)) as children:
        for child in children:
            child.join(180)
    texts = [log.read_text() for rank in range(size) if (log := folder / f"rank-{rank}.txt").exists()]
    codes = [child.exitcode for child in children]
    assert codes == [0] * size, f"exit codes {codes}\n" + "\n".join(texts)


@contextmanager
def ended(children: list[Any]) -> Iterator[list[Any]]:
    """Leave no process behind."""
    try:
        yield children
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
            child.join()
